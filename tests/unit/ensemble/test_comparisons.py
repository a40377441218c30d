import numpy as np
import pytest

from ichtune.ensemble.blenders import auto
from ichtune.ensemble.blenders.auto import Auto
from ichtune.ensemble.blenders.convex import Convex
from ichtune.ensemble.comparisons import choices, member_losses, ways_tried
from ichtune.metrics import slice_losses

FEW = (("equal_mean_logit", {}), ("convex", {"space": "logit"}))


@pytest.fixture
def fitted(generated, monkeypatch):
    monkeypatch.setattr(auto, "CANDIDATES", FEW)
    p, y, patient = generated(noises=(0.3, 4.0, 4.0))
    return Auto().fit(p, y, None, patient), p, y, patient


def test_each_way_is_compared_with_the_first(fitted):
    blender, *_ = fitted
    mean, convex = ways_tried(blender)
    assert (mean.name, convex.name) == ("equal mean logit", "convex: space logit")
    assert (mean.alone.estimate, mean.alone.low, mean.alone.high) == (0, 0, 0), "it is the one to compare with"
    assert convex.alone.estimate == pytest.approx(convex.loss - mean.loss)
    assert convex.alone.high < 0


def test_members_are_compared_with_the_blend(fitted):
    _, p, y, patient = fitted
    losses = np.stack([slice_losses(y, p_NL) for p_NL in p])
    best, *rest = member_losses(losses, ["a", "b", "c"], losses[0], patient)
    assert (best.name, best.alone.estimate) == ("a", 0)
    assert all(one.together.low > 0 for one in rest)
    assert [one.loss for one in rest] == pytest.approx(losses[1:].mean(axis=1))


def test_luck_is_told_of_each_choice_and_of_no_other(fitted):
    blender, p, y, patient = fitted
    losses = np.stack([slice_losses(y, p_NL) for p_NL in p])
    both = choices(blender, losses, patient)
    assert (both["best_single"].n_candidates, both["blender"].n_candidates) == (3, 2)
    learned = Convex().fit(p, y)
    assert set(choices(learned, losses, patient)) == {"best_single"}
    assert choices(learned, losses[:1], patient) == {}
    assert choices(blender, losses, np.zeros(len(patient))) == {}
    assert ways_tried(learned) == []
