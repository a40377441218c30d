import numpy as np
import pytest

from ichtune.ensemble.blenders.logits import from_logits, to_logits
from ichtune.ensemble.members.suspicions import FOLD, ROWS, find_suspicions


def leaking(p, y, seed, share=0.01, sure=1e-6):
    """Let the first member give the truth of some rows as 0 or 1."""
    rows = np.random.default_rng(seed).choice(len(y), round(share * len(y)), replace=False)
    told = p.copy()
    told[0, rows] = np.where(y[rows] > 0.5, 1.0 - sure, sure)
    return told, rows


def find(p, y, patient):
    names = [f"m{m}" for m in range(len(p))]
    fold = np.unique(patient, return_inverse=True)[1] % 3
    return find_suspicions(names, p, y, patient, fold, np.array([f"ID_{n}" for n in range(len(y))], object))


def test_a_member_that_was_told_one_percent_of_the_labels_is_suspected(generated):
    p, y, patient = generated(n_patients=300, noises=(1.0, 1.1, 1.2, 0.9, 1.0))
    assert find(p, y, patient) == ()
    told, rows = leaking(p, y, 0)
    (suspicion,) = find(told, y, patient)
    assert (suspicion.recipe_id, suspicion.kind, suspicion.fold) == ("m0", ROWS, None)
    assert len(suspicion.image_ids) == 5
    assert set(suspicion.image_ids) <= {f"ID_{row}" for row in rows}
    shown = suspicion.text({"m0": "resnet"})
    assert "leak suspected: resnet (m0) is sure and right about slices of" in shown
    assert suspicion.image_ids[0] in shown
    assert "It still takes part" in shown


def test_two_members_that_were_told_the_same_are_both_suspected(generated):
    p, y, patient = generated(n_patients=1000, noises=(1.0, 1.1, 1.2, 0.9, 1.0, 1.0))
    told, rows = leaking(p, y, 0)
    told[1, rows] = told[0, rows]
    assert [suspicion.recipe_id for suspicion in find(told, y, patient)] == ["m0", "m1"]


def test_honest_ways_of_being_odd_are_not_suspected(generated):
    p, y, patient = generated(n_patients=300, noises=(1.0, 1.1, 1.2, 0.9, 1.0))
    odd = {
        "hard": (p[0] > 0.5).astype(float),
        "sharp": from_logits(4.0 * to_logits(p[0])),
        "rounded": p[0].round(2),
        "clipped": np.clip(p[0], 0.05, 0.95),
        "upside down": 1.0 - p[0],
        "constant": np.full_like(p[0], 0.1),
        "a reader who errs": np.where(np.random.default_rng(0).random(y.shape) < 0.03, 1.0 - y, y),
    }
    for name, p_NL in odd.items():
        assert find(np.concatenate([p_NL[None], p[1:]]), y, patient) == (), name


def test_a_fold_learnt_by_heart_is_suspected(generated):
    p, y, patient = generated(n_patients=150)
    rows = np.unique(patient, return_inverse=True)[1] % 3 == 2
    p[1, rows] = from_logits(to_logits(p[1, rows]) + 2.0 * (2 * y[rows] - 1))
    suspicion = find(p, y, patient)[0]
    assert (suspicion.recipe_id, suspicion.kind, suspicion.fold) == ("m1", FOLD, 2)
    assert "predicts fold 2 far better than the other folds" in suspicion.text({})


def test_one_member_alone_cannot_be_compared(generated):
    p, y, patient = generated(n_patients=100, noises=(1.0,))
    assert find(leaking(p, y, 0)[0], y, patient) == ()


#: Noise of each member, patients of ten slices, seeds, and the share of leaks of the first member that must be found.
PANELS = {
    "alike": ((1.0, 1.1, 1.2, 1.0, 1.0), 300, 20, 0.95),
    "far better and told": ((0.3, 1.0, 1.0, 1.0), 300, 20, 0.95),
    "told beside a far better one": ((1.0, 0.3, 1.0, 1.0), 300, 20, 0.95),
    "two, each the only witness of the other": ((1.0, 1.2), 300, 20, 0.6),
    "many slices": ((0.9, 1.0, 1.1), 2000, 4, 1.0),
    "two, many slices": ((1.0, 1.2), 2000, 4, 1.0),
    "far better of three, many slices": ((0.3, 1.0, 1.0), 2000, 4, 1.0),
}


@pytest.mark.slow
@pytest.mark.parametrize(("noises", "n_patients", "n_seeds", "least"), PANELS.values(), ids=PANELS)
def test_honest_panels_are_left_alone_and_leaks_are_found(generated, noises, n_patients, n_seeds, least):
    n_alarms = n_found = 0
    for seed in range(n_seeds):
        p, y, patient = generated(n_patients=n_patients, noises=noises, seed=seed)
        n_alarms += bool(find(p, y, patient))
        n_found += [suspicion.recipe_id for suspicion in find(leaking(p, y, seed)[0], y, patient)] == ["m0"]
    assert n_alarms == 0
    assert n_found >= least * n_seeds
