"""The log loss of one label's blend as a function of the weights, with its exact gradient and Hessian.

Weights sum to one, so derivatives are needed only along directions that sum to zero. They are computed from the
members' differences to the blend: the part that all members share, which can be 1e12 times larger when all of them are
sure and wrong, drops out before it can drown the rest in rounding.

Dimension key: M members, N slices (B slices of one block).
"""

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

#: Slices a block of the sums; bounds memory, not the result.
BLOCK = 65_536


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
        return float(sum(weight_B @ self._losses(w @ x_MB, y_B) for x_MB, y_B, weight_B in self._blocks()))

    def derivatives(self, w: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Gradient (M,) and Hessian (M, M) at ``w`` (M,), valid along directions that sum to zero."""
        n_members = len(self.x_MN)
        gradient, hessian = np.zeros(n_members), np.zeros((n_members, n_members))
        for x_MB, y_B, weight_B in self._blocks():
            mixed_B = w @ x_MB
            slope_B, curvature_B = self._slopes(mixed_B, y_B)
            difference_MB = x_MB - mixed_B
            gradient += difference_MB @ (weight_B * slope_B)
            hessian += (difference_MB * (weight_B * curvature_B)) @ difference_MB.T
        return gradient, hessian

    def _blocks(self) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
        for start in range(0, len(self.y_N), BLOCK):
            block = slice(start, start + BLOCK)
            yield self.x_MN[:, block], self.y_N[block], self.weight_N[block]

    @abstractmethod
    def _losses(self, mixed_B: np.ndarray, y_B: np.ndarray) -> np.ndarray:
        """Loss of each slice."""

    @abstractmethod
    def _slopes(self, mixed_B: np.ndarray, y_B: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """First and second derivative of each slice's loss by the mixed value."""


class MixtureLoss(LabelLoss):
    """Members are mixed as probabilities."""

    def _losses(self, mixed_B: np.ndarray, y_B: np.ndarray) -> np.ndarray:
        return -(y_B * np.log(mixed_B) + (1.0 - y_B) * np.log1p(-mixed_B))

    def _slopes(self, mixed_B: np.ndarray, y_B: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        hit_B, miss_B = y_B / mixed_B, (1.0 - y_B) / (1.0 - mixed_B)
        return miss_B - hit_B, hit_B / mixed_B + miss_B / (1.0 - mixed_B)


class LogitLoss(LabelLoss):
    """Members are mixed as log odds."""

    def _losses(self, mixed_B: np.ndarray, y_B: np.ndarray) -> np.ndarray:
        return np.logaddexp(0.0, mixed_B) - y_B * mixed_B

    def _slopes(self, mixed_B: np.ndarray, y_B: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        p_B = 0.5 * (1.0 + np.tanh(0.5 * mixed_B))
        return p_B - y_B, p_B * (1.0 - p_B)


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
