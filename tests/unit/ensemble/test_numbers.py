import numpy as np
import pytest

from ichtune.ensemble.numbers import table_of_numbers
from ichtune.errors import DataError


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
