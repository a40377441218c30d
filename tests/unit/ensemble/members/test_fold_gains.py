import numpy as np
import pytest

from ichtune.ensemble.blenders.logits import from_logits, to_logits
from ichtune.ensemble.members.fold_gains import find_fold_gains


def dealt(generated, k, noises=(1.0, 1.1, 1.2), seed=0):
    p, y, patient = generated(n_patients=150, noises=noises, seed=seed)
    number = np.unique(patient, return_inverse=True)[1]
    return p, y, number, number % k


def with_leak(p, y, rows, strength):
    leaked = p.copy()
    leaked[0, rows] = from_logits(to_logits(p[0, rows]) + strength * (2 * y[rows] - 1))
    return leaked


@pytest.mark.parametrize("k", [2, 3, 5])
@pytest.mark.parametrize("noises", [(1.0,), (1.0, 1.1), (1.0, 1.1, 1.2, 1.3)])
def test_a_fold_that_a_member_has_learnt_by_heart_is_found_and_nothing_else(generated, k, noises):
    p, y, patient, fold = dealt(generated, k, noises)
    assert find_fold_gains(p, y, patient, fold) == ()
    (gain,) = find_fold_gains(with_leak(p, y, fold == 1, 2.0), y, patient, fold)
    assert (gain.member, gain.fold) == (0, 1)
    assert gain.log_odds > 7
    assert gain.n_patients == (np.unique(patient[fold == 1])).size


def test_two_of_five_folds(generated):
    p, y, patient, fold = dealt(generated, 5)
    gains = find_fold_gains(with_leak(p, y, fold >= 3, 2.0), y, patient, fold)
    assert [(gain.member, gain.fold) for gain in gains] == [(0, 3), (0, 4)]


def test_a_fold_that_is_easy_for_everybody_is_nobodys_merit(generated):
    p, y, patient, fold = dealt(generated, 3)
    easy = np.stack([with_leak(p[m : m + 1], y, fold == 1, 2.0)[0] for m in range(3)])
    assert find_fold_gains(easy, y, patient, fold) == ()


def test_honest_members_are_not_suspected(generated):
    for seed in range(30):
        p, y, patient, fold = dealt(generated, 3, (0.3, 1.0, 1.0), seed)
        assert find_fold_gains(p, y, patient, fold) == ()


def test_a_single_fold_says_nothing(generated):
    p, y, patient, fold = dealt(generated, 1)
    assert find_fold_gains(p, y, patient, fold) == ()
