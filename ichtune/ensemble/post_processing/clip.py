"""A bound on how sure a label may be.

Dimension key: N slices, L labels, K numbers a label.
"""

from typing import ClassVar

import numpy as np

from ichtune.ensemble.post_processing.per_label import PerLabel
from ichtune.metrics import CLIP

#: Tried from the narrowest on; of equal losses the first wins.
BOUNDS = (CLIP, 1e-5, 3e-5, 1e-4, 3e-4, 1e-3, 3e-3, 1e-2, 2e-2)


class Clip(PerLabel):
    """Keeps each label's probabilities between a bound and one minus it, the bound with the lowest loss of a few."""

    name: ClassVar[str] = "clip"
    learns: ClassVar[tuple[str, ...]] = ("bound",)

    def _fit_label(self, p_N: np.ndarray, y_N: np.ndarray, weight_N: np.ndarray) -> tuple[float, ...]:
        losses = [_loss(np.clip(p_N, bound, 1.0 - bound, dtype=np.float64), y_N, weight_N) for bound in BOUNDS]
        return (BOUNDS[int(np.argmin(losses))],)

    def _predict(self, p_NL: np.ndarray, numbers_KL: np.ndarray) -> np.ndarray:
        return np.clip(p_NL, numbers_KL[0], 1.0 - numbers_KL[0], dtype=np.float64)


def _loss(p_N: np.ndarray, y_N: np.ndarray, weight_N: np.ndarray) -> float:
    return -float(weight_N @ (y_N * np.log(p_N) + (1.0 - y_N) * np.log1p(-p_N)))
