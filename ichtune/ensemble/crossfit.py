"""Cross-fitting: predict each fold with what was fitted on the other folds only."""

from collections.abc import Callable

import numpy as np

from ichtune.errors import DataError

#: Fits on the given rows and returns what predicts other rows: (fit_rows, predict_rows) -> p (n_predict_rows,
#: L).
FitPredict = Callable[[np.ndarray, np.ndarray], np.ndarray]


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
