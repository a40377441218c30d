import numpy as np
import pytest

from ichtune.ensemble.blenders.base import check_fit, check_members
from ichtune.ensemble.blenders.equal_mean import EqualMean
from ichtune.errors import DataError
from ichtune.labels import N_LABELS

P = np.full((2, 4, N_LABELS), 0.3)
Y = np.zeros((4, N_LABELS))


def test_row_weights_are_normalised():
    np.testing.assert_allclose(check_fit(P, Y, None), 0.25)
    np.testing.assert_allclose(check_fit(P, Y, np.array([1.0, 1.0, 0.0, 2.0])), [0.25, 0.25, 0.0, 0.5])


@pytest.mark.parametrize(
    ("p", "y", "weight", "message"),
    [
        (P[0], Y, None, "must have shape"),
        (P[:0], Y, None, "M at least 1"),
        (P, Y[:3], None, "labels must have shape"),
        (P[:, :0], Y[:0], None, "no rows"),
        (P, Y, np.array([1.0, -1.0, 1.0, 1.0]), "at least 0"),
        (P, Y, np.zeros(4), "not all 0"),
        (P, Y, np.ones(3), "must be 4 numbers"),
    ],
)
def test_what_cannot_be_fitted_is_refused(p, y, weight, message):
    with pytest.raises(DataError, match=message):
        check_fit(p, y, weight)


def test_nan_is_refused_by_member_and_label():
    bad = P.copy()
    bad[1, 2, 3] = np.nan
    with pytest.raises(DataError, match=r"member 1 .*row 2, label 'intraventricular'"):
        check_fit(bad, Y, None)


def test_another_number_of_members_is_refused_in_prediction():
    with pytest.raises(DataError, match="fitted on 3 members, got 2"):
        check_members(P, 3)


def test_learned_weights_come_back_as_they_were():
    weights = np.random.default_rng(0).dirichlet(np.ones(3), N_LABELS).T
    restored = EqualMean().restore({"weights_": weights.tolist()})
    np.testing.assert_array_equal(restored.weights_, weights)
    assert EqualMean().restore({"weights_": None}).weights_ is None


@pytest.mark.parametrize(
    ("learned", "message"),
    [
        ({}, r"must hold weights_, got \[\]"),
        ({"weights_": [[0.5] * N_LABELS, [0.5]]}, "must be rows of 6 numbers"),
        ({"weights_": [["half"] * N_LABELS]}, "must be rows of 6 numbers"),
        ({"weights_": [[0.5] * 5]}, r"got shape \(1, 5\)"),
        ({"weights_": []}, r"got shape \(0,\)"),
        ({"weights_": [[float("inf")] * N_LABELS]}, "must be at least 0"),
        ({"weights_": [[-0.5] * N_LABELS]}, "must be at least 0"),
    ],
)
def test_what_no_blender_learned_is_refused(learned, message):
    with pytest.raises(DataError, match=message):
        EqualMean().restore(learned)
