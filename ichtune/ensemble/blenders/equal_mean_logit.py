"""Equal mean of log odds: nothing to learn either, but confident members count for more."""

from dataclasses import dataclass

import numpy as np

from ichtune.ensemble.blenders.base import check_members
from ichtune.ensemble.blenders.blocks import sum_over_blocks
from ichtune.ensemble.blenders.equal_mean import EqualMean
from ichtune.ensemble.blenders.logits import from_logits, to_logits
from ichtune.ensemble.blenders.weighted_mean import PREDICT_ROWS


@dataclass
class EqualMeanLogit(EqualMean):
    """Mean of the members' log odds, turned back into a probability."""

    def predict(self, p_MNL: np.ndarray) -> np.ndarray:
        """See ``Blender.predict``."""
        check_members(p_MNL, None if self.weights_ is None else len(self.weights_))
        return mean_of_logits(p_MNL)


def mean_of_logits(p_MNL: np.ndarray) -> np.ndarray:
    """Mean over the first axis in log odds, float64 (N, L); a few slices of one member at a time, to spare memory."""
    p_NL = np.empty(p_MNL.shape[1:])

    def block(rows: slice) -> tuple[()]:
        total_RL = np.zeros(p_NL[rows].shape)
        for p_RL in p_MNL[:, rows]:
            total_RL += to_logits(p_RL)
        p_NL[rows] = from_logits(total_RL / len(p_MNL))
        return ()

    sum_over_blocks(block, len(p_NL), PREDICT_ROWS)
    return p_NL
