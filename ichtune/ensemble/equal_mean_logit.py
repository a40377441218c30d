"""Equal mean of log odds: nothing to learn either, but confident members count for more."""

from dataclasses import dataclass
from typing import Self

import numpy as np

from ichtune.ensemble.base import Blender, check_fit, check_members
from ichtune.ensemble.logits import from_logits, to_logits


@dataclass
class EqualMeanLogit(Blender):
    """Mean of the members' log odds, turned back into a probability."""

    def fit(
        self,
        p_MNL: np.ndarray,
        y_NL: np.ndarray,
        weight_N: np.ndarray | None = None,
        group_N: np.ndarray | None = None,
    ) -> Self:
        """Note the number of members; see ``Blender.fit``."""
        check_fit(p_MNL, y_NL, weight_N)
        self.weights_ = np.full((p_MNL.shape[0], p_MNL.shape[2]), 1.0 / p_MNL.shape[0])
        return self

    def predict(self, p_MNL: np.ndarray) -> np.ndarray:
        """See ``Blender.predict``."""
        check_members(p_MNL, None if self.weights_ is None else len(self.weights_))
        return mean_of_logits(p_MNL)


def mean_of_logits(p_MNL: np.ndarray) -> np.ndarray:
    """Mean over the first axis in log odds, float64 (N, L); one member at a time, to spare memory."""
    total = np.zeros(p_MNL.shape[1:], dtype=np.float64)
    for p_NL in p_MNL:
        total += to_logits(p_NL)
    return from_logits(total / len(p_MNL))
