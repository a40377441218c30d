"""The seam for models of the second level: what every one must offer.

Dimension key: R slices, L labels.
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any, ClassVar, Self

import numpy as np

from ichtune.second_level.views import SeriesView
from ichtune.second_level_recipe import SecondLevelRecipe

#: Arrays by name, and plain values: what a fitted model is, without pickle.
State = tuple[dict[str, np.ndarray], dict[str, Any]]


class SeriesModel(ABC):
    """Learns labels from members' predictions along the series.

    What every implementation keeps: it reads nothing but its arguments; predictions are probabilities in [0, 1], finite
    for hard 0 and 1; a slice is predicted from its own series alone, whatever other series are in the view; the same
    recipe and view give the same model; what ``state`` returns makes a model that predicts the same bits, and, between
    two epochs, one that goes on to the same bits; what ``weights`` returns makes one that predicts the same bits.
    """

    #: Whether it needs torch.
    needs_torch: ClassVar[bool] = False

    def __init__(self, recipe: SecondLevelRecipe) -> None:
        self.recipe = recipe

    @property
    def n_epochs(self) -> int:
        """How often ``run_epoch`` is called."""
        return self.recipe.n_epochs

    @abstractmethod
    def begin(self, view: SeriesView, y_RL: np.ndarray) -> Self:
        """Take what is learnt from: a view of out-of-fold predictions and labels (R, L), 0 or 1."""

    @abstractmethod
    def run_epoch(self) -> float:
        """Learn one epoch further, after ``begin``; return the training loss in nats, NaN where there is none."""

    @abstractmethod
    def predict(self, view: SeriesView) -> np.ndarray:
        """Return probabilities float64 (R, L) in the order of the view's rows."""

    @abstractmethod
    def state(self) -> State:
        """Return what was learnt so far, and what it needs to go on."""

    def weights(self) -> State:
        """Return what predicts: ``state`` without what only going on needs."""
        return self.state()

    @abstractmethod
    def restore(self, state: State) -> Self:
        """Take what ``state`` or ``weights`` returned of a model with the same recipe.

        To go on, ``begin`` must be called again; from ``weights``, some models cannot.

        Raises:
            DataError: not what such a model learns.
        """


def fit(model: SeriesModel, view: SeriesView, y_RL: np.ndarray) -> SeriesModel:
    """Begin a model and run all its epochs."""
    model.begin(view, y_RL)
    for _ in range(model.n_epochs):
        model.run_epoch()
    return model


def plain(values: Mapping[str, Any]) -> dict[str, Any]:
    """Return a copy of plain values, numpy numbers as Python's, for JSON."""
    return {key: value.item() if isinstance(value, np.generic) else value for key, value in values.items()}
