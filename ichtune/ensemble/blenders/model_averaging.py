"""Bayesian model averaging: each member weighs as much as the labels make it probable.

Dimension key: G members without duplicates, N slices, L labels.
"""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from ichtune.ensemble.blenders.numbers import check_share
from ichtune.ensemble.blenders.weighted_mean import WeightedMean
from ichtune.metrics import label_losses


@dataclass
class ModelAveraging(WeightedMean):
    """Posterior probabilities of the members for each label, all being alike before.

    With many slices nearly all weight falls on one member, since averaging asks which member is the true one and not
    which mean is best. Slices of a series say much the same, so the likelihood is tempered.

    Attributes:
        space: ``probability`` averages probabilities, as the method has it, ``logit`` log odds.
        tempering: power of the likelihood, above 0 and up to 1: the share of the slices that count as independent.

    Source: Hoeting et al., Bayesian model averaging: a tutorial, Statistical Science 14, 1999.
    """

    name: ClassVar[str] = "model_averaging"

    space: str = "probability"
    tempering: float = 0.03

    def __post_init__(self) -> None:
        super().__post_init__()
        check_share("model_averaging", "tempering", self.tempering)

    def _solve(self, p_GNL: np.ndarray, y_NL: np.ndarray, row_weight_N: np.ndarray) -> np.ndarray:
        n_rows = int((row_weight_N > 0).sum())
        loss_GL = np.stack([row_weight_N @ label_losses(y_NL, p_NL) for p_NL in p_GNL])
        log_GL = -self.tempering * n_rows * loss_GL
        weight_GL = np.exp(log_GL - log_GL.max(axis=0))
        return np.asarray(weight_GL / weight_GL.sum(axis=0))
