"""Isotonic regression: each label's probability becomes the rate at which such a prediction was right.

Dimension key: N slices, L labels, D distinct predictions, B blocks of equal rate.
"""

from collections.abc import Mapping
from typing import Any, ClassVar, Self

import numpy as np
from scipy.optimize import isotonic_regression

from ichtune.ensemble.blenders.numbers import table_of_numbers
from ichtune.ensemble.post_processing.base import Step, check_rows
from ichtune.errors import DataError
from ichtune.labels import N_LABELS


class Isotonic(Step):
    """A rising curve of any shape for each label, as its corners, straight lines between.

    Each end of the curve has seen one slice of the other kind, so that no rate is 0 or 1: a hundred negatives in a row
    say 0.01.

    Attributes:
        corners_: after ``fit``, for each label predictions that rise (C,) and their rates (C,).

    Source: Zadrozny and Elkan, Transforming classifier scores into accurate multiclass probability estimates, KDD 2002;
        the slices at the ends are ours.
    """

    name: ClassVar[str] = "isotonic"

    corners_: "tuple[tuple[np.ndarray, np.ndarray], ...] | None" = None

    def fit(self, p_NL: np.ndarray, y_NL: np.ndarray, weight_N: np.ndarray | None = None) -> Self:
        """Solve for the curves; see ``Step.fit``."""
        row_weight_N = check_rows(p_NL, y_NL, weight_N)
        p = p_NL.astype(np.float64)
        self.corners_ = tuple(_corners(p[:, c], y_NL[:, c], row_weight_N) for c in range(N_LABELS))
        return self

    def predict(self, p_NL: np.ndarray) -> np.ndarray:
        """See ``Step.predict``."""
        if self.corners_ is None:
            raise self._unfitted()
        return np.stack([np.interp(p_NL[:, c], x, rate) for c, (x, rate) in enumerate(self.corners_)], axis=1)

    def learned(self) -> dict[str, Any]:
        """See ``Step.learned``."""
        if self.corners_ is None:
            return {"curves": None}
        return {"curves": [{"predicted": x.tolist(), "rate": rate.tolist()} for x, rate in self.corners_]}

    def restore(self, learned: Mapping[str, Any]) -> Self:
        """See ``Step.restore``."""
        curves = learned.get("curves")
        if not isinstance(curves, list) or len(curves) != N_LABELS or not all(isinstance(c, Mapping) for c in curves):
            raise DataError(f"isotonic must have learned curves of {N_LABELS} labels, got {str(curves)[:60]}")
        corners = tuple(
            (table_of_numbers(c, "predicted", (None,)), table_of_numbers(c, "rate", (None,))) for c in curves
        )
        for x, rate in corners:
            if len(x) != len(rate) or (np.diff(x) < 0).any() or (np.diff(rate) < 0).any() or not _shares(rate):
                raise DataError(f"a curve of isotonic must rise within [0, 1], got {str(rate.tolist())[:60]}")
        self.corners_ = corners
        return self


def _shares(rate: np.ndarray) -> bool:
    return bool(rate.min() >= 0.0 and rate.max() <= 1.0)


def _corners(p_N: np.ndarray, y_N: np.ndarray, weight_N: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Both ends of every block of equal rate; the row weights sum to one."""
    seen = weight_N > 0
    p_N, y_N, weight_N = p_N[seen], y_N[seen], weight_N[seen]
    p_D, code_N = np.unique(p_N, return_inverse=True)
    weight_D = np.bincount(code_N, weights=weight_N)
    rate_D = np.bincount(code_N, weights=weight_N * y_N) / weight_D
    one = weight_N @ weight_N  # a slice's share, 1 / N where all weigh alike
    solved = isotonic_regression([1.0, *rate_D, 0.0], weights=[one, *weight_D, one])
    rate_D = np.clip(solved.x[1:-1], 0.0, 1.0)
    is_corner = np.ones(len(p_D), dtype=bool)
    is_corner[1:-1] = (rate_D[1:-1] != rate_D[:-2]) | (rate_D[1:-1] != rate_D[2:])
    return p_D[is_corner], rate_D[is_corner]
