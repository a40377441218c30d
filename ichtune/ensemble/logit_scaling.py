"""Logit scaling: a weighted mean of log odds, stretched and moved for each label.

Dimension key: M members, N slices, L labels.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar, Self

import numpy as np

from ichtune.ensemble.base import Blender, check_fit
from ichtune.ensemble.convex import Convex
from ichtune.ensemble.logistic import penalised_logistic
from ichtune.ensemble.logits import from_logits, to_logits
from ichtune.ensemble.numbers import table_of_numbers
from ichtune.errors import ConfigError, DataError
from ichtune.labels import N_LABELS


@dataclass
class LogitScaling(Blender):
    """Shared weights on the simplex, then a scale and an offset for each label.

    A mean of models that err differently is less sure than it could be; the scale gives that back.

    Attributes:
        shrinkage: share of the way from the learned weights back to equal ones; 1 scales the equal mean.
        l2: strength of the penalty, nats, on scales other than 1.
        scale_: after ``fit``, (L,).
        offset_: after ``fit``, (L,), log odds.

    Source: Satopaa et al., Combining multiple probability predictions using a simple logit model, International Journal
        of Forecasting 30, 2014.
    """

    is_mean: ClassVar[bool] = False

    shrinkage: float = 0.0
    l2: float = 1e-3
    scale_: np.ndarray | None = field(default=None, init=False)
    offset_: np.ndarray | None = field(default=None, init=False)

    def __post_init__(self) -> None:
        self._mean = Convex("logit", "shared", self.shrinkage)
        real = isinstance(self.l2, int | float) and not isinstance(self.l2, bool)
        if not (real and 1e-8 <= self.l2 <= 1e4):
            raise ConfigError(f"logit_scaling: l2 must be a number between 1e-8 and 1e4, got {self.l2!r}")

    def fit(
        self,
        p_MNL: np.ndarray,
        y_NL: np.ndarray,
        weight_N: np.ndarray | None = None,
        group_N: np.ndarray | None = None,
    ) -> Self:
        """Solve for the weights, then for scales and offsets; see ``Blender.fit``."""
        row_weight_N = check_fit(p_MNL, y_NL, weight_N)
        self._mean.fit(p_MNL, y_NL, weight_N)
        self.weights_ = self._mean.weights_
        z_NL = to_logits(self._mean.predict(p_MNL))
        self.scale_, self.offset_ = np.ones(N_LABELS), np.zeros(N_LABELS)
        for label in range(N_LABELS):
            found, self.offset_[label] = penalised_logistic(
                z_NL[None, :, label], y_NL[:, label], row_weight_N, np.ones(1), self.l2
            )
            self.scale_[label] = found[0]
        return self

    def predict(self, p_MNL: np.ndarray) -> np.ndarray:
        """See ``Blender.predict``."""
        if self.scale_ is None or self.offset_ is None:
            raise DataError("logit_scaling blender has no scales yet: call fit before predict")
        return from_logits(self.scale_ * to_logits(self._mean.predict(p_MNL)) + self.offset_)

    def learned(self) -> dict[str, Any]:
        """See ``Blender.learned``."""
        told = {key: None if value is None else value.tolist() for key, value in self._arrays().items()}
        return {**super().learned(), **told}

    def restore(self, learned: Mapping[str, Any]) -> Self:
        """See ``Blender.restore``."""
        super().restore(learned)
        self._mean.restore(learned)
        self.scale_ = table_of_numbers(learned, "scale_", (N_LABELS,))
        self.offset_ = table_of_numbers(learned, "offset_", (N_LABELS,))
        return self

    def _arrays(self) -> dict[str, np.ndarray | None]:
        return {"scale_": self.scale_, "offset_": self.offset_}
