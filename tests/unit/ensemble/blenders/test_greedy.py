import numpy as np
import pytest

from ichtune.ensemble.blenders import greedy
from ichtune.ensemble.blenders.greedy import Greedy
from ichtune.ensemble.blenders.logits import from_logits, to_logits
from ichtune.errors import ConfigError
from ichtune.labels import N_LABELS
from ichtune.metrics import weighted_log_loss


def by_hand(p, y, rounds, space):
    """Selection with replacement as the paper has it, with the metric itself."""
    x = p if space == "probability" else to_logits(p)
    back = (lambda z: z) if space == "probability" else from_logits
    picked = []
    for _ in range(rounds):
        losses = [weighted_log_loss(y, back(x[[*picked, m]].mean(axis=0))) for m in range(len(p))]
        picked.append(int(np.argmin(losses)))
    return np.bincount(picked, minlength=len(p)) / rounds


@pytest.mark.parametrize("space", ["probability", "logit"])
def test_one_bag_picks_what_the_metric_picks(generated, space):
    p, y, _ = generated(noises=(0.6, 0.8, 1.0, 1.5, 3.0))
    blender = Greedy(space, rounds=12, bags=1).fit(p, y)
    np.testing.assert_allclose(blender.weights_[:, 0], by_hand(p, y, 12, space), atol=1e-12)
    assert np.ptp(blender.weights_, axis=1).max() == 0


def test_soft_labels_are_judged_as_such(generated):
    p, _, _ = generated(noises=(0.6, 0.8, 1.0))
    soft = 0.7 * p[1] + 0.3 * p[2]
    np.testing.assert_allclose(Greedy(bags=1).fit(p, soft).weights_[:, 0], by_hand(p, soft, 25, "logit"), atol=1e-12)


def test_bags_give_members_a_chance_that_a_better_one_would_take(generated):
    p, y, _ = generated(noises=(0.3, 0.9, 0.9, 0.9))
    alone = Greedy(bags=1).fit(p, y).weights_[:, 0]
    bagged = Greedy(bags=20, bag_share=0.5).fit(p, y).weights_[:, 0]
    assert bagged[1:].sum() > alone[1:].sum()
    assert (Greedy(bags=20, seed=8).fit(p, y).weights_ != Greedy(bags=20).fit(p, y).weights_).any()


def test_settings_are_checked():
    assert N_LABELS == 6
    with pytest.raises(ConfigError, match="greedy: rounds must be a whole number of at least 1, got 0"):
        Greedy(rounds=0)
    with pytest.raises(ConfigError, match=r"greedy: bag_share must be a number above 0 and up to 1, got 1.5"):
        Greedy(bag_share=1.5)
    with pytest.raises(ConfigError, match=r"greedy: unknown space 'logits'. Did you mean 'logit'"):
        Greedy("logits")


@pytest.mark.parametrize("space", ["probability", "logit"])
def test_blocks_of_entries_do_not_change_the_picks(generated, space, monkeypatch):
    p, y, _ = generated(noises=(0.6, 0.8, 1.0, 1.5))
    whole = Greedy(space).fit(p, y).weights_
    monkeypatch.setattr(greedy, "BLOCK", 100)
    np.testing.assert_array_equal(Greedy(space).fit(p, y).weights_, whole)
