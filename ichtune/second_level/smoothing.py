"""Smoothing along the series: fixed weights of the competition's teams, and Gaussian widths that are learnt.

Dimension key: M members, R slices, L labels.
"""

import math
from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Self

import numpy as np
from scipy.optimize import minimize_scalar

from ichtune.ensemble.blenders.logits import from_logits
from ichtune.errors import DataError
from ichtune.labels import LABELS, N_LABELS
from ichtune.metrics import weighted_log_loss
from ichtune.second_level.along_series import AlongSeries
from ichtune.second_level.base import State
from ichtune.second_level.one_epoch import OneEpoch, mean_log_odds
from ichtune.second_level.views import SeriesView
from ichtune.second_level_recipe import KERNELS, SecondLevelRecipe

MAX_SIGMA = 6.0
#: Between two neighbours lies one start of the search for a width; the loss may have several minima.
_BETWEEN = (0.0, 0.5, 1.0, 2.0, 3.5, MAX_SIGMA)
#: Weights beyond so many widths are left out; they would be below 0.0004 of the middle one.
_REACH = 4.0


def smoothed(x_R: np.ndarray, weights: np.ndarray, along: AlongSeries) -> np.ndarray:
    """Return the weighted mean of each slice and its neighbours; at an edge, of those that exist.

    Args:
        x_R: values.
        weights: of the slice itself, of one place away, two places, ... on either side; at least 0, the first above.
        along: where the slices lie.
    """
    total_R, weight_R = weights[0] * x_R, np.full(len(x_R), float(weights[0]))
    for offset, weight in enumerate(weights[1:], start=1):
        total_R += weight * (along.shifted(x_R, -offset, 0.0) + along.shifted(x_R, offset, 0.0))
        weight_R += weight * ((along.below_R >= offset).astype(np.int64) + (along.above_R >= offset))
    return total_R / weight_R


class KernelSmoothing(OneEpoch):
    """A slice and its two neighbours, weighed by ``recipe.kernel``; nothing is learnt.

    It weighs log odds, as everything here does. The teams weighed probabilities, which can only make predictions less
    sure: on generated series of independent errors that lost to log odds at every level of noise.

    Source: weights of the 2nd (0.6, 1.8, 0.6) and the 5th place (1, 3, 1) of the 2019 competition, which are the same.
    """

    def run_epoch(self) -> float:
        """Learn nothing; return the loss on what was given."""
        view, y_RL = self.seen()
        return weighted_log_loss(y_RL, self.predict(view))

    def predict(self, view: SeriesView) -> np.ndarray:
        """See ``SeriesModel.predict``."""
        weights = np.array(KERNELS[self.recipe.kernel][1:])
        return _smoothed_members(view, [weights] * N_LABELS)

    def state(self) -> State:
        """Return nothing: the recipe says all."""
        return {}, {}

    def restore(self, state: State) -> Self:
        """See ``SeriesModel.restore``."""
        if state[0] or state[1]:
            raise DataError(f"kernel smoothing learns nothing, got {sorted([*state[0], *state[1]])}")
        return self


class GaussianSmoothing(OneEpoch):
    """Mean log odds, smoothed by a Gaussian of each label's own width, in slices; 0 leaves them as they are.

    Attributes:
        sigma_L_: after ``run_epoch``, the standard deviation of each label's Gaussian, slices, 0 to ``MAX_SIGMA``.
    """

    def __init__(self, recipe: SecondLevelRecipe) -> None:
        super().__init__(recipe)
        self.sigma_L_: np.ndarray | None = None

    def run_epoch(self) -> float:
        """Find the width of each label with the least log loss; return the loss with all of them."""
        view, y_RL = self.seen()
        along = AlongSeries(view.series_R)
        self.sigma_L_ = np.array(
            [
                _least(_loss_of_width(mean_log_odds(view.p_MRL, label), y_RL[:, label].astype(np.float64), along))
                for label in range(N_LABELS)
            ]
        )
        return weighted_log_loss(y_RL, self.predict(view))

    def predict(self, view: SeriesView) -> np.ndarray:
        """See ``SeriesModel.predict``."""
        if self.sigma_L_ is None:
            raise DataError("gaussian smoothing has no widths yet: call run_epoch or restore before predict")
        return _smoothed_members(view, [gaussian_weights(sigma) for sigma in self.sigma_L_])

    def state(self) -> State:
        """See ``SeriesModel.state``; before ``run_epoch`` there is nothing."""
        return ({} if self.sigma_L_ is None else {"sigma_L": self.sigma_L_}), {}

    def restore(self, state: State) -> Self:
        """See ``SeriesModel.restore``."""
        arrays, told = state
        if not arrays and not told:
            self.sigma_L_ = None
            return self
        sigma_L = arrays.get("sigma_L")
        is_widths = sigma_L is not None and sigma_L.shape == (N_LABELS,) and sigma_L.dtype == np.float64
        if sigma_L is None or set(arrays) != {"sigma_L"} or told or not is_widths or not _in_range(sigma_L):
            raise DataError(
                f"gaussian smoothing must be kept as sigma_L alone, {len(LABELS)} widths from 0 to {MAX_SIGMA} slices, "
                f"got {arrays} and {told}"
            )
        self.sigma_L_ = sigma_L
        return self


def gaussian_weights(sigma: float) -> np.ndarray:
    """Return weights of a slice, of one place away, two places, ..., for a width in slices; 0 keeps the slice alone."""
    if sigma <= 0:
        return np.ones(1)
    return np.asarray(np.exp(-0.5 * (np.arange(math.ceil(_REACH * sigma) + 1) / sigma) ** 2))


def _smoothed_members(view: SeriesView, weights_of_labels: Sequence[np.ndarray]) -> np.ndarray:
    along, p_RL = AlongSeries(view.series_R), np.empty((len(view), N_LABELS))
    for label, weights in enumerate(weights_of_labels):
        p_RL[:, label] = from_logits(smoothed(mean_log_odds(view.p_MRL, label), weights, along))
    return p_RL


def _loss_of_width(z_R: np.ndarray, y_R: np.ndarray, along: AlongSeries) -> Callable[[float], float]:
    def loss(sigma: float) -> float:
        smooth_R = smoothed(z_R, gaussian_weights(sigma), along)
        return float(np.mean(np.logaddexp(0.0, smooth_R) - y_R * smooth_R))

    return loss


def _least(loss: Callable[[float], float]) -> float:
    """Return the width of the least loss; of equal ones the smallest."""
    found = {0.0: loss(0.0)}
    for low, high in pairwise(_BETWEEN):
        best = minimize_scalar(loss, bounds=(low, high), method="bounded", options={"xatol": 0.01})
        found[float(best.x)] = float(best.fun)
    return min(found, key=lambda sigma: (found[sigma], sigma))


def _in_range(sigma_L: np.ndarray) -> bool:
    return bool(((sigma_L >= 0) & (sigma_L <= MAX_SIGMA)).all())
