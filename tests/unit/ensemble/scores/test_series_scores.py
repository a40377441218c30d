import numpy as np
import pytest

from ichtune.ensemble.scores.series_scores import series_maxima
from ichtune.errors import ConflictError, DataError

SERIES = np.array(["s2", "s1", "s2", "s1", "s3"], dtype=object)
PATIENT = np.array(["p2", "p1", "p2", "p1", "p1"], dtype=object)


def test_a_series_is_as_positive_and_as_likely_as_its_most_positive_and_likeliest_slice():
    y = np.array([[0, 0], [1, 0], [0, 1], [0, 0], [0, 0.0]])
    p = np.array([[0.1, 0.2], [0.3, 0.4], [0.5, 0.1], [0.2, 0.6], [0.9, 0.0]])
    y_SL, p_SL, patient_S = series_maxima(y, p, PATIENT, SERIES)
    assert y_SL.tolist() == [[1, 0], [0, 1], [0, 0]]
    assert p_SL.tolist() == [[0.3, 0.6], [0.5, 0.2], [0.9, 0.0]]
    assert patient_S.tolist() == ["p1", "p2", "p1"]


def test_order_of_rows_does_not_matter():
    rng = np.random.default_rng(0)
    y, p, order = rng.integers(0, 2, (5, 6)), rng.random((5, 6)), rng.permutation(5)
    for one, two in zip(
        series_maxima(y, p, PATIENT, SERIES),
        series_maxima(y[order], p[order], PATIENT[order], SERIES[order]),
        strict=True,
    ):
        np.testing.assert_array_equal(one, two)


def test_a_series_of_two_patients_and_a_slice_without_series_are_refused():
    y = np.zeros((5, 6))
    with pytest.raises(ConflictError, match=r"series 's2' must belong to one patient, got 'p\d' and 'p\d'"):
        series_maxima(y, y, np.array(["p2", "p1", "p3", "p1", "p1"], dtype=object), SERIES)
    with pytest.raises(DataError, match="each of 5 slices needs a series, got 4"):
        series_maxima(y, y, PATIENT, np.array(["a", "a", "a", "a", None], dtype=object))
