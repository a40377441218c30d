"""Platt scaling: a logistic regression of each label on its own log odds.

Dimension key: N slices, L labels, K numbers a label.
"""

from typing import ClassVar

import numpy as np

from ichtune.ensemble.blenders.logistic import penalised_logistic
from ichtune.ensemble.blenders.logits import from_logits, to_logits
from ichtune.ensemble.post_processing.per_label import PerLabel

#: Penalty on scales other than 1, nats: seen only where there is next to nothing to learn from.
L2 = 1e-4


class Platt(PerLabel):
    """Stretches the log odds of a label and moves them; a scale below 0 is not believed and becomes 0.

    A label that says the contrary of what is true is an accident of its folds: where a rate is higher, the other folds'
    is lower, and so is a cross-fitted prediction of it.

    Source: Platt, Probabilistic outputs for support vector machines, Advances in Large Margin Classifiers, 1999.
    """

    name: ClassVar[str] = "platt"
    learns: ClassVar[tuple[str, ...]] = ("scale", "offset")

    def _fit_label(self, p_N: np.ndarray, y_N: np.ndarray, weight_N: np.ndarray) -> tuple[float, ...]:
        z_N = to_logits(p_N)
        scale_F, offset = penalised_logistic(z_N[None], y_N, weight_N, np.ones(1), L2)
        if scale_F[0] < 0.0:
            return 0.0, float(to_logits(weight_N @ y_N))
        return float(scale_F[0]), offset

    def _predict(self, p_NL: np.ndarray, numbers_KL: np.ndarray) -> np.ndarray:
        return from_logits(numbers_KL[0] * to_logits(p_NL) + numbers_KL[1])
