"""Cross-fitting: predict each fold with what was fitted on the other folds only.

Dimension key: M members, N slices, R some of them, L labels.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from ichtune.ensemble.blenders.base import Blender
from ichtune.errors import DataError

#: Fits on the given rows and returns what predicts other rows: (fit_rows, predict_rows) -> p (n_predict_rows,
#: L).
FitPredict = Callable[[np.ndarray, np.ndarray], np.ndarray]


@dataclass(frozen=True)
class Unseen:
    """Predictions of slices from fits that saw none of their patients.

    Attributes:
        row_R: which slices, by their number among all, ascending.
        fold_R: the fold of each, which holds whole patients.
        p_RL: their probabilities, float64 (R, L).
    """

    row_R: np.ndarray
    fold_R: np.ndarray
    p_RL: np.ndarray


def crossfit(fit_predict: FitPredict, fold_N: np.ndarray, n_labels: int) -> np.ndarray:
    """Predict every row from a fit that saw no row of its fold.

    Args:
        fit_predict: takes row numbers to fit on and row numbers to predict, returns (n_predicted, L).
            Whatever is chosen or learned from out-of-fold predictions (members, weights, priors) must be
            chosen inside it.
        fold_N: the fold of each row; folds hold whole patients.
        n_labels: L.

    Returns:
        float64 (N, L).

    Raises:
        DataError: fewer than two folds.
    """
    folds = np.unique(fold_N)
    if len(folds) < 2:
        raise DataError(
            f"a cross-fitted score needs labelled slices in at least two folds, got folds {folds.tolist()}; "
            "prepare with more labelled patients"
        )
    p_NL = np.full((len(fold_N), n_labels), np.nan)
    for fold in folds:
        held_out = fold_N == fold
        predict_rows = np.flatnonzero(held_out)
        p_NL[predict_rows] = fit_predict(np.flatnonzero(~held_out), predict_rows)
    return p_NL


def crossfit_blender(
    create: Callable[[], Blender],
    p_MNL: np.ndarray,
    y_NL: np.ndarray,
    fold_N: np.ndarray,
    weight_N: np.ndarray | None = None,
    group_N: np.ndarray | None = None,
) -> np.ndarray:
    """Predict every slice with a new blender that was fitted on the other folds: float64 (N, L).

    Args:
        create: makes an unfitted blender.
        p_MNL: probabilities of the members (M, N, L).
        y_NL: labels (N, L).
        fold_N: the fold of each slice.
        weight_N: weight of each slice; None weighs all alike.
        group_N: the patient of each slice, for a blender that cross-fits while it learns.

    Raises:
        DataError: fewer than two folds.
    """

    def fit_predict(fit_rows: np.ndarray, predict_rows: np.ndarray) -> np.ndarray:
        weights, groups = (None if values is None else values[fit_rows] for values in (weight_N, group_N))
        return create().fit(p_MNL[:, fit_rows], y_NL[fit_rows], weights, groups).predict(p_MNL[:, predict_rows])

    return crossfit(fit_predict, fold_N, y_NL.shape[1])
