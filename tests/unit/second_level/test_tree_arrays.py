from dataclasses import replace

import numpy as np
import pytest

from ichtune.ensemble.blenders.logits import from_logits
from ichtune.errors import DataError
from ichtune.second_level import tree_arrays
from ichtune.second_level.tree_arrays import TreeArrays, constant_trees, trees_from_arrays


def two_trees() -> TreeArrays:
    """A tree of three leaves on features 1 and 0, where NaN goes below at the root only, and one that is a leaf."""
    return TreeArrays(
        root_T=np.array([0, 5]),
        feature_K=np.array([1, 0, 0, 0, 0, 0]),
        threshold_K=np.array([0.5, 0.0, np.inf, 0.0, 0.0, 0.0]),
        missing_below_K=np.array([True, False, False, False, False, False]),
        below_K=np.array([1, 1, 3, 3, 4, 5]),
        above_K=np.array([2, 1, 4, 3, 4, 5]),
        value_K=np.array([0.0, 1.0, 0.0, 10.0, 100.0, 1000.0]),
        baseline=np.array([0.25]),
    )


X_RF = np.array([[7.0, 0.5], [7.0, np.nan], [7.0, 0.6], [np.nan, 0.6], [np.inf, 0.6]], dtype=np.float32)


def test_a_slice_adds_up_the_leaves_in_which_it_ends() -> None:
    expected = 1000.25 + np.array([1.0, 1.0, 10.0, 100.0, 10.0])
    np.testing.assert_array_equal(two_trees().log_odds(X_RF), expected)
    np.testing.assert_array_equal(two_trees().log_odds(np.asfortranarray(X_RF)), expected)
    assert len(two_trees().log_odds(X_RF[:0])) == 0


def test_thresholds_are_compared_in_full_precision() -> None:
    trees = replace(two_trees(), threshold_K=np.array([np.float64(np.float32(0.6)) - 1e-12, 0, np.inf, 0, 0, 0]))
    assert trees.log_odds(X_RF[2:3]) == [1010.25]


def test_blocks_change_no_bit(monkeypatch) -> None:
    rng = np.random.default_rng(0)
    x_RF, trees = rng.random((50, 2)), replace(two_trees(), value_K=rng.standard_normal(6))
    whole = trees.log_odds(x_RF)
    monkeypatch.setattr(tree_arrays, "WALKS", 6)
    np.testing.assert_array_equal(trees.log_odds(x_RF), whole)


def test_no_trees_are_one_rate() -> None:
    trees = constant_trees(0.3)
    np.testing.assert_allclose(from_logits(trees.log_odds(X_RF)), np.full(5, 0.3))
    kept = trees_from_arrays(trees.arrays(), 2)
    np.testing.assert_array_equal(kept.log_odds(X_RF), trees.log_odds(X_RF))


def test_kept_trees_are_the_same_trees() -> None:
    kept = trees_from_arrays(two_trees().arrays(), 2)
    np.testing.assert_array_equal(kept.log_odds(X_RF), two_trees().log_odds(X_RF))


@pytest.mark.parametrize(
    "spoilt",
    [
        {"root_T": np.array([0, 6])},
        {"root_T": np.array([-1])},
        {"feature_K": np.array([2, 0, 0, 0, 0, 0])},
        {"below_K": np.array([0, 1, 3, 3, 4, 5])},
        {"above_K": np.array([2, 1, 1, 3, 4, 5])},
        {"above_K": np.array([9, 1, 4, 3, 4, 5])},
        {"value_K": np.full(6, np.nan)},
        {"value_K": np.zeros(5)},
        {"threshold_K": np.full(6, np.nan)},
        {"baseline": np.array([np.inf])},
        {"baseline": np.empty(0)},
    ],
)
def test_a_walk_that_leaves_the_trees_or_never_ends_is_refused(spoilt) -> None:
    with pytest.raises(DataError, match="these are no trees over 2 features"):
        trees_from_arrays({**two_trees().arrays(), **spoilt}, 2)


def test_other_arrays_are_refused() -> None:
    arrays = two_trees().arrays()
    for other in (
        {},
        {**arrays, "more": np.zeros(1)},
        {**arrays, "root_T": np.zeros((1, 1), dtype=np.int64)},
        {**arrays, "value_K": np.zeros(6, dtype=np.float32)},
    ):
        with pytest.raises(DataError, match="trees must be kept as root_T"):
            trees_from_arrays(other, 2)
