import numpy as np
import pytest

from ichtune.ensemble.scores.bootstrap import difference_interval
from ichtune.ensemble.scores.differences import differences_to_reference
from ichtune.errors import DataError


def losses(n_candidates=4, n_patients=50, n_slices=6, seed=0):
    rng = np.random.default_rng(seed)
    patient = np.repeat([f"P{i:03d}" for i in range(n_patients)], n_slices)
    shared = np.repeat(rng.lognormal(-2, 0.8, n_patients), n_slices)
    own = np.repeat(rng.standard_normal((n_patients, n_candidates + 1)), n_slices, axis=0)
    return shared[:, None] + 0.02 * own, patient


def test_each_difference_alone_is_what_a_paired_bootstrap_of_the_two_gives():
    loss, patient = losses()
    found = differences_to_reference(loss[:, 1:], loss[:, 0], patient)
    for c, difference in enumerate(found, 1):
        alone = difference_interval(loss[:, c], loss[:, 0], patient)
        for end in ("estimate", "low", "high"):
            assert getattr(difference.alone, end) == pytest.approx(getattr(alone, end), abs=1e-12)
        assert difference.together.estimate == difference.alone.estimate


def test_the_reference_itself_differs_by_nothing():
    loss, patient = losses()
    found = differences_to_reference(loss, loss[:, 0], patient)
    assert found[0].alone.low == found[0].alone.high == found[0].together.high == pytest.approx(0, abs=1e-15)


def test_with_many_candidates_alike_one_looks_better_alone_far_more_often_than_together():
    alone = together = 0
    for seed in range(60):
        loss, patient = losses(n_candidates=12, seed=seed)
        found = differences_to_reference(loss[:, 1:], loss[:, 0], patient, n_draws=300)
        alone += any(difference.alone.high < 0 or difference.alone.low > 0 for difference in found)
        together += any(difference.together.high < 0 or difference.together.low > 0 for difference in found)
    assert alone >= 12, "one in five at least finds a difference that is not there"
    assert together <= 8


def test_shapes_that_differ_are_refused():
    loss, patient = losses()
    with pytest.raises(DataError, match="must have shape"):
        differences_to_reference(loss, loss[:-1, 0], patient)
    with pytest.raises(DataError, match=r"300 losses and 299 patients"):
        differences_to_reference(loss, loss[:, 0], patient[:-1])
