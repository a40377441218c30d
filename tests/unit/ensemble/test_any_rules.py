import numpy as np

from ichtune.ensemble.any_rules import ANY_RULES
from ichtune.labels import ANY, LABELS

P = np.array([[0.2, 0.1, 0.6, 0.1, 0.1, 0.1], [0.9, 0.1, 0.2, 0.1, 0.1, 0.1]])


def test_none_keeps_everything():
    np.testing.assert_array_equal(ANY_RULES["none"](P), P)


def test_any_is_raised_to_its_largest_part_and_never_lowered():
    before = P.copy()
    ruled = ANY_RULES["at_least_max"](P)
    assert ruled[:, LABELS.index(ANY)].tolist() == [0.6, 0.9]
    np.testing.assert_array_equal(ruled[:, 1:], P[:, 1:])
    np.testing.assert_array_equal(P, before)
