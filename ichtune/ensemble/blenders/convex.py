"""Convex blending: weights on the simplex that minimise the weighted log loss, to the global optimum.

Both problems are convex: the log loss is convex in a mixture of probabilities and in a mixture of log odds.
"""

from dataclasses import dataclass, field
from typing import ClassVar

import numpy as np

from ichtune.ensemble.blenders.blend_losses import LabelLoss, LogitLoss, MixtureLoss, SharedLoss
from ichtune.ensemble.blenders.many_rows import ManyRows
from ichtune.ensemble.blenders.numbers import check_between
from ichtune.ensemble.blenders.simplex import minimise_on_simplex
from ichtune.ensemble.blenders.weighted_mean import WeightedMean
from ichtune.errors import ConfigError, nearest
from ichtune.labels import METRIC_WEIGHTS

SHARING = ("shared", "per_label")
#: Slices times labels up to which the optimum is found directly.
FEW_ENTRIES = 100_000


@dataclass
class Convex(WeightedMean):
    """Weights of at least 0 that sum to one, learned from out-of-fold predictions.

    Attributes:
        space: ``probability`` mixes probabilities, ``logit`` mixes log odds.
        weights: ``shared`` learns one weight a member by the metric, ``per_label`` one for each member and
            label.
        shrinkage: share in [0, 1] of the way from the learned weights back to equal ones.
        towards_shared: share in [0, 1] of the way from weights per label to shared ones; acts before ``shrinkage``.
        gap_: after ``fit`` and before shrinkage, the fitted loss exceeds its global minimum over all slices by no more
            than this, in nats; the largest over the labels where each has weights of its own. Computed in double
            precision from every slice. Up to ``FEW_ENTRIES`` it is the Frank-Wolfe gap, at rounding level; beyond, the
            weights come from a sample, and it is at most ``many_rows.ENOUGH``, 1e-6 (see there how it is bounded).
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
        n_groups, n_labels = len(p_GNL), y_NL.shape[1]
        find = self._by_sample if y_NL.size > FEW_ENTRIES and n_groups > 1 else self._exactly
        self.gap_ = 0.0
        solved_GL = np.zeros((n_groups, n_labels))
        if self.weights == "per_label":
            solved_GL += (1.0 - self.towards_shared) * find(p_GNL, y_NL, row_weight_N, np.eye(n_labels))
        if self.weights == "shared" or self.towards_shared:
            share = self.towards_shared if self.weights == "per_label" else 1.0
            share_L = np.asarray(METRIC_WEIGHTS) / sum(METRIC_WEIGHTS)
            solved_GL += share * find(p_GNL, y_NL, row_weight_N, share_L[None])
        return (1.0 - self.shrinkage) * solved_GL + self.shrinkage / n_groups

    @property
    def _kind(self) -> type[LabelLoss]:
        return MixtureLoss if self.space == "probability" else LogitLoss

    def _by_sample(
        self, p_GNL: np.ndarray, y_NL: np.ndarray, row_weight_N: np.ndarray, share_KL: np.ndarray
    ) -> np.ndarray:
        w_KG, gap = ManyRows(p_GNL, y_NL, row_weight_N, self._kind, share_KL).solve()
        self.gap_ = max(self.gap_, gap)
        return w_KG[share_KL.argmax(axis=0)].T

    def _exactly(
        self, p_GNL: np.ndarray, y_NL: np.ndarray, row_weight_N: np.ndarray, share_KL: np.ndarray
    ) -> np.ndarray:
        losses: list[LabelLoss] = [
            self._kind(self._inputs(p_GN), y_N.astype(np.float64), row_weight_N)
            for p_GN, y_N in zip(p_GNL.transpose(2, 0, 1), y_NL.T, strict=True)
        ]
        objectives = losses if len(share_KL) > 1 else [SharedLoss(losses, share_KL[0])]
        solved = [minimise_on_simplex(objective, len(p_GNL)) for objective in objectives]
        self.gap_ = max(self.gap_, *(gap for _, gap in solved))
        return np.stack([weight_G for weight_G, _ in solved])[share_KL.argmax(axis=0)].T
