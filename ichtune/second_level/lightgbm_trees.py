"""LightGbm: trees grown by LightGBM, faster on many slices. An extra: ``ichtune[trees]``.

What it grew is read through ``Booster.dump_model`` and kept as ``TreeArrays``: LightGBM never reads a file that others
wrote.

Dimension key: R slices, F features, K nodes of all trees.
"""

import importlib
from collections.abc import Mapping
from typing import Any

import numpy as np

from ichtune.errors import ConfigError
from ichtune.second_level.boosted_trees import BoostedTrees
from ichtune.second_level.tree_arrays import TreeArrays
from ichtune.second_level_recipe import SecondLevelRecipe


class LightGbm(BoostedTrees):
    """One LightGBM model a label, log loss, no early stopping, on one thread.

    Raises:
        ConfigError: LightGBM is not installed.

    Source: Ke et al., LightGBM: a highly efficient gradient boosting decision tree, NeurIPS 2017.
    """

    def __init__(self, recipe: SecondLevelRecipe) -> None:
        super().__init__(recipe)
        self._lightgbm = _lightgbm()

    def grow(self, x_RF: np.ndarray, y_R: np.ndarray) -> TreeArrays:
        """See ``BoostedTrees.grow``."""
        recipe = self.recipe
        settings = {
            "objective": "binary",
            "learning_rate": recipe.learning_rate,
            "num_leaves": recipe.leaves,
            "min_data_in_leaf": self.least_leaf(len(x_RF)),
            "lambda_l2": recipe.l2,
            "feature_fraction_bynode": recipe.feature_share,
            "seed": recipe.seed,
            "deterministic": True,
            "force_row_wise": True,
            "num_threads": 1,
            "verbosity": -1,
        }
        data = self._lightgbm.Dataset(x_RF, label=y_R, params=settings)
        booster = self._lightgbm.train(settings, data, num_boost_round=recipe.rounds)
        return trees_of(booster.dump_model())


def trees_of(dumped: Mapping[str, Any]) -> TreeArrays:
    """Return the arrays of what ``Booster.dump_model`` returned of a model of two classes.

    Raises:
        ConfigError: a split that such a model does not have; this LightGBM is not known here.
    """
    nodes = _Nodes()
    for tree in dumped["tree_info"]:
        nodes.add_tree(tree["tree_structure"])
    return nodes.arrays()


class _Nodes:
    """Node tables that grow; a node comes before those below and above it."""

    def __init__(self) -> None:
        self.roots: list[int] = []
        #: feature, threshold, missing goes below, below, above, value
        self.rows: list[list[Any]] = []

    def add_tree(self, structure: Mapping[str, Any]) -> None:
        self.roots.append(len(self.rows))
        waiting: list[tuple[Mapping[str, Any], int | None, int]] = [(structure, None, 0)]
        while waiting:
            told, parent, side = waiting.pop()
            number = len(self.rows)
            if parent is not None:
                self.rows[parent][side] = number
            if "leaf_value" in told:
                self.rows.append([0, 0.0, False, number, number, float(told["leaf_value"])])
                continue
            missing_below = _missing_below(told)
            self.rows.append([int(told["split_feature"]), float(told["threshold"]), missing_below, 0, 0, 0.0])
            waiting += [(told["left_child"], number, 3), (told["right_child"], number, 4)]

    def arrays(self) -> TreeArrays:
        feature, threshold, missing, below, above, value = zip(*self.rows, strict=True)
        return TreeArrays(
            root_T=np.array(self.roots, dtype=np.int64),
            feature_K=np.array(feature, dtype=np.int64),
            threshold_K=np.array(threshold, dtype=np.float64),
            missing_below_K=np.array(missing, dtype=np.bool_),
            below_K=np.array(below, dtype=np.int64),
            above_K=np.array(above, dtype=np.int64),
            value_K=np.array(value, dtype=np.float64),
            baseline=np.zeros(1),  # LightGBM adds it to the leaves of the first tree
        )


def _missing_below(told: Mapping[str, Any]) -> bool:
    """Where NaN goes: LightGBM takes it for 0 in a feature that had none while it learnt."""
    if told["decision_type"] != "<=" or told["missing_type"] not in ("None", "NaN"):
        raise ConfigError(
            f"a split of this LightGBM cannot be read: {told['decision_type']!r} with missing_type "
            f"{told['missing_type']!r}; install another version, or take `model: hist_gradient_boosting`"
        )
    return bool(told["default_left"]) if told["missing_type"] == "NaN" else float(told["threshold"]) >= 0.0


def _lightgbm() -> Any:
    try:
        return importlib.import_module("lightgbm")
    except ImportError as error:
        raise ConfigError(
            f"`model: lightgbm` needs LightGBM, which is not installed ({error}): pip install 'ichtune[trees]', or "
            "take `model: hist_gradient_boosting`, which needs nothing more"
        ) from error
