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
        low: lower end of its interval, patients being drawn; 0 where chance alone could give the estimate.
        high: upper end, not below the estimate.
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

    Draws of patients tell the noise of each bin. Chance adds to the estimate at most the sum of the noise's absolute
    values: the lower end lies a high quantile of that sum below the estimate, and at 0 if chance reaches so far. Chance
    takes off at most what it does where every bin keeps its sign: the upper end lies a quantile of that signed sum
    above the estimate. Where there are patients enough in each bin to tell its noise, the truth is held at least as
    often as ``LEVEL`` says, be it 0 or far from it; for errors of the size of chance the interval is too wide.

    A bin without a positive hardly varies between draws, which makes a rare label look sure. The noise of a bin is
    therefore at least that of slices that err each on their own.

    Args:
        excess_N: label minus probability.
        bin_N: number of each slice's bin; fixed for all draws.
        patient_N: number of each slice's patient, from 0 to P - 1.
        times_PD: how often each patient was drawn, (P, D).
        weight_N: weight of each slice; None weighs all alike.

    Source: Naeini, Cooper and Hauskrecht, AAAI 2015; Davison and Hinkley, Bootstrap Methods and their Application,
        1997, section 5.2 (basic intervals). The two bounds are the triangle inequality and convexity.
    """
    n_patients, n_bins = len(times_PD), int(bin_N.max()) + 1
    weights = np.ones(len(excess_N)) if weight_N is None else weight_N
    cells = np.bincount(patient_N * n_bins + bin_N, weights=weights * excess_N, minlength=n_patients * n_bins)
    excess_PB = cells.reshape(n_patients, n_bins)
    weight_P = np.bincount(patient_N, weights=weights, minlength=n_patients)
    mean_B = excess_PB.sum(axis=0) / weight_P.sum()
    estimate = float(np.abs(mean_B).sum())
    drawn = drawn_sums(times_PD, np.column_stack([excess_PB, weight_P]))
    variance_N = np.abs(excess_N) * (1.0 - np.abs(excess_N))  # p (1 - p), whichever the label
    least_B = np.sqrt(np.bincount(bin_N, weights=weights**2 * variance_N, minlength=n_bins)) / weight_P.sum()
    noise_DB = _at_least(drawn[:, :-1] / drawn[:, -1:] - mean_B, least_B)
    size_D = np.abs(noise_DB).sum(axis=1)
    tail = (1.0 - LEVEL) / 2.0
    below = float(np.quantile(size_D, 1.0 - tail))
    above = -float(np.quantile(noise_DB @ np.where(mean_B < 0, -1.0, 1.0), tail))
    return CalibrationError(estimate, max(estimate - below, 0.0), estimate + max(above, 0.0), float(size_D.mean()))


def _at_least(noise_DB: np.ndarray, least_B: np.ndarray) -> np.ndarray:
    """Stretch the noise of bins that vary less than ``least_B``; a bin that does not vary at all stays."""
    error_B = noise_DB.std(axis=0)
    return noise_DB * np.maximum(1.0, np.divide(least_B, error_B, out=np.ones_like(error_B), where=error_B > 0))
