"""Logistic stacking: a logistic regression on the members' log odds, drawn towards their mean.

Dimension key: M members, G members without duplicates, N slices, L labels.
"""

from dataclasses import dataclass, field
from typing import ClassVar, Self

import numpy as np

from ichtune.ensemble.blenders.base import Blender, check_fit, check_members
from ichtune.ensemble.blenders.logistic import check_l2, penalised_logistic
from ichtune.ensemble.blenders.logits import from_logits, to_logits
from ichtune.ensemble.blenders.numbers import Shapes
from ichtune.ensemble.blenders.weighted_mean import identical_members
from ichtune.errors import DataError
from ichtune.labels import N_LABELS


@dataclass
class LogisticStacking(Blender):
    """For each label its own coefficients and bias; coefficients may be negative and need not sum to one.

    Attributes:
        l2: strength of the penalty, nats, on the distance of the coefficients from those of the equal mean; the larger,
            the nearer.
        coefficients_: after ``fit``, (M, L).
        bias_: after ``fit``, (L,), log odds.

    Source: Wolpert, Stacked generalization, Neural Networks 5, 1992; the penalty's centre is ours.
    """

    is_mean: ClassVar[bool] = False
    arrays: ClassVar[Shapes] = {"coefficients_": (None, N_LABELS), "bias_": (N_LABELS,)}

    l2: float = 1e-2
    coefficients_: np.ndarray | None = field(default=None, init=False)
    bias_: np.ndarray | None = field(default=None, init=False)

    def __post_init__(self) -> None:
        check_l2("logistic_stacking", self.l2)

    def fit(
        self,
        p_MNL: np.ndarray,
        y_NL: np.ndarray,
        weight_N: np.ndarray | None = None,
        group_N: np.ndarray | None = None,
    ) -> Self:
        """Solve for coefficients and biases; see ``Blender.fit``."""
        row_weight_N = check_fit(p_MNL, y_NL, weight_N)
        groups = identical_members(p_MNL)
        firsts = [group[0] for group in groups]
        centre_G = np.full(len(groups), 1.0 / len(groups))
        self.coefficients_ = np.zeros((p_MNL.shape[0], p_MNL.shape[2]))
        self.bias_ = np.zeros(p_MNL.shape[2])
        for label in range(p_MNL.shape[2]):
            z_GN = to_logits(p_MNL[firsts, :, label])
            solved_G, self.bias_[label] = penalised_logistic(z_GN, y_NL[:, label], row_weight_N, centre_G, self.l2)
            for group, coefficient in zip(groups, solved_G, strict=True):
                self.coefficients_[group, label] = coefficient / len(group)
        return self

    def predict(self, p_MNL: np.ndarray) -> np.ndarray:
        """See ``Blender.predict``."""
        if self.coefficients_ is None or self.bias_ is None:
            raise DataError("logistic_stacking blender has no coefficients yet: call fit before predict")
        check_members(p_MNL, len(self.coefficients_))
        total_NL = np.tile(self.bias_, (p_MNL.shape[1], 1))
        for p_NL, coefficient_L in zip(p_MNL, self.coefficients_, strict=True):
            total_NL += coefficient_L * to_logits(p_NL)
        return from_logits(total_NL)
