"""The seam for blenders that predict a weighted mean of the members' probabilities or log odds.

Identical members are solved as one and share its weight, so that a duplicate changes nothing.

Dimension key: M members, G members without duplicates, N slices, L labels.
"""

from abc import abstractmethod
from dataclasses import dataclass
from typing import ClassVar, Self

import numpy as np

from ichtune.ensemble.blenders.base import Blender, check_fit, check_members
from ichtune.ensemble.blenders.blocks import sum_over_blocks
from ichtune.ensemble.blenders.logits import clip_probabilities, from_logits, to_logits
from ichtune.errors import ConfigError, DataError, nearest

SPACES = ("probability", "logit")
#: Slices by which members are told apart before they are compared in full.
N_COMPARED = 1000
#: Slices that are predicted at a time.
PREDICT_ROWS = 4_096


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
        weights_ML = self.weights_
        p_NL = np.empty(p_MNL.shape[1:])

        def block(rows: slice) -> tuple[()]:
            total_RL = np.zeros(p_NL[rows].shape)
            for p_RL, weight_L in zip(p_MNL[:, rows], weights_ML, strict=True):
                if weight_L.any():
                    total_RL += weight_L * self._inputs(p_RL)
            p_NL[rows] = np.clip(total_RL, 0.0, 1.0) if self.space == "probability" else from_logits(total_RL)
            return ()

        sum_over_blocks(block, len(p_NL), PREDICT_ROWS)
        return p_NL

    def live(self) -> np.ndarray | None:
        """See ``Blender.live``."""
        return None if self.weights_ is None else np.flatnonzero(self.weights_.any(axis=1))

    def _inputs(self, p: np.ndarray) -> np.ndarray:
        return clip_probabilities(p) if self.space == "probability" else to_logits(p)


def identical_members(p_MNL: np.ndarray) -> list[list[int]]:
    """Group the members whose predictions are equal everywhere, in order of first appearance."""
    groups: list[list[int]] = []
    seen_alike: dict[bytes, list[int]] = {}  # groups that agree on a few slices, which tells most members apart
    some_rows = slice(None, None, max(1, p_MNL.shape[1] // N_COMPARED))
    for m, p_NL in enumerate(p_MNL):
        candidates = seen_alike.setdefault(p_NL[some_rows].tobytes(), [])
        same = next((g for g in candidates if np.array_equal(p_MNL[groups[g][0]], p_NL)), None)
        if same is not None:
            groups[same].append(m)
            continue
        candidates.append(len(groups))
        groups.append([m])
    return groups
