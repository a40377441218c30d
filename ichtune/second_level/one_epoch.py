"""OneEpoch: what models have in common that learn all they ever learn in one epoch, and the numbers they begin from.

Dimension key: M members, R slices, L labels.
"""

from typing import Self

import numpy as np

from ichtune.ensemble.blenders.logits import to_logits
from ichtune.errors import DataError
from ichtune.labels import N_LABELS
from ichtune.second_level.base import SeriesModel
from ichtune.second_level.views import SeriesView
from ichtune.second_level_recipe import SecondLevelRecipe


class OneEpoch(SeriesModel):
    """Keeps what it is to learn from until ``run_epoch``."""

    def __init__(self, recipe: SecondLevelRecipe) -> None:
        super().__init__(recipe)
        self._seen: tuple[SeriesView, np.ndarray] | None = None

    def begin(self, view: SeriesView, y_RL: np.ndarray) -> Self:
        """See ``SeriesModel.begin``; what was restored stays until ``run_epoch``.

        Raises:
            DataError: no slice, no member, or labels that are not 0 or 1 for each slice.
        """
        if y_RL.shape != (len(view), N_LABELS) or not len(view) or not np.isin(y_RL, (0, 1)).all():
            raise DataError(
                f"labels must be 0 or 1 for each of the view's {len(view)} slices and {N_LABELS} labels, at least one "
                f"slice, got shape {y_RL.shape}"
            )
        if not len(view.p_MRL):
            raise DataError(f"{self.recipe.model} needs the predictions of at least one member, got none")
        self._seen = view, y_RL
        return self

    def seen(self) -> tuple[SeriesView, np.ndarray]:
        """Return what ``begin`` took.

        Raises:
            DataError: ``begin`` was not called.
        """
        if self._seen is None:
            raise DataError(f"{self.recipe.model} has nothing to learn from: call begin before run_epoch")
        return self._seen


def mean_log_odds(p_MRL: np.ndarray, label: int) -> np.ndarray:
    """Return the mean of the members' log odds of one label, float64 (R,).

    Members are added one after the other, so that no slice's last bit depends on how many slices there are.
    """
    return np.asarray(sum(to_logits(p_RL[:, label]) for p_RL in p_MRL) / len(p_MRL))


def spread_of_log_odds(p_MRL: np.ndarray, label: int) -> np.ndarray:
    """Return the standard deviation of the members' log odds of one label, of the population, float64 (R,)."""
    mean_R = mean_log_odds(p_MRL, label)
    return np.asarray(np.sqrt(sum((to_logits(p_RL[:, label]) - mean_R) ** 2 for p_RL in p_MRL) / len(p_MRL)))
