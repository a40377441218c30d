"""The best member alone: a choice, which is learned like any weight.

Dimension key: G members without duplicates, N slices, L labels.
"""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from ichtune.ensemble.blenders.weighted_mean import WeightedMean
from ichtune.metrics import slice_losses


@dataclass
class BestMember(WeightedMean):
    """All weight on the member with the lowest loss; of equals, the first."""

    name: ClassVar[str] = "best_member"

    space: str = "probability"

    def _solve(self, p_GNL: np.ndarray, y_NL: np.ndarray, row_weight_N: np.ndarray) -> np.ndarray:
        losses = [float(row_weight_N @ slice_losses(y_NL, p_NL)) for p_NL in p_GNL]
        weight_GL = np.zeros((len(p_GNL), y_NL.shape[1]))
        weight_GL[int(np.argmin(losses))] = 1.0
        return weight_GL
