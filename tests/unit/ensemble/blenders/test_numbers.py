import numpy as np
import pytest

from ichtune.ensemble.blenders.numbers import check_between, check_share, check_whole, is_number, table_of_numbers
from ichtune.errors import ConfigError, DataError


def test_nested_lists_become_an_array():
    np.testing.assert_array_equal(table_of_numbers({"a": [[1, 2]]}, "a", (None, 2)), [[1.0, 2.0]])


@pytest.mark.parametrize(
    ("learned", "shape"),
    [
        ({}, (2,)),
        ({"a": None}, (2,)),
        ({"a": ["x", "y"]}, (2,)),
        ({"a": [1, [2]]}, (2,)),
        ({"a": [1, 2, 3]}, (2,)),
        ({"a": [[1, 2]]}, (2,)),
        ({"a": []}, (None,)),
        ({"a": [float("nan"), 1]}, (2,)),
    ],
)
def test_whatever_is_no_such_array_is_refused(learned, shape):
    with pytest.raises(DataError, match=r"must hold a, (2|any) numbers"):
        table_of_numbers(learned, "a", shape)


@pytest.mark.parametrize("value", [True, "1", None, float("nan"), -0.1, 2.1])
def test_a_setting_is_a_number_within_bounds_and_no_truth_value(value):
    assert not is_number(value, 0.0, 2.0)
    with pytest.raises(ConfigError, match="greedy: a must be a number between 0 and 2, got "):
        check_between("greedy", "a", value, 0.0, 2.0)


def test_bounds_belong_to_what_is_allowed_and_nothing_is_no_share():
    check_between("greedy", "a", 0, 0.0, 2.0)
    check_between("greedy", "a", 2.0, 0.0, 2.0)
    check_share("greedy", "a", 1)
    for value in (0, 1.5, False):
        with pytest.raises(ConfigError, match="greedy: a must be a number above 0 and up to 1, got "):
            check_share("greedy", "a", value)


def test_a_whole_number_has_a_least_one():
    check_whole("greedy", "a", 3, 3)
    for value in (2, 3.0, True, "3"):
        with pytest.raises(ConfigError, match="greedy: a must be a whole number of at least 3, got "):
            check_whole("greedy", "a", value, 3)
