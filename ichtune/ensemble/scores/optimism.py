"""What choosing the best of many candidates adds to its score by luck, and the score without it.

Dimension key: N slices, C candidates, P patients, D draws, F folds.
"""

from dataclasses import dataclass

import numpy as np

from ichtune.ensemble.scores.bootstrap import N_DRAWS, SEED, Interval, loss_intervals, patient_sums
from ichtune.ensemble.scores.patient_draws import patient_draws
from ichtune.errors import DataError

#: Groups of patients, and how often they are dealt anew, for the second estimate.
N_FOLDS, N_DEALS = 5, 100
#: Patients, below which nothing can be left out.
MIN_PATIENTS = 2


@dataclass(frozen=True)
class Optimism:
    """The one of C candidates that was chosen by their cross-fitted losses, and how much of its lead is luck.

    Attributes:
        chosen: which candidate: that with the lowest loss, of equals the first, unless a rule says otherwise.
        loss: its loss as it is, nats: too low, since it was chosen for being low.
        estimate: nats to add: choices made on drawn patients, judged on the patients that were not drawn. Right where
            all candidates are alike, a little too large where some differ.
        corrected: ``loss`` plus ``estimate``, with the patient-bootstrap interval of a loss moved along.
        efron: Efron's optimism, nats: the choice's loss on all patients minus that on the drawn ones. Too small by up
            to three tenths where all candidates are alike.
        tibshirani: that of Tibshirani and Tibshirani, nats: what each fold's own best one gains on it. Often too large.
        same_share: share of the draws that choose the same candidate.
        n_candidates: C.
    """

    chosen: int
    loss: float
    estimate: float
    corrected: Interval
    efron: float
    tibshirani: float
    same_share: float
    n_candidates: int


def expected_optimism(
    loss_NC: np.ndarray, patient_N: np.ndarray, n_draws: int = N_DRAWS, tolerance: float = 0.0
) -> Optimism:
    """Estimate the optimism of choosing the candidate with the lowest mean loss, or an earlier one nearly as low.

    The losses must each be honest for a candidate that was fixed beforehand: out-of-fold or cross-fitted.

    Args:
        loss_NC: loss of each slice and candidate (N, C).
        patient_N: the patient of each slice.
        n_draws: bootstrap draws.
        tolerance: the first candidate is chosen that is no more than so many standard errors, of the paired difference,
            behind the best one.

    Raises:
        DataError: no candidate, shapes that differ, or fewer than two patients.

    Source: Efron, Estimating the error rate of a prediction rule, JASA 78, 1983; Efron and Tibshirani, Improvements on
        cross-validation: the .632+ bootstrap, JASA 92, 1997 (leaving drawn patients out); Tibshirani and Tibshirani, A
        bias correction for the minimum error rate in cross-validation, Annals of Applied Statistics 3, 2009.
    """
    if loss_NC.ndim != 2 or loss_NC.shape[1] == 0:
        raise DataError(f"losses must have shape (N, C) with C at least 1, got {loss_NC.shape}")
    sums_PC = patient_sums(loss_NC, patient_N)
    if len(sums_PC) < MIN_PATIENTS:
        raise DataError(f"the optimism of a choice needs at least {MIN_PATIENTS} patients, got {len(sums_PC)}")
    mean_C = _means(sums_PC.sum(axis=0)[None])[0]
    allowed_CC = tolerance * _standard_errors(sums_PC, mean_C)
    chosen = int(_choose(mean_C[None], allowed_CC)[0])
    times_DP = patient_draws(len(sums_PC), n_draws).T
    drawn_DC = _means(times_DP.astype(np.float64) @ sums_PC)
    is_whole_D = (times_DP > 0).all(axis=1)
    left_out_DC = _means((times_DP[~is_whole_D] == 0).astype(np.float64) @ sums_PC)
    best_D = _choose(drawn_DC, allowed_CC)
    estimate = float(np.mean(_at(left_out_DC, best_D[~is_whole_D]) - left_out_DC[:, chosen]))
    (interval,) = loss_intervals(loss_NC[:, chosen], patient_N, n_draws)
    moved = (interval.estimate + estimate, interval.low + estimate, interval.high + estimate)
    return Optimism(
        chosen=chosen,
        loss=float(mean_C[chosen]),
        estimate=estimate,
        corrected=Interval(*moved),
        efron=float(np.mean(mean_C[best_D] - _at(drawn_DC, best_D))),
        tibshirani=_of_folds(sums_PC, chosen, allowed_CC),
        same_share=float(np.mean(best_D == chosen)),
        n_candidates=loss_NC.shape[1],
    )


def _standard_errors(sums_PC: np.ndarray, mean_C: np.ndarray) -> np.ndarray:
    """Return the standard error of each difference of two candidates' mean losses (C, C), patients being drawn."""
    n_P = sums_PC[:, -1]
    residual_PC = (sums_PC[:, :-1] - n_P[:, None] * mean_C) / n_P.sum()
    product_CC = residual_PC.T @ residual_PC
    square_C = product_CC.diagonal()
    variance_CC = np.maximum(square_C[:, None] + square_C[None] - 2.0 * product_CC, 0.0)
    return np.asarray(np.sqrt(len(sums_PC) / (len(sums_PC) - 1) * variance_CC))


def _choose(mean_DC: np.ndarray, allowed_CC: np.ndarray) -> np.ndarray:
    """Return the first candidate of each row that is behind the row's best one by no more than is allowed."""
    best_D = mean_DC.argmin(axis=1)
    behind_DC = mean_DC - _at(mean_DC, best_D)[:, None]
    return np.asarray((behind_DC <= allowed_CC[:, best_D].T).argmax(axis=1))


def _of_folds(sums_PC: np.ndarray, chosen: int, allowed_CC: np.ndarray) -> float:
    """Return the mean, over folds dealt many times, of the chosen one's loss minus that of the fold's own choice."""
    rng = np.random.default_rng(SEED)
    n_patients, n_folds = len(sums_PC), min(N_FOLDS, len(sums_PC))
    gains = []
    for _ in range(N_DEALS):
        is_in_FP = np.arange(n_folds)[:, None] == rng.permutation(n_patients) % n_folds
        loss_FC = _means(is_in_FP.astype(np.float64) @ sums_PC)
        gains.append(float(np.mean(loss_FC[:, chosen] - _at(loss_FC, _choose(loss_FC, allowed_CC)))))
    return float(np.mean(gains))


def _means(sums_DC: np.ndarray) -> np.ndarray:
    return sums_DC[:, :-1] / sums_DC[:, -1:]


def _at(loss_DC: np.ndarray, candidate_D: np.ndarray) -> np.ndarray:
    return loss_DC[np.arange(len(loss_DC)), candidate_D]
