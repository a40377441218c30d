"""Power mean: between the geometric and the largest, by one exponent.

Dimension key: M members, N slices, L labels.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Self

import numpy as np
from scipy.optimize import minimize_scalar

from ichtune.ensemble.blenders.base import Blender, check_fit, check_members
from ichtune.ensemble.blenders.logits import clip_probabilities
from ichtune.ensemble.blenders.numbers import is_number
from ichtune.errors import ConfigError, DataError
from ichtune.metrics import slice_losses

#: Exponents between which one is sought.
BOUNDS = (-2.0, 6.0)
#: Exponents nearer to 0 are taken for it: the geometric mean.
GEOMETRIC = 1e-6


@dataclass
class PowerMean(Blender):
    """Mean of the members' probabilities raised to a power, and the root of it; all members weigh alike.

    Attributes:
        exponent: 1 is the equal mean, 0 the geometric one; None finds the one with the lowest loss.
        exponent_: after ``fit``, the one that is used.

    Source: teams of the 2019 competition raised probabilities to a power before they averaged; Hardy, Littlewood and
        Polya, Inequalities, 1934, chapter 2.
    """

    exponent: float | None = None
    exponent_: float = field(default=float("nan"), init=False)

    def __post_init__(self) -> None:
        if self.exponent is None:
            return
        if not is_number(self.exponent, *BOUNDS):
            raise ConfigError(
                f"power_mean: exponent must be a number between {BOUNDS[0]:g} and {BOUNDS[1]:g}, or null to find one, "
                f"got {self.exponent!r}"
            )

    def fit(
        self,
        p_MNL: np.ndarray,
        y_NL: np.ndarray,
        weight_N: np.ndarray | None = None,
        group_N: np.ndarray | None = None,
    ) -> Self:
        """Find the exponent; see ``Blender.fit``."""
        row_weight_N = check_fit(p_MNL, y_NL, weight_N)
        self.weights_ = np.full((p_MNL.shape[0], p_MNL.shape[2]), 1.0 / p_MNL.shape[0])
        if self.exponent is not None:
            self.exponent_ = float(self.exponent)
            return self

        def loss(exponent: float) -> float:
            return float(row_weight_N @ slice_losses(y_NL, _power_mean(p_MNL, exponent)))

        found = minimize_scalar(loss, bounds=BOUNDS, method="bounded", options={"xatol": 1e-3})
        self.exponent_ = float(found.x) if found.fun < loss(1.0) - 1e-12 else 1.0
        return self

    def predict(self, p_MNL: np.ndarray) -> np.ndarray:
        """See ``Blender.predict``."""
        if self.weights_ is None:
            raise DataError("power_mean blender has no exponent yet: call fit before predict")
        check_members(p_MNL, len(self.weights_))
        return np.clip(_power_mean(p_MNL, self.exponent_), 0.0, 1.0)

    def learned(self) -> dict[str, Any]:
        """See ``Blender.learned``."""
        return {**super().learned(), "exponent_": self.exponent_}

    def restore(self, learned: Mapping[str, Any]) -> Self:
        """See ``Blender.restore``."""
        exponent = learned.get("exponent_")
        if not is_number(exponent, *BOUNDS):
            raise DataError(
                f"a power mean's exponent_ must lie between {BOUNDS[0]:g} and {BOUNDS[1]:g}, got {exponent!r}"
            )
        super().restore(learned)
        self.exponent_ = float(exponent)
        return self


def _power_mean(p_MNL: np.ndarray, exponent: float) -> np.ndarray:
    """One member at a time, to spare memory."""
    is_geometric = abs(exponent) < GEOMETRIC
    total = np.zeros(p_MNL.shape[1:], dtype=np.float64)
    for p_NL in p_MNL:
        log_NL = np.log(clip_probabilities(p_NL))
        total += log_NL if is_geometric else np.exp(exponent * log_NL)
    total /= len(p_MNL)
    return np.exp(total) if is_geometric else total ** (1.0 / exponent)
