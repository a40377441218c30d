"""Patient bootstrap: how far a mean loss would move with other patients.

Slices of one patient err together, so patients are drawn, never slices. Losses are summed a patient first; a
draw then costs one row of a matrix product, for every candidate at once.

Dimension key: N slices, C candidates, P patients, D draws.
"""

from dataclasses import dataclass

import numpy as np

from ichtune.errors import DataError

N_DRAWS = 2000
LEVEL = 0.95
SEED = 7
#: Elements of one block of draws; bounds memory, not the result.
BLOCK = 4_000_000


@dataclass(frozen=True)
class Interval:
    """An estimate and the ends of its interval, in the unit of the estimate."""

    estimate: float
    low: float
    high: float


def loss_intervals(loss_NC: np.ndarray, patient_N: np.ndarray, n_draws: int = N_DRAWS) -> list[Interval]:
    """Percentile interval of each candidate's mean loss over slices.

    Args:
        loss_NC: loss of each slice and candidate (N, C), or (N,) for one candidate.
        patient_N: the patient of each slice.
        n_draws: bootstrap draws.

    Returns:
        C intervals at the level ``LEVEL``.

    Source: Davison and Hinkley, Bootstrap Methods and their Application, 1997, sections 3.8 and 5.3.
    """
    sums = patient_sums(loss_NC, patient_N)
    draws_DC = resampled_means(sums, len(sums), n_draws, SEED)
    return _intervals(_means(sums), draws_DC)


def difference_interval(
    loss_a_N: np.ndarray, loss_b_N: np.ndarray, patient_N: np.ndarray, n_draws: int = N_DRAWS
) -> Interval:
    """Paired interval of a mean loss minus another one, both judged on the same drawn patients."""
    return loss_intervals(np.asarray(loss_a_N) - np.asarray(loss_b_N), patient_N, n_draws)[0]


def prediction_intervals(
    loss_NC: np.ndarray, patient_N: np.ndarray, n_new_patients: int, n_draws: int = N_DRAWS
) -> list[Interval]:
    """Where each candidate's mean loss on a NEW set of patients should lie, patients being drawn alike.

    Two things vary: the estimate, which comes from P patients, and the new set of ``n_new_patients``. Each
    draw resamples both; the spread of their difference is laid around the estimate.

    Args:
        loss_NC: out-of-fold loss of each slice and candidate (N, C), or (N,) for one candidate.
        patient_N: the patient of each slice.
        n_new_patients: patients of the new set.
        n_draws: bootstrap draws.

    Returns:
        C intervals at the level ``LEVEL``, not below 0.

    Raises:
        DataError: no slices, or no new patients.
    """
    if n_new_patients < 1:
        raise DataError(f"a new set needs at least one patient, got {n_new_patients}")
    sums = patient_sums(loss_NC, patient_N)
    estimate_C = _means(sums)
    estimates_DC = resampled_means(sums, len(sums), n_draws, SEED)
    new_DC = resampled_means(sums, n_new_patients, n_draws, SEED + 1)
    return _intervals(estimate_C, np.maximum(estimate_C + new_DC - estimates_DC, 0.0))


def resampled_means(sums_PC: np.ndarray, n_patients: int, n_draws: int, seed: int) -> np.ndarray:
    """Mean loss of each candidate over ``n_patients`` patients drawn with replacement, ``n_draws`` times.

    Args:
        sums_PC: a row a patient: summed losses of each candidate, and the number of slices in the last
            column.
        n_patients: patients a draw.
        n_draws: D.
        seed: seed of the draws.

    Returns:
        float64 (D, C).
    """
    rng = np.random.default_rng(seed)
    n_rows = len(sums_PC)
    totals = np.empty((n_draws, sums_PC.shape[1]))
    step = max(1, BLOCK // max(n_rows, n_patients))
    for start in range(0, n_draws, step):
        n_block = min(step, n_draws - start)
        drawn = rng.integers(0, n_rows, size=(n_block, n_patients))
        drawn += np.arange(n_block)[:, None] * n_rows
        times_drawn = np.bincount(drawn.ravel(), minlength=n_block * n_rows).reshape(n_block, n_rows)
        totals[start : start + n_block] = times_drawn.astype(np.float64) @ sums_PC
    return totals[:, :-1] / totals[:, -1:]


def patient_sums(loss_NC: np.ndarray, patient_N: np.ndarray) -> np.ndarray:
    """Sum losses by patient: float64 (P, C + 1), the number of slices in the last column, patients in order of name.

    Raises:
        DataError: not one patient for each slice, or no slices.
    """
    losses = np.asarray(loss_NC, dtype=np.float64)
    losses = losses[:, None] if losses.ndim == 1 else losses
    if len(losses) == 0 or len(losses) != len(patient_N):
        raise DataError(
            f"a bootstrap needs one patient for each slice and at least one slice, got {len(losses)} losses "
            f"and {len(patient_N)} patients"
        )
    codes_N = np.unique(np.asarray(patient_N), return_inverse=True)[1]
    columns = [np.bincount(codes_N, weights=losses[:, c]) for c in range(losses.shape[1])]
    return np.stack([*columns, np.bincount(codes_N).astype(np.float64)], axis=1)


def _means(sums_PC: np.ndarray) -> np.ndarray:
    totals = sums_PC.sum(axis=0)
    return totals[:-1] / totals[-1]


def _intervals(estimate_C: np.ndarray, draws_DC: np.ndarray) -> list[Interval]:
    tail = (1.0 - LEVEL) / 2.0
    low_C, high_C = np.quantile(draws_DC, [tail, 1.0 - tail], axis=0)
    return [Interval(float(e), float(a), float(b)) for e, a, b in zip(estimate_C, low_C, high_C, strict=True)]
