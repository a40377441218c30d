"""Equal mean of probabilities: nothing to learn, and the bar that any learned blend has to clear."""

from dataclasses import dataclass
from typing import Self

import numpy as np

from ichtune.ensemble.blenders.base import Blender, check_fit, check_members


@dataclass
class EqualMean(Blender):
    """Mean of the members' probabilities."""

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
        return np.clip(p_MNL.mean(axis=0, dtype=np.float64), 0.0, 1.0)
