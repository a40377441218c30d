"""Convex blending: weights on the simplex that minimise the weighted log loss, to the global optimum.

Both problems are convex: the log loss is convex in a mixture of probabilities and in a mixture of log odds.
Identical members are solved as one and share its weight, so that a duplicate changes nothing.
"""

import hashlib
from dataclasses import dataclass, field
from typing import Self

import numpy as np

from ichtune.ensemble.base import Blender, check_fit, check_members
from ichtune.ensemble.blend_losses import LabelLoss, LogitLoss, MixtureLoss, SharedLoss
from ichtune.ensemble.logits import clip_probabilities, from_logits, to_logits
from ichtune.ensemble.simplex import minimise_on_simplex
from ichtune.errors import ConfigError, DataError, nearest
from ichtune.labels import METRIC_WEIGHTS

SPACES = ("probability", "logit")
SHARING = ("shared", "per_label")


@dataclass
class Convex(Blender):
    """Weights of at least 0 that sum to one, learned from out-of-fold predictions.

    Attributes:
        space: ``probability`` mixes probabilities, ``logit`` mixes log odds.
        weights: ``shared`` learns one weight a member by the metric, ``per_label`` one for each member and
            label.
        shrinkage: share in [0, 1] of the way from the learned weights back to equal ones.
        gap_: after ``fit``, the largest duality gap: the fitted loss is this near to the global optimum.
    """

    space: str = "logit"
    weights: str = "shared"
    shrinkage: float = 0.0
    gap_: float = field(default=float("nan"), init=False)

    def __post_init__(self) -> None:
        for key, known in (("space", SPACES), ("weights", SHARING)):
            if getattr(self, key) not in known:
                raise ConfigError(f"convex: unknown {key} {getattr(self, key)!r}. {nearest(getattr(self, key), known)}")
        real = isinstance(self.shrinkage, int | float) and not isinstance(self.shrinkage, bool)
        if not (real and 0.0 <= self.shrinkage <= 1.0):
            raise ConfigError(f"convex: shrinkage must be a number between 0 and 1, got {self.shrinkage!r}")

    def fit(self, p_MNL: np.ndarray, y_NL: np.ndarray, weight_N: np.ndarray | None = None) -> Self:
        """Solve for the weights; see ``Blender.fit``."""
        row_weight_N = check_fit(p_MNL, y_NL, weight_N)
        groups = identical_members(p_MNL)
        members = [group[0] for group in groups]
        label_loss = MixtureLoss if self.space == "probability" else LogitLoss
        y_LN = np.ascontiguousarray(y_NL.T, dtype=np.float64)
        losses: list[LabelLoss] = [
            label_loss(self._inputs(p_MNL[members, :, label]), y_N, row_weight_N) for label, y_N in enumerate(y_LN)
        ]
        solved_GL, self.gap_ = self._solve(losses, len(groups))
        solved_GL = (1.0 - self.shrinkage) * solved_GL + self.shrinkage / len(groups)
        self.weights_ = np.zeros((p_MNL.shape[0], p_MNL.shape[2]))
        for group, weight_L in zip(groups, solved_GL, strict=True):
            self.weights_[group] = weight_L / len(group)
        return self

    def predict(self, p_MNL: np.ndarray) -> np.ndarray:
        """See ``Blender.predict``."""
        if self.weights_ is None:
            raise DataError("convex blender has no weights yet: call fit before predict")
        check_members(p_MNL, len(self.weights_))
        total = np.zeros(p_MNL.shape[1:], dtype=np.float64)
        for p_NL, weight_L in zip(p_MNL, self.weights_, strict=True):
            if weight_L.any():
                total += weight_L * self._inputs(p_NL)
        return np.clip(total, 0.0, 1.0) if self.space == "probability" else from_logits(total)

    def _inputs(self, p: np.ndarray) -> np.ndarray:
        return clip_probabilities(p) if self.space == "probability" else to_logits(p)

    def _solve(self, losses: list[LabelLoss], n_groups: int) -> tuple[np.ndarray, float]:
        if self.weights == "shared":
            share_L = np.asarray(METRIC_WEIGHTS) / sum(METRIC_WEIGHTS)
            weight_G, gap = minimise_on_simplex(SharedLoss(losses, share_L), n_groups)
            return np.repeat(weight_G[:, None], len(losses), axis=1), gap
        solved = [minimise_on_simplex(loss, n_groups) for loss in losses]
        return np.stack([weight_G for weight_G, _ in solved], axis=1), max(gap for _, gap in solved)


def identical_members(p_MNL: np.ndarray) -> list[list[int]]:
    """Group the members whose predictions are equal bit for bit, in order of first appearance."""
    groups: dict[bytes, list[int]] = {}
    for m, p_NL in enumerate(p_MNL):
        digest = hashlib.blake2b(np.ascontiguousarray(p_NL).data).digest()
        groups.setdefault(digest, []).append(m)
    return list(groups.values())
