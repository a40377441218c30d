"""Expected calibration error: how far predicted probabilities lie from what happened, bin by bin.

Dimension key: N slices (or entries of several labels), P patients, B bins, D draws.
"""

from dataclasses import dataclass

import numpy as np

from ichtune.ensemble.scores.bootstrap import LEVEL
from ichtune.ensemble.scores.patient_draws import drawn_sums

N_BINS = 20


@dataclass(frozen=True)
class CalibrationError:
    """An expected calibration error, in probability, with what chance alone would give.

    Attributes:
        estimate: weighted mean over bins of |mean probability - rate|.
        low: lower end of its interval, patients being drawn.
        high: upper end.
        by_chance: what a perfectly calibrated model would score on as many patients, on average: absolute values never
            cancel. An estimate near to it is no sign of a fault.
    """

    estimate: float
    low: float
    high: float
    by_chance: float


def equal_count_bins(p_N: np.ndarray, n_bins: int = N_BINS) -> np.ndarray:
    """Put slices into bins that hold about equally many, equal probabilities always in one bin.

    Bins of equal width would put nearly every slice of a rare label into the first.

    Returns:
        The number of each slice's bin, int64 (N,), from 0; fewer than ``n_bins`` where many are equal.
    """
    edges = np.unique(np.quantile(p_N, np.linspace(0.0, 1.0, n_bins + 1)[1:-1], method="higher"))
    return np.searchsorted(edges, p_N, side="right")


def calibration_error(
    excess_N: np.ndarray, bin_N: np.ndarray, patient_N: np.ndarray, times_PD: np.ndarray, weight_N: np.ndarray | None
) -> CalibrationError:
    """Estimate the error, its interval and the part of chance.

    Drawing patients again adds noise to noise, which pushes the draws above the estimate. The interval is therefore the
    basic one: as far below the estimate as the draws lie above it, and not below 0.

    Args:
        excess_N: label minus probability.
        bin_N: number of each slice's bin; fixed for all draws.
        patient_N: number of each slice's patient, from 0 to P - 1.
        times_PD: how often each patient was drawn, (P, D).
        weight_N: weight of each slice; None weighs all alike.

    Source: Naeini, Cooper and Hauskrecht, AAAI 2015; Davison and Hinkley, Bootstrap Methods and their Application,
        1997, section 5.2 (basic intervals).
    """
    n_patients, n_bins = len(times_PD), int(bin_N.max()) + 1
    weights = np.ones(len(excess_N)) if weight_N is None else weight_N
    cells = np.bincount(patient_N * n_bins + bin_N, weights=weights * excess_N, minlength=n_patients * n_bins)
    excess_PB = cells.reshape(n_patients, n_bins)
    weight_P = np.bincount(patient_N, weights=weights, minlength=n_patients)
    total_B = excess_PB.sum(axis=0)
    estimate = float(np.abs(total_B).sum() / weight_P.sum())
    drawn = drawn_sums(times_PD, np.column_stack([excess_PB, weight_P]))
    drawn_DB, weight_D = drawn[:, :-1], drawn[:, -1]
    errors_D = np.abs(drawn_DB).sum(axis=1) / weight_D
    noise_DB = drawn_DB - total_B * (weight_D / weight_P.sum())[:, None]
    by_chance = float((np.abs(noise_DB).sum(axis=1) / weight_D).mean())
    tail = (1.0 - LEVEL) / 2.0
    below, above = np.quantile(errors_D, [tail, 1.0 - tail])
    low, high = max(2.0 * estimate - float(above), 0.0), max(2.0 * estimate - float(below), 0.0)
    return CalibrationError(estimate, low, high, by_chance)
