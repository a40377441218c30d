import numpy as np
import pytest

from ichtune.ensemble.post_processing.any_at_least_max import AnyAtLeastMax
from ichtune.ensemble.post_processing.base import ANY_COLUMN, PARTS, check_rows
from ichtune.errors import DataError
from ichtune.labels import ANY, LABELS, N_LABELS, SUBTYPES

P, Y = np.full((4, N_LABELS), 0.3), np.zeros((4, N_LABELS))


def test_any_and_its_parts_are_all_the_labels():
    assert LABELS[ANY_COLUMN] == ANY
    assert {LABELS[column] for column in PARTS} == set(SUBTYPES)


def test_rows_are_checked_and_weighed():
    np.testing.assert_allclose(check_rows(P, Y, np.array([1.0, 1.0, 0.0, 2.0])), [0.25, 0.25, 0.0, 0.5])
    with pytest.raises(DataError, match="no rows"):
        check_rows(P[:0], Y[:0], None)
    with pytest.raises(DataError, match=r"must be probabilities in \[0, 1\]"):
        check_rows(P + 1.0, Y, None)


def test_a_step_that_learns_nothing_takes_nothing_that_was_learned():
    step = AnyAtLeastMax()
    assert step.fit(P, Y).learned() == {}
    with pytest.raises(DataError, match=r"any_at_least_max learns nothing, got \['share'\]"):
        step.restore({"share": 1})
