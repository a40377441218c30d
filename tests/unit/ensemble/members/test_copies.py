import numpy as np
import pytest

from ichtune.ensemble.members.copies import FIRST_LOOK, ROUNDING, copied_member
from ichtune.labels import N_LABELS


@pytest.fixture
def members():
    p_MNL = np.random.default_rng(0).uniform(0.1, 0.9, (3, 3 * FIRST_LOOK + 1, N_LABELS))
    p_MNL[2] = p_MNL[1]
    return p_MNL


def test_the_first_member_that_says_the_same_is_found(members):
    assert [copied_member(m, members, members[:, :0]) for m in range(3)] == [None, None, 1]
    members[1] = members[0]
    members[2] = members[0]
    assert [copied_member(m, members, members) for m in range(3)] == [None, 0, 0]


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_rounding_makes_no_other_member(members, dtype):
    members[2] = members[1].astype(np.float32)
    assert copied_member(2, members.astype(dtype), members[:, :9].astype(dtype)) == 1


@pytest.mark.parametrize("row", [0, 1, 3 * FIRST_LOOK])
def test_one_other_probability_does_in_either_table(members, row):
    others = members.copy()
    others[2, row, 3] += 3 * ROUNDING
    assert copied_member(2, others, members[:, :0]) is None
    assert copied_member(2, members, others) is None
