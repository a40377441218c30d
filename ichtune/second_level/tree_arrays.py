"""Boosted trees as plain arrays: what is kept of a fitted model, and all that predicts from it.

Dimension key: R slices, F features, T trees, K nodes of all trees, B slices of a block,
W walks: a slice through a tree.
"""

from collections.abc import Mapping
from dataclasses import dataclass, fields

import numpy as np

from ichtune.ensemble.blenders.logits import to_logits
from ichtune.errors import DataError

#: Walks (slices times trees) of a block; its node numbers stay in the processor's cache.
WALKS = 2**16
_KINDS = {
    "root_T": np.int64,
    "feature_K": np.int64,
    "threshold_K": np.float64,
    "missing_below_K": np.bool_,
    "below_K": np.int64,
    "above_K": np.int64,
    "value_K": np.float64,
    "baseline": np.float64,
}


@dataclass(frozen=True)
class TreeArrays:
    """A sum of trees: from its root, a slice goes on to one of two nodes until it stays in a leaf.

    Attributes:
        root_T: the node at which each tree starts, int64.
        feature_K: column that a node looks at, int64.
        threshold_K: a slice whose value is at most this goes to ``below_K``, another to ``above_K``; float64.
        missing_below_K: whether a slice without a value goes to ``below_K``, bool.
        below_K: int64, a later node; a leaf names itself.
        above_K: int64, a later node; a leaf names itself.
        value_K: what a leaf adds to the log odds, float64; 0 elsewhere.
        baseline: log odds before the first tree, float64 (1,).
    """

    root_T: np.ndarray
    feature_K: np.ndarray
    threshold_K: np.ndarray
    missing_below_K: np.ndarray
    below_K: np.ndarray
    above_K: np.ndarray
    value_K: np.ndarray
    baseline: np.ndarray

    def log_odds(self, x_RF: np.ndarray) -> np.ndarray:
        """Return baseline plus the leaves' values, float64 (R,), of features (R, F) that may be NaN."""
        z_R = np.full(len(x_RF), self.baseline[0])
        n_block = max(1, WALKS // max(1, len(self.root_T)))
        for start in range(0, len(x_RF), n_block):
            block = slice(start, start + n_block)
            for leaf_B in self._leaves(np.ascontiguousarray(x_RF[block])):
                z_R[block] += self.value_K[leaf_B]  # tree after tree, so that the block's size changes no bit
        return z_R

    def _leaves(self, x_BF: np.ndarray) -> np.ndarray:
        """Return the leaf in which each slice ends in each tree, int64 (T, B)."""
        n_slices, n_features = x_BF.shape
        x, next_2K = x_BF.ravel(), np.stack([self.below_K, self.above_K], axis=1).ravel()
        goes_on_K = self.below_K != np.arange(len(self.below_K))
        node_W = np.repeat(self.root_T, n_slices)  # of each walk
        going = np.flatnonzero(goes_on_K[node_W])
        node, row = node_W[going], np.tile(np.arange(n_slices) * n_features, len(self.root_T))[going]
        while len(going):
            value = x.take(row + self.feature_K.take(node))
            is_below = value <= self.threshold_K.take(node)
            is_below |= np.isnan(value) & self.missing_below_K.take(node)
            node = next_2K.take(2 * node + ~is_below)
            node_W[going] = node
            goes_on = goes_on_K.take(node)
            going, node, row = going[goes_on], node[goes_on], row[goes_on]
        return node_W.reshape(len(self.root_T), n_slices)

    def arrays(self) -> dict[str, np.ndarray]:
        """Return the arrays by name."""
        return {one.name: getattr(self, one.name) for one in fields(self)}


def constant_trees(rate: float) -> TreeArrays:
    """Return no trees: every slice gets one probability, the log odds of which are the baseline."""
    arrays: dict[str, np.ndarray] = {name: np.empty(0, dtype=kind) for name, kind in _KINDS.items()}
    return TreeArrays(**{**arrays, "baseline": to_logits(np.array([rate]))})


def trees_from_arrays(arrays: Mapping[str, np.ndarray], n_features: int) -> TreeArrays:
    """Return trees from what ``TreeArrays.arrays`` returned; they may come from a file that others wrote.

    Args:
        arrays: by name.
        n_features: F of the matrix that they will read.

    Raises:
        DataError: not such arrays, or a walk that would leave them or never end.
    """
    found = {name: (array.dtype, array.ndim) for name, array in arrays.items()}
    if found != {name: (np.dtype(kind), 1) for name, kind in _KINDS.items()}:
        raise DataError(f"trees must be kept as {', '.join(_KINDS)}, one-dimensional; got {found}")
    trees = TreeArrays(**arrays)
    n_nodes = len(trees.value_K)
    one_length = {len(array) for name, array in trees.arrays().items() if name.endswith("_K")} == {n_nodes}
    if not (one_length and len(trees.baseline) == 1 and _ends(trees) and _in_range(trees, n_nodes, n_features)):
        raise DataError(
            f"these are no trees over {n_features} features: a node, a feature or a value is out of range; fit the "
            "model again"
        )
    return trees


def _ends(trees: TreeArrays) -> bool:
    """Whether every node is a leaf or goes on to later nodes only."""
    node_K = np.arange(len(trees.value_K))
    is_leaf = (trees.below_K == node_K) & (trees.above_K == node_K)
    return bool((is_leaf | ((trees.below_K > node_K) & (trees.above_K > node_K))).all())


def _in_range(trees: TreeArrays, n_nodes: int, n_features: int) -> bool:
    limits = (
        (trees.root_T, n_nodes),
        (trees.feature_K, n_features),
        (trees.below_K, n_nodes),
        (trees.above_K, n_nodes),
    )
    return (
        all(bool(((numbers >= 0) & (numbers < limit)).all()) for numbers, limit in limits)
        and not np.isnan(trees.threshold_K).any()
        and bool(np.isfinite(trees.value_K).all() and np.isfinite(trees.baseline).all())
    )
