"""BoostedTrees: trees for each label over features of the series, whatever grows them.

Dimension key: M members, R slices, L labels, F features.
"""

from abc import abstractmethod
from typing import Any, Self

import numpy as np

from ichtune.ensemble.blenders.logits import from_logits
from ichtune.errors import DataError
from ichtune.labels import LABELS, N_LABELS
from ichtune.metrics import weighted_log_loss
from ichtune.second_level.base import State
from ichtune.second_level.features import FeatureTable, digest_of, features_of
from ichtune.second_level.one_epoch import OneEpoch
from ichtune.second_level.tree_arrays import TreeArrays, constant_trees, trees_from_arrays
from ichtune.second_level.views import SeriesView
from ichtune.second_level_recipe import SecondLevelRecipe

#: Share of what is learnt from that a leaf need not exceed, whatever the recipe asks for: where slices are few, trees
#: without a single split would predict rates.
LARGEST_LEAST_LEAF = 0.05


class BoostedTrees(OneEpoch):
    """Gradient boosting of the log loss, one model a label; each sees its own features and some of the others'.

    Whoever grew them, trees are kept and predicted from as ``TreeArrays``. A label that is the same on every slice is
    predicted by its rate, a half counted to each side.
    """

    def __init__(self, recipe: SecondLevelRecipe) -> None:
        super().__init__(recipe)
        self.trees_: list[TreeArrays] | None = None
        self.n_members_: int | None = None

    def least_leaf(self, n_slices: int) -> int:
        """Return how many slices a leaf holds at least, where so many are learnt from."""
        return max(1, min(self.recipe.min_slices, int(LARGEST_LEAST_LEAF * n_slices)))

    @abstractmethod
    def grow(self, x_RF: np.ndarray, y_R: np.ndarray) -> TreeArrays:
        """Fit one label, 0 or 1, both of which occur, on features float32 (R, F)."""

    def run_epoch(self) -> float:
        """Fit all labels; return the loss on what they were fitted on."""
        view, y_RL = self.seen()
        n_members, table = len(view.p_MRL), FeatureTable(view)
        p_RL, trees = np.empty(y_RL.shape), []
        for label in range(N_LABELS):
            x_RF = table.matrix(features_of(self.recipe, n_members, label))
            n_positive = int(y_RL[:, label].sum())
            if 0 < n_positive < len(y_RL):
                trees.append(self.grow(x_RF, y_RL[:, label]))
            else:
                trees.append(constant_trees((n_positive + 0.5) / (len(y_RL) + 1.0)))
            p_RL[:, label] = from_logits(trees[-1].log_odds(x_RF))
        self.trees_, self.n_members_ = trees, n_members
        return weighted_log_loss(y_RL, p_RL)

    def predict(self, view: SeriesView) -> np.ndarray:
        """See ``SeriesModel.predict``."""
        if self.trees_ is None:
            raise DataError(f"{self.recipe.model} has learnt nothing yet: call run_epoch or restore before predict")
        if len(view.p_MRL) != self.n_members_:
            raise DataError(f"{self.recipe.model} learnt from {self.n_members_} members, got {len(view.p_MRL)}")
        table, p_RL = FeatureTable(view), np.empty((len(view), N_LABELS))
        for label, trees in enumerate(self.trees_):
            x_RF = table.matrix(features_of(self.recipe, self.n_members_, label))
            p_RL[:, label] = from_logits(trees.log_odds(x_RF))
        return p_RL

    def state(self) -> State:
        """See ``SeriesModel.state``; before ``run_epoch`` there is nothing."""
        if self.trees_ is None or self.n_members_ is None:
            return {}, {}
        arrays = {
            f"{label}.{name}": array
            for label, trees in zip(LABELS, self.trees_, strict=True)
            for name, array in trees.arrays().items()
        }
        digests = [digest_of(features_of(self.recipe, self.n_members_, label)) for label in range(N_LABELS)]
        return arrays, {"n_members": self.n_members_, "features": digests}

    def restore(self, state: State) -> Self:
        """See ``SeriesModel.restore``."""
        arrays, told = state
        if not arrays and not told:
            self.trees_ = self.n_members_ = None
            return self
        n_members = _whole(told.get("n_members"))
        features = [features_of(self.recipe, n_members, label) for label in range(N_LABELS)]
        if told.get("features") != [digest_of(one) for one in features]:
            raise DataError("these trees were fitted on other features than this ichtune makes; fit the model again")
        by_label: dict[str, dict[str, np.ndarray]] = {label: {} for label in LABELS}
        for key, array in arrays.items():
            label, _, name = key.partition(".")
            if label not in by_label:
                raise DataError(f"trees must be kept by label, {', '.join(LABELS)}; got {key!r}")
            by_label[label][name] = array
        trees = [trees_from_arrays(by_label[label], len(one)) for label, one in zip(LABELS, features, strict=True)]
        self.trees_, self.n_members_ = trees, n_members
        return self


def _whole(value: Any) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or not 1 <= value <= 10_000:
        raise DataError(f"trees must be kept with n_members, a whole number from 1 to 10000, got {value!r}")
    return value
