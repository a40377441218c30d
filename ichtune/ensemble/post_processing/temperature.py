"""Temperature: the log odds of each label divided by one number.

Dimension key: N slices, L labels, K numbers a label.
"""

from typing import ClassVar

import numpy as np

from ichtune.ensemble.blenders.logits import from_logits, to_logits
from ichtune.ensemble.post_processing.one_number import best_number
from ichtune.ensemble.post_processing.per_label import PerLabel

#: Temperatures between one tenth and ten.
SCALES = (0.1, 10.0)


class Temperature(PerLabel):
    """Makes a label surer or less sure and keeps 0.5 where it is: a temperature above 1 says that it was too sure.

    Source: Guo et al., On Calibration of Modern Neural Networks, ICML 2017.
    """

    name: ClassVar[str] = "temperature"
    learns: ClassVar[tuple[str, ...]] = ("temperature",)

    def _fit_label(self, p_N: np.ndarray, y_N: np.ndarray, weight_N: np.ndarray) -> tuple[float, ...]:
        z_N = to_logits(p_N)
        return (1.0 / best_number(np.zeros_like(z_N), z_N, y_N, weight_N, SCALES, 1.0),)

    def _predict(self, p_NL: np.ndarray, numbers_KL: np.ndarray) -> np.ndarray:
        return from_logits(to_logits(p_NL) / numbers_KL[0])
