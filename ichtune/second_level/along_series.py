"""Arithmetic along the series of a view: neighbours, windows, sums and ranks, for all slices at once.

Each function takes a column (R,) and returns one; none reads another series. A series that is turned upside down gives
the same bits turned upside down: sums are taken over pairs that lie mirrored, and adding a pair does not know its
order. ``below`` is towards the first slice of the series, ``above`` towards its last.

Dimension key: R slices, Q series.
"""

from dataclasses import dataclass, field
from itertools import pairwise

import numpy as np


@dataclass(frozen=True)
class AlongSeries:
    """Where each slice lies in its series.

    Attributes:
        series_R: number of each slice's series, not decreasing, from 0 without a gap.
        below_R: slices of the series below each, int64.
        above_R: slices of the series above each, int64.
    """

    series_R: np.ndarray
    below_R: np.ndarray = field(init=False)
    above_R: np.ndarray = field(init=False)

    def __post_init__(self) -> None:
        row_R = np.arange(len(self.series_R))
        first_Q = np.flatnonzero(np.diff(self.series_R, prepend=-1))
        last_Q = np.append(first_Q[1:], len(row_R)) - 1
        object.__setattr__(self, "below_R", row_R - first_Q[self.series_R])
        object.__setattr__(self, "above_R", last_Q[self.series_R] - row_R)

    @property
    def lengths(self) -> np.ndarray:
        """Slices in the series of each slice, int64 (R,)."""
        return self.below_R + self.above_R + 1

    def shifted(self, x_R: np.ndarray, offset: int, fill: float = np.nan) -> np.ndarray:
        """Value of the slice ``offset`` places above, below where it is negative; ``fill`` beyond the series."""
        shifted_R = np.full(len(x_R), fill, dtype=np.float64)
        n = len(x_R) - abs(offset)
        if n > 0 and offset >= 0:
            np.copyto(shifted_R[:n], x_R[offset:], where=self.above_R[:n] >= offset)
        elif n > 0:
            np.copyto(shifted_R[-offset:], x_R[:n], where=self.below_R[-offset:] >= -offset)
        return shifted_R

    def rolling_mean(self, x_R: np.ndarray, width: int) -> np.ndarray:
        """Mean over the slices within ``width`` places, centred; fewer at an edge."""
        total_R = x_R.copy()
        for offset in range(1, width // 2 + 1):
            total_R += self.shifted(x_R, -offset, 0.0) + self.shifted(x_R, offset, 0.0)
        return total_R / self._in_window(width)

    def rolling_std(self, x_R: np.ndarray, width: int) -> np.ndarray:
        """Standard deviation over the same slices, of the population."""
        mean_R = self.rolling_mean(x_R, width)
        total_R = (x_R - mean_R) ** 2
        for offset in range(1, width // 2 + 1):
            below_R, above_R = ((self.shifted(x_R, signed) - mean_R) ** 2 for signed in (-offset, offset))
            total_R += np.nan_to_num(below_R, copy=False) + np.nan_to_num(above_R, copy=False)
        return np.sqrt(total_R / self._in_window(width))

    def rolling_min(self, x_R: np.ndarray, width: int) -> np.ndarray:
        """Least value over the same slices."""
        least_R = x_R.copy()
        for offset in range(1, width // 2 + 1):
            np.minimum(least_R, self.shifted(x_R, -offset, np.inf), out=least_R)
            np.minimum(least_R, self.shifted(x_R, offset, np.inf), out=least_R)
        return least_R

    def rolling_max(self, x_R: np.ndarray, width: int) -> np.ndarray:
        """Greatest value over the same slices."""
        return -self.rolling_min(-x_R, width)

    def exponential_below(self, x_R: np.ndarray, half_life: int) -> np.ndarray:
        """Mean over a slice and all below it; weights halve every ``half_life`` places."""
        decay = 0.5 ** (1.0 / half_life)
        total_R, weights = x_R.copy(), [1.0]
        by_place = np.argsort(self.below_R, kind="stable")
        ends = np.cumsum(np.bincount(self.below_R))
        for start, end in pairwise(ends):
            rows = by_place[start:end]
            total_R[rows] += decay * total_R[rows - 1]
            weights.append(1.0 + decay * weights[-1])
        return total_R / np.array(weights)[self.below_R]

    def exponential_above(self, x_R: np.ndarray, half_life: int) -> np.ndarray:
        """Mean over a slice and all above it."""
        return self.upside_down().exponential_below(x_R[::-1], half_life)[::-1]

    def total(self, x_R: np.ndarray) -> np.ndarray:
        """Sum over the series of each slice."""
        mirrored_R = x_R[np.arange(len(x_R)) + self.above_R - self.below_R]
        return np.bincount(self.series_R, weights=0.5 * (x_R + mirrored_R))[self.series_R]

    def mean(self, x_R: np.ndarray) -> np.ndarray:
        """Mean over the series of each slice."""
        return self.total(x_R) / self.lengths

    def std(self, x_R: np.ndarray) -> np.ndarray:
        """Standard deviation over the series of each slice, of the population."""
        return np.sqrt(self.mean((x_R - self.mean(x_R)) ** 2))

    def maximum(self, x_R: np.ndarray) -> np.ndarray:
        """Greatest value in the series of each slice."""
        if not len(x_R):
            return x_R.copy()
        return np.maximum.reduceat(x_R, np.flatnonzero(self.below_R == 0))[self.series_R]

    def peak_below(self, x_R: np.ndarray) -> np.ndarray:
        """Places down to the nearest greatest value of the series, 0 on it; NaN where none lies below."""
        row_R = np.arange(len(x_R))
        nearest_R = np.maximum.accumulate(np.where(x_R == self.maximum(x_R), row_R, -1))
        return np.where(row_R - nearest_R <= self.below_R, row_R - nearest_R, np.nan)

    def peak_above(self, x_R: np.ndarray) -> np.ndarray:
        """Places up to the nearest greatest value of the series, 0 on it; NaN where none lies above."""
        return self.upside_down().peak_below(x_R[::-1])[::-1]

    def rank(self, x_R: np.ndarray) -> np.ndarray:
        """Share of the series' slices that lie below in value, each slice and its equals counting half; in (0, 1)."""
        order = np.lexsort((x_R, self.series_R))
        sorted_R, sorted_series_R = x_R[order], self.series_R[order]
        is_new = np.append(True, (np.diff(sorted_R) != 0) | (np.diff(sorted_series_R) != 0))[: len(x_R)]
        start_G = np.flatnonzero(is_new)
        size_G = np.diff(np.append(start_G, len(x_R)))
        group_R = np.cumsum(is_new) - 1
        rank_R = np.empty(len(x_R))
        rank_R[order] = self.below_R[start_G][group_R] + 0.5 * size_G[group_R]
        return rank_R / self.lengths

    def upside_down(self) -> "AlongSeries":
        """Return the same for all rows in reverse order."""
        return AlongSeries(self.series_R[::-1].max(initial=0) - self.series_R[::-1])

    def _in_window(self, width: int) -> np.ndarray:
        reach = width // 2
        return np.minimum(self.below_R, reach) + np.minimum(self.above_R, reach) + 1
