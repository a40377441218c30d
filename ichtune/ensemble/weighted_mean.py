"""The seam for blenders that predict a weighted mean of the members' probabilities or log odds.

Identical members are solved as one and share its weight, so that a duplicate changes nothing.

Dimension key: M members, G members without duplicates, N slices, L labels.
"""

import hashlib
from abc import abstractmethod
from dataclasses import dataclass
from typing import ClassVar, Self

import numpy as np

from ichtune.ensemble.base import Blender, check_fit, check_members
from ichtune.ensemble.logits import clip_probabilities, from_logits, to_logits
from ichtune.errors import ConfigError, DataError, nearest

SPACES = ("probability", "logit")


@dataclass
class WeightedMean(Blender):
    """Weights of at least 0 that sum to one for each label.

    Attributes:
        space: ``probability`` averages probabilities, ``logit`` averages log odds.
    """

    #: What the table of blenders calls it.
    name: ClassVar[str]

    space: str = "logit"

    def __post_init__(self) -> None:
        if self.space not in SPACES:
            raise ConfigError(f"{self.name}: unknown space {self.space!r}. {nearest(str(self.space), SPACES)}")

    def fit(
        self,
        p_MNL: np.ndarray,
        y_NL: np.ndarray,
        weight_N: np.ndarray | None = None,
        group_N: np.ndarray | None = None,
    ) -> Self:
        """Solve for the weights; see ``Blender.fit``."""
        row_weight_N = check_fit(p_MNL, y_NL, weight_N)
        groups = identical_members(p_MNL)
        firsts = [group[0] for group in groups]
        p_GNL = p_MNL if len(firsts) == len(p_MNL) else p_MNL[firsts]
        solved_GL = self._solve(p_GNL, y_NL, row_weight_N)
        self.weights_ = np.zeros((p_MNL.shape[0], p_MNL.shape[2]))
        for group, weight_L in zip(groups, solved_GL, strict=True):
            self.weights_[group] = weight_L / len(group)
        return self

    @abstractmethod
    def _solve(self, p_GNL: np.ndarray, y_NL: np.ndarray, row_weight_N: np.ndarray) -> np.ndarray:
        """Return the weights (G, L) of distinct members; the row weights sum to one."""

    def predict(self, p_MNL: np.ndarray) -> np.ndarray:
        """See ``Blender.predict``."""
        if self.weights_ is None:
            raise DataError(f"{self.name} blender has no weights yet: call fit before predict")
        check_members(p_MNL, len(self.weights_))
        total = np.zeros(p_MNL.shape[1:], dtype=np.float64)
        for p_NL, weight_L in zip(p_MNL, self.weights_, strict=True):
            if weight_L.any():
                total += weight_L * self._inputs(p_NL)
        return np.clip(total, 0.0, 1.0) if self.space == "probability" else from_logits(total)

    def _inputs(self, p: np.ndarray) -> np.ndarray:
        return clip_probabilities(p) if self.space == "probability" else to_logits(p)


def identical_members(p_MNL: np.ndarray) -> list[list[int]]:
    """Group the members whose predictions are equal bit for bit, in order of first appearance."""
    groups: dict[bytes, list[int]] = {}
    for m, p_NL in enumerate(p_MNL):
        digest = hashlib.blake2b(np.ascontiguousarray(p_NL).data).digest()
        groups.setdefault(digest, []).append(m)
    return list(groups.values())
