"""Patients drawn with replacement, as counts: what every bootstrap score of rankings and bins is weighed by.

Dimension key: N slices, P patients, D draws.
"""

import numpy as np
import pandas as pd

from ichtune.ensemble.scores.bootstrap import BLOCK, LEVEL, N_DRAWS, SEED, Interval
from ichtune.errors import DataError


def patient_codes(patient_N: np.ndarray) -> tuple[np.ndarray, int]:
    """Number the patients from 0 in the order of their names.

    Args:
        patient_N: the patient of each slice.

    Returns:
        The number of each slice's patient, int64 (N,), and how many patients there are.

    Raises:
        DataError: no slice, or a slice without a patient.
    """
    codes_N, names = pd.factorize(np.asarray(patient_N), sort=True)
    if len(codes_N) == 0:
        raise DataError("a score needs at least one slice, got none; check that labels and ids overlap")
    if codes_N.min() < 0:
        raise DataError(
            f"each slice needs a patient, got none at row {int(codes_N.argmin())}; prepare the slices again"
        )
    return codes_N.astype(np.int64), len(names)


def patient_draws(n_patients: int, n_draws: int = N_DRAWS, seed: int = SEED) -> np.ndarray:
    """Draw as many patients as there are, with replacement, many times.

    The draws are those of ``ichtune.ensemble.scores.bootstrap``: all intervals of a report rest on the same patients.

    Args:
        n_patients: P.
        n_draws: D.
        seed: of the draws.

    Returns:
        How often each patient was drawn, (P, D), in the smallest unsigned integers that hold it.
    """
    rng = np.random.default_rng(seed)
    times_DP = np.empty((n_draws, n_patients), dtype=np.min_scalar_type(n_patients))
    step = max(1, BLOCK // n_patients)
    for start in range(0, n_draws, step):
        n_block = min(step, n_draws - start)
        drawn = rng.integers(0, n_patients, size=(n_block, n_patients))
        drawn += np.arange(n_block)[:, None] * n_patients
        times = np.bincount(drawn.ravel(), minlength=n_block * n_patients)
        times_DP[start : start + n_block] = times.reshape(n_block, n_patients)
    return np.ascontiguousarray(times_DP.T)


def drawn_sums(times_PD: np.ndarray, values_PC: np.ndarray) -> np.ndarray:
    """Sum values over the drawn patients.

    Args:
        times_PD: how often each patient was drawn.
        values_PC: values of each patient, columns by columns.

    Returns:
        float64 (D, C).
    """
    n_patients, n_draws = times_PD.shape
    step = max(1, BLOCK // n_patients)
    blocks = [times_PD[:, start : start + step].T.astype(np.float64) @ values_PC for start in range(0, n_draws, step)]
    return np.concatenate(blocks)


def percentile_interval(estimate: float, draws_D: np.ndarray) -> Interval:
    """Return the percentile interval of draws, those that are no number left out.

    Raises:
        DataError: no draw is a number.
    """
    kept = draws_D[np.isfinite(draws_D)]
    if len(kept) == 0:
        raise DataError(f"an interval needs a draw that is a number, got none among {len(draws_D)}")
    tail = (1.0 - LEVEL) / 2.0
    low, high = np.quantile(kept, [tail, 1.0 - tail])
    return Interval(float(estimate), float(low), float(high))
