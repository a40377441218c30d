"""HistGradientBoosting: scikit-learn's histogram gradient boosting, the trees that need no extra.

Dimension key: R slices, F features, T trees, K nodes of all trees.
"""

from typing import Any

import numpy as np
from sklearn.ensemble import HistGradientBoostingClassifier
from threadpoolctl import threadpool_limits

from ichtune.ensemble.blenders.logits import from_logits
from ichtune.errors import ConfigError
from ichtune.second_level.boosted_trees import BoostedTrees
from ichtune.second_level.tree_arrays import TreeArrays

#: Slices on which trees as they were read must predict what scikit-learn says.
_N_COMPARED = 200


class HistGradientBoosting(BoostedTrees):
    """One ``HistGradientBoostingClassifier`` a label, log loss, no early stopping, on one thread.

    Source: Ke et al., LightGBM: a highly efficient gradient boosting decision tree, NeurIPS 2017, as scikit-learn
        implements it.
    """

    def grow(self, x_RF: np.ndarray, y_R: np.ndarray) -> TreeArrays:
        """See ``BoostedTrees.grow``."""
        recipe = self.recipe
        classifier = HistGradientBoostingClassifier(
            learning_rate=recipe.learning_rate,
            max_iter=recipe.rounds,
            max_leaf_nodes=recipe.leaves,
            min_samples_leaf=self.least_leaf(len(x_RF)),
            l2_regularization=recipe.l2,
            max_features=recipe.feature_share,
            early_stopping=False,
            random_state=recipe.seed,
        )
        known_RF = x_RF
        is_empty_F = np.isnan(x_RF).all(axis=0)
        if is_empty_F.any():  # a column without a value is never split, but scikit-learn 1.9 cannot sort it into bins
            known_RF = np.where(is_empty_F, np.float32(0), x_RF)
        # threads that wait for each other thousands of times a second: on a busy machine ten times slower than one
        with threadpool_limits(1, user_api="openmp"):
            return trees_of(classifier.fit(known_RF, y_R.astype(np.int64)), known_RF)


def trees_of(fitted: HistGradientBoostingClassifier, x_RF: np.ndarray) -> TreeArrays:
    """Read a fitted classifier of two classes as arrays.

    scikit-learn keeps its trees in private attributes, and offers nothing else but a pickle; so what was read is held
    against ``predict_proba`` on some slices.

    Args:
        fitted: a classifier of 0 and 1.
        x_RF: features of slices to compare on.

    Raises:
        ConfigError: this version of scikit-learn keeps them in another way.
    """
    try:
        trees = _joined([iteration[0].nodes for iteration in fitted._predictors], fitted._baseline_prediction)
        some_RF = x_RF[:_N_COMPARED]
        difference_R = np.abs(from_logits(trees.log_odds(some_RF)) - fitted.predict_proba(some_RF)[:, 1])
        if not (difference_R < 1e-9).all():
            raise ValueError(f"probabilities that differ by up to {difference_R.max():.1g}")
    except (AttributeError, IndexError, KeyError, TypeError, ValueError) as error:
        raise ConfigError(
            f"the trees of this scikit-learn cannot be read ({error!r}): install another version (1.6 to 1.9 are known "
            "to do), or take `model: lightgbm`"
        ) from error
    return trees


def _joined(nodes_T: list[np.ndarray], baseline: Any) -> TreeArrays:
    """Join the node tables of all trees; a node that has no children becomes its own child."""
    if any(nodes["is_categorical"].any() for nodes in nodes_T):
        raise ValueError("a split by category")
    nodes_K = np.concatenate(nodes_T)
    size_T = np.array([len(nodes) for nodes in nodes_T], dtype=np.int64)
    root_T = np.cumsum(size_T) - size_T
    start_K, node_K = np.repeat(root_T, size_T), np.arange(len(nodes_K))
    is_leaf_K = nodes_K["is_leaf"].astype(np.bool_)
    return TreeArrays(
        root_T=root_T,
        feature_K=np.where(is_leaf_K, 0, nodes_K["feature_idx"]).astype(np.int64),
        threshold_K=np.where(is_leaf_K, 0.0, nodes_K["num_threshold"]).astype(np.float64),
        missing_below_K=nodes_K["missing_go_to_left"].astype(np.bool_),
        below_K=np.where(is_leaf_K, node_K, start_K + nodes_K["left"]).astype(np.int64),
        above_K=np.where(is_leaf_K, node_K, start_K + nodes_K["right"]).astype(np.int64),
        value_K=np.where(is_leaf_K, nodes_K["value"], 0.0).astype(np.float64),
        baseline=np.asarray(baseline, dtype=np.float64).reshape(1),
    )
