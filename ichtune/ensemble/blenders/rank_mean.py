"""Rank mean: members are averaged by how high they rank a slice, and the mean rank is turned into a probability.

Dimension key: M members, N slices, L labels, K knots.
"""

from dataclasses import dataclass, field
from typing import ClassVar, Self

import numpy as np

from ichtune.ensemble.blenders.base import Blender, check_fit, check_members
from ichtune.ensemble.blenders.logistic import scale_and_offset
from ichtune.ensemble.blenders.logits import from_logits, to_logits
from ichtune.ensemble.blenders.numbers import Shapes
from ichtune.errors import DataError
from ichtune.labels import N_LABELS

#: Points at which each member's distribution is kept.
N_KNOTS = 513
#: Penalty, nats, on slopes other than 1.
L2 = 1e-3


@dataclass
class RankMean(Blender):
    """Equal mean of ranks, mapped to a probability by a slope and an offset for each label.

    A mean of ranks alone is no probability and scores far worse than the label rates. Ranks forget what a member says
    of its own certainty: useful only where members disagree wildly about that.

    Attributes:
        knots_: after ``fit``, probabilities (M, L, K) at evenly spaced ranks of the fitted slices.
        slope_: after ``fit``, (L,).
        offset_: after ``fit``, (L,), log odds.
    """

    is_mean: ClassVar[bool] = False
    arrays: ClassVar[Shapes] = {"knots_": (None, N_LABELS, N_KNOTS), "slope_": (N_LABELS,), "offset_": (N_LABELS,)}

    knots_: np.ndarray | None = field(default=None, init=False)
    slope_: np.ndarray | None = field(default=None, init=False)
    offset_: np.ndarray | None = field(default=None, init=False)

    def fit(
        self,
        p_MNL: np.ndarray,
        y_NL: np.ndarray,
        weight_N: np.ndarray | None = None,
        group_N: np.ndarray | None = None,
    ) -> Self:
        """Keep each member's distribution and fit the map; see ``Blender.fit``."""
        row_weight_N = check_fit(p_MNL, y_NL, weight_N)
        n_members, _, n_labels = p_MNL.shape
        self.weights_ = np.full((n_members, n_labels), 1.0 / n_members)
        self.knots_ = np.stack([[_knots(p_N, row_weight_N) for p_N in p_NL.T] for p_NL in p_MNL])
        z_NL = to_logits(self._ranks(p_MNL))
        self.slope_, self.offset_ = scale_and_offset(z_NL, y_NL, row_weight_N, L2)
        return self

    def predict(self, p_MNL: np.ndarray) -> np.ndarray:
        """See ``Blender.predict``."""
        if self.knots_ is None or self.slope_ is None or self.offset_ is None:
            raise DataError("rank_mean blender knows no ranks yet: call fit before predict")
        check_members(p_MNL, len(self.knots_))
        return from_logits(self.slope_ * to_logits(self._ranks(p_MNL)) + self.offset_)

    def _ranks(self, p_MNL: np.ndarray) -> np.ndarray:
        """Mean rank (N, L) in [0, 1] among the fitted slices; ties take the middle of their ranks."""
        assert self.knots_ is not None
        total_NL = np.zeros(p_MNL.shape[1:])
        for p_NL, knots_LK in zip(p_MNL, self.knots_, strict=True):
            for label, knots_K in enumerate(knots_LK):
                total_NL[:, label] += _rank(p_NL[:, label].astype(np.float64), knots_K)
        return total_NL / len(p_MNL)


def _knots(p_N: np.ndarray, weight_N: np.ndarray) -> np.ndarray:
    """Return the weighted quantiles of a member's probabilities at evenly spaced ranks."""
    rows = np.flatnonzero(weight_N > 0)
    order = rows[np.argsort(p_N[rows], kind="stable")]
    middle_N = np.cumsum(weight_N[order]) - 0.5 * weight_N[order]
    return np.interp(np.linspace(0.0, 1.0, N_KNOTS), middle_N, p_N[order].astype(np.float64))


def _rank(p_N: np.ndarray, knots_K: np.ndarray) -> np.ndarray:
    """Return the ranks of probabilities among the knots, linear between them; equal knots give their middle."""
    distinct, first, count = np.unique(knots_K, return_index=True, return_counts=True)
    middle = (first + 0.5 * (count - 1)) / (N_KNOTS - 1)
    return np.interp(p_N, distinct, middle)
