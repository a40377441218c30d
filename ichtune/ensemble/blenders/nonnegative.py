"""Non-negative least squares, for comparison: it minimises the Brier score, which is not what is scored.

Dimension key: G members without duplicates, N slices, L labels.
"""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from scipy.optimize import nnls

from ichtune.ensemble.blenders.weighted_mean import WeightedMean

#: Ridge on the members' products, as a share of their mean square; makes nearly equal members share a weight.
RIDGE = 1e-9


@dataclass
class NonNegativeLeastSquares(WeightedMean):
    """Least squares of the labels on the members' probabilities, weights at least 0, scaled to sum to one.

    Attributes:
        space: what the weights average; they are fitted on probabilities either way.

    Source: Lawson and Hanson, Solving Least Squares Problems, 1974, chapter 23; Breiman, Stacked regressions, Machine
        Learning 24, 1996.
    """

    name: ClassVar[str] = "nnls"

    space: str = "probability"

    def _solve(self, p_GNL: np.ndarray, y_NL: np.ndarray, row_weight_N: np.ndarray) -> np.ndarray:
        columns = [
            self._label(p_GNL[:, :, label].astype(np.float64), y_NL[:, label], row_weight_N)
            for label in range(y_NL.shape[1])
        ]
        return np.stack(columns, axis=1)

    def _label(self, p_GN: np.ndarray, y_N: np.ndarray, row_weight_N: np.ndarray) -> np.ndarray:
        products = (p_GN * row_weight_N) @ p_GN.T
        products += RIDGE * (np.trace(products) / len(p_GN) + 1e-12) * np.eye(len(p_GN))
        root = np.linalg.cholesky(products)  # the same minimum as over the N rows, in G rows
        weight_G, _ = nnls(root.T, np.linalg.solve(root, (p_GN * row_weight_N) @ y_N))
        total = weight_G.sum()
        return weight_G / total if total > 0 else np.full(len(p_GN), 1.0 / len(p_GN))
