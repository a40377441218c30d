import numpy as np
import pytest

from ichtune.ensemble.members.copies import FIRST_LOOK, ROUNDING, copied_member
from ichtune.labels import N_LABELS


@pytest.fixture
def p_MNL():
    p_MNL = np.random.default_rng(0).uniform(0.1, 0.9, (3, 3 * FIRST_LOOK + 1, N_LABELS))
    p_MNL[2] = p_MNL[1]
    return p_MNL


def test_the_first_member_that_says_the_same_is_found(p_MNL):
    assert [copied_member(m, p_MNL, p_MNL[:, :0]) for m in range(3)] == [None, None, 1]
    p_MNL[1] = p_MNL[0]
    p_MNL[2] = p_MNL[0]
    assert [copied_member(m, p_MNL, p_MNL) for m in range(3)] == [None, 0, 0]


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_rounding_makes_no_other_member(p_MNL, dtype):
    p_MNL[2] = p_MNL[1].astype(np.float32)
    assert copied_member(2, p_MNL.astype(dtype), p_MNL[:, :9].astype(dtype)) == 1


@pytest.mark.parametrize("row", [0, 1, 3 * FIRST_LOOK])
def test_one_other_probability_does_in_either_table(p_MNL, row):
    other_MNL = p_MNL.copy()
    other_MNL[2, row, 3] += 3 * ROUNDING
    assert copied_member(2, other_MNL, p_MNL[:, :0]) is None
    assert copied_member(2, p_MNL, other_MNL) is None
