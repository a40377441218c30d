"""Logit scaling: a weighted mean of log odds, stretched and moved for each label.

Dimension key: M members, N slices, L labels.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar, Self

import numpy as np

from ichtune.ensemble.blenders.base import Blender, check_fit
from ichtune.ensemble.blenders.convex import Convex
from ichtune.ensemble.blenders.logistic import check_l2, scale_and_offset
from ichtune.ensemble.blenders.logits import from_logits, to_logits
from ichtune.ensemble.blenders.numbers import Shapes
from ichtune.errors import DataError
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
    arrays: ClassVar[Shapes] = {"scale_": (N_LABELS,), "offset_": (N_LABELS,)}

    shrinkage: float = 0.0
    l2: float = 1e-3
    scale_: np.ndarray | None = field(default=None, init=False)
    offset_: np.ndarray | None = field(default=None, init=False)

    def __post_init__(self) -> None:
        self._mean = Convex("logit", "shared", self.shrinkage)
        check_l2("logit_scaling", self.l2)

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
        self.scale_, self.offset_ = scale_and_offset(z_NL, y_NL, row_weight_N, self.l2)
        return self

    def predict(self, p_MNL: np.ndarray) -> np.ndarray:
        """See ``Blender.predict``."""
        if self.scale_ is None or self.offset_ is None:
            raise DataError("logit_scaling blender has no scales yet: call fit before predict")
        return from_logits(self.scale_ * to_logits(self._mean.predict(p_MNL)) + self.offset_)

    def live(self) -> np.ndarray | None:
        """See ``Blender.live``."""
        return self._mean.live()

    def restore(self, learned: Mapping[str, Any]) -> Self:
        """See ``Blender.restore``."""
        super().restore(learned)
        self._mean.restore(learned)
        return self
