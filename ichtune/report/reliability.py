"""Calibration: do as many slices bleed as the prediction says?

Dimension key: N slices, P patients, C columns, D draws.
"""

import numpy as np
import pandas as pd

from ichtune.ensemble.scores.bootstrap import LEVEL, N_DRAWS, SEED, resampled_means

N_BINS = 10


def reliability(y_N: np.ndarray, p_N: np.ndarray, patient_N: np.ndarray) -> tuple[dict[str, float], ...]:
    """Compare predicted with observed shares in bins of equal width.

    Args:
        y_N: labels, 0 or 1.
        p_N: probabilities.
        patient_N: the patient of each slice; intervals resample patients.

    Returns:
        A mapping for each bin that holds slices: ``predicted`` (their mean), ``observed``, ``low`` and
        ``high`` (95 % patient bootstrap) and ``n`` slices.
    """
    bin_N = np.minimum((p_N * N_BINS).astype(np.int64), N_BINS - 1)
    patient_code_N, patients = pd.factorize(patient_N)
    points = []
    for b in np.unique(bin_N):
        inside = bin_N == b
        codes = patient_code_N[inside]
        sums_PC = np.stack(
            [
                np.bincount(codes, weights=y_N[inside], minlength=len(patients)),
                np.bincount(codes, minlength=len(patients)).astype(np.float64),
            ],
            axis=1,
        )
        with np.errstate(invalid="ignore"):  # a draw can leave a bin empty
            draws_D = resampled_means(sums_PC, len(patients), N_DRAWS // 4, SEED)[:, 0]
        low, high = np.nanquantile(draws_D, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
        points.append(
            {
                "predicted": float(p_N[inside].mean()),
                "observed": float(y_N[inside].mean()),
                "low": float(low),
                "high": float(high),
                "n": int(inside.sum()),
            }
        )
    return tuple(points)
