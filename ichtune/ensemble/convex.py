"""Convex blending: weights on the simplex that minimise the weighted log loss, to the global optimum.

Both problems are convex: the log loss is convex in a mixture of probabilities and in a mixture of log odds.
"""

from dataclasses import dataclass, field
from typing import ClassVar

import numpy as np

from ichtune.ensemble.blend_losses import LabelLoss, LogitLoss, MixtureLoss, SharedLoss
from ichtune.ensemble.numbers import check_between
from ichtune.ensemble.simplex import minimise_on_simplex
from ichtune.ensemble.weighted_mean import WeightedMean
from ichtune.errors import ConfigError, nearest
from ichtune.labels import METRIC_WEIGHTS

SHARING = ("shared", "per_label")


@dataclass
class Convex(WeightedMean):
    """Weights of at least 0 that sum to one, learned from out-of-fold predictions.

    Attributes:
        space: ``probability`` mixes probabilities, ``logit`` mixes log odds.
        weights: ``shared`` learns one weight a member by the metric, ``per_label`` one for each member and
            label.
        shrinkage: share in [0, 1] of the way from the learned weights back to equal ones.
        towards_shared: share in [0, 1] of the way from weights per label to shared ones; acts before ``shrinkage``.
        gap_: after ``fit``, the largest duality gap: the fitted loss is this near to the global optimum.
    """

    name: ClassVar[str] = "convex"

    weights: str = "shared"
    shrinkage: float = 0.0
    towards_shared: float = 0.0
    gap_: float = field(default=float("nan"), init=False)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.weights not in SHARING:
            raise ConfigError(f"convex: unknown weights {self.weights!r}. {nearest(str(self.weights), SHARING)}")
        for key in ("shrinkage", "towards_shared"):
            check_between("convex", key, getattr(self, key), 0.0, 1.0)
        if self.towards_shared and self.weights == "shared":
            raise ConfigError("convex: towards_shared has no effect on shared weights; write weights: per_label")

    def _solve(self, p_GNL: np.ndarray, y_NL: np.ndarray, row_weight_N: np.ndarray) -> np.ndarray:
        kind = MixtureLoss if self.space == "probability" else LogitLoss
        y_LN = np.ascontiguousarray(y_NL.T, dtype=np.float64)
        losses: list[LabelLoss] = [
            kind(self._inputs(p_GNL[:, :, label]), y_N, row_weight_N) for label, y_N in enumerate(y_LN)
        ]
        n_groups = len(p_GNL)
        self.gap_ = 0.0
        solved_GL = np.zeros((n_groups, len(losses)))
        if self.weights == "per_label":
            solved_GL += (1.0 - self.towards_shared) * self._per_label(losses, n_groups)
        if self.weights == "shared" or self.towards_shared:
            share = self.towards_shared if self.weights == "per_label" else 1.0
            solved_GL += share * self._shared(losses, n_groups)
        return (1.0 - self.shrinkage) * solved_GL + self.shrinkage / n_groups

    def _shared(self, losses: list[LabelLoss], n_groups: int) -> np.ndarray:
        share_L = np.asarray(METRIC_WEIGHTS) / sum(METRIC_WEIGHTS)
        weight_G, gap = minimise_on_simplex(SharedLoss(losses, share_L), n_groups)
        self.gap_ = max(self.gap_, gap)
        return np.repeat(weight_G[:, None], len(losses), axis=1)

    def _per_label(self, losses: list[LabelLoss], n_groups: int) -> np.ndarray:
        solved = [minimise_on_simplex(loss, n_groups) for loss in losses]
        self.gap_ = max(self.gap_, *(gap for _, gap in solved))
        return np.stack([weight_G for weight_G, _ in solved], axis=1)
