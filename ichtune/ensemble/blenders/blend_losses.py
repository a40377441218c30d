"""The log loss of one label's blend as a function of the weights, with its exact gradient and Hessian.

Weights sum to one, so derivatives are needed only along directions that sum to zero. They are computed from the
members' differences to the blend: the part that all members share, which can be 1e12 times larger when all of them are
sure and wrong, drops out before it can drown the rest in rounding.

Dimension key: M members, N slices (B slices of one block).
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ichtune.ensemble.blenders.blocks import sum_over_blocks

#: Slices a block of the sums: a block of 60 members fits the cache. Bounds memory, not the result.
BLOCK = 2_048


@dataclass(frozen=True)
class LabelLoss(ABC):
    """Weighted mean log loss of one label.

    Attributes:
        x_MN: what is mixed: probabilities strictly between 0 and 1, or log odds.
        y_N: labels in [0, 1].
        weight_N: weight of each slice, summing to one.
    """

    x_MN: np.ndarray
    y_N: np.ndarray
    weight_N: np.ndarray

    def value(self, w: np.ndarray) -> float:
        """Loss at the weights ``w`` (M,), in nats."""

        def block(rows: slice) -> tuple[float]:
            return (float(self.weight_N[rows] @ self.losses(w @ self.x_MN[:, rows], self.y_N[rows])),)

        return float(sum_over_blocks(block, len(self.y_N), BLOCK)[0])

    def gradient(self, w: np.ndarray) -> np.ndarray:
        """Gradient (M,) at ``w`` (M,), valid along directions that sum to zero."""

        def block(rows: slice) -> tuple[np.ndarray]:
            x_MB = self.x_MN[:, rows]
            mixed_B = w @ x_MB
            return ((x_MB - mixed_B) @ (self.weight_N[rows] * self.slopes(mixed_B, self.y_N[rows])),)

        return np.asarray(sum_over_blocks(block, len(self.y_N), BLOCK)[0])

    def derivatives(self, w: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Gradient (M,) and Hessian (M, M) at ``w`` (M,), valid along directions that sum to zero."""

        def block(rows: slice) -> tuple[np.ndarray, np.ndarray]:
            mixed_B, y_B, weight_B = w @ self.x_MN[:, rows], self.y_N[rows], self.weight_N[rows]
            difference_MB = self.x_MN[:, rows] - mixed_B
            gradient_M = difference_MB @ (weight_B * self.slopes(mixed_B, y_B))
            difference_MB *= np.sqrt(weight_B * self.curvatures(mixed_B, y_B))
            return gradient_M, difference_MB @ difference_MB.T

        gradient, hessian = sum_over_blocks(block, len(self.y_N), BLOCK)
        return gradient, hessian

    @staticmethod
    @abstractmethod
    def losses(mixed_N: np.ndarray, y_N: np.ndarray) -> np.ndarray:
        """Loss of each slice, of any shape."""

    @staticmethod
    @abstractmethod
    def slopes(mixed_N: np.ndarray, y_N: np.ndarray) -> np.ndarray:
        """First derivative of each slice's loss by the mixed value, of any shape."""

    @staticmethod
    @abstractmethod
    def curvatures(mixed_N: np.ndarray, y_N: np.ndarray) -> np.ndarray:
        """Second derivative of each slice's loss by the mixed value, of any shape."""


class MixtureLoss(LabelLoss):
    """Members are mixed as probabilities."""

    @staticmethod
    def losses(mixed_N: np.ndarray, y_N: np.ndarray) -> np.ndarray:
        """See ``LabelLoss``."""
        return np.asarray(-(y_N * np.log(mixed_N) + (1.0 - y_N) * np.log1p(-mixed_N)))

    @staticmethod
    def slopes(mixed_N: np.ndarray, y_N: np.ndarray) -> np.ndarray:
        """See ``LabelLoss``."""
        return np.asarray((mixed_N - y_N) / (mixed_N * (1.0 - mixed_N)))

    @staticmethod
    def curvatures(mixed_N: np.ndarray, y_N: np.ndarray) -> np.ndarray:
        """See ``LabelLoss``."""
        return np.asarray(y_N / mixed_N**2 + (1.0 - y_N) / (1.0 - mixed_N) ** 2)


class LogitLoss(LabelLoss):
    """Members are mixed as log odds."""

    @staticmethod
    def losses(mixed_N: np.ndarray, y_N: np.ndarray) -> np.ndarray:
        """See ``LabelLoss``."""
        return np.asarray(np.maximum(mixed_N, 0.0) - y_N * mixed_N + np.log1p(np.exp(-np.abs(mixed_N))))

    @staticmethod
    def slopes(mixed_N: np.ndarray, y_N: np.ndarray) -> np.ndarray:
        """See ``LabelLoss``."""
        return np.asarray(0.5 * (1.0 + np.tanh(0.5 * mixed_N)) - y_N)

    @staticmethod
    def curvatures(mixed_N: np.ndarray, y_N: np.ndarray) -> np.ndarray:
        """See ``LabelLoss``."""
        return np.asarray(0.25 * (1.0 - np.tanh(0.5 * mixed_N) ** 2))


@dataclass(frozen=True)
class SharedLoss:
    """Losses of several labels under shared weights, added up with a share each."""

    losses: Sequence[LabelLoss]
    share_L: np.ndarray

    def value(self, w: np.ndarray) -> float:
        """Loss at the weights ``w`` (M,), in nats."""
        return float(sum(share * loss.value(w) for share, loss in zip(self.share_L, self.losses, strict=True)))

    def derivatives(self, w: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Gradient (M,) and Hessian (M, M) at ``w`` (M,), valid along directions that sum to zero."""
        gradient, hessian = np.zeros(len(w)), np.zeros((len(w), len(w)))
        for share, loss in zip(self.share_L, self.losses, strict=True):
            label_gradient, label_hessian = loss.derivatives(w)
            gradient += share * label_gradient
            hessian += share * label_hessian
        return gradient, hessian
