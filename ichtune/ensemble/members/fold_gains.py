"""Does a member predict one fold better than the others, while the other members do not? Then that fold leaked.

Losses are compared with those of the other members on the same slices, so that an easy fold is nobody's merit, and
patients are what varies.

Dimension key: M members, N slices, K folds, P patients.
"""

import math
from dataclasses import dataclass

import numpy as np

from ichtune.metrics import slice_losses

#: Chance that a panel of honest members is suspected of a fold; shared by members and folds.
FALSE_ALARMS = 0.001
#: A fold that is better by less than this share of a member's loss is the luck of one training run.
LEAST_GAIN = 0.2


@dataclass(frozen=True)
class FoldGain:
    """One member and the fold that it predicts too well; ``log_odds`` is -log of the chance of it, nats."""

    member: int
    fold: int
    log_odds: float
    n_patients: int


def find_fold_gains(
    p_MNL: np.ndarray, y_NL: np.ndarray, patient_N: np.ndarray, fold_N: np.ndarray
) -> tuple[FoldGain, ...]:
    """Return members and folds whose loss is too good, beside the member's other folds and beside the other members.

    Args:
        p_MNL: out-of-fold probabilities (M, N, L).
        y_NL: labels (N, L).
        patient_N: number of each slice's patient, from 0.
        fold_N: the fold of each slice; folds hold whole patients.
    """
    folds, fold_N = np.unique(fold_N, return_inverse=True)
    n_P = np.bincount(patient_N).astype(np.float64)
    fold_P = np.zeros(len(n_P), dtype=np.int64)
    fold_P[patient_N] = fold_N
    loss_MP = np.stack([np.bincount(patient_N, weights=slice_losses(y_NL, p_NL)) for p_NL in p_MNL])
    n_members, n_folds = len(loss_MP), len(folds)
    if n_folds < 2:
        return ()
    others_MP = (loss_MP.sum(axis=0) - loss_MP) / max(n_members - 1, 1)
    enough = FALSE_ALARMS / (n_members * n_folds)
    gains = []
    for m in range(n_members):
        own_K, _ = _means(loss_MP[m], n_P, fold_P, n_folds)
        beside_K, error_K = _means(loss_MP[m] - others_MP[m], n_P, fold_P, n_folds)
        for fold in range(n_folds):
            chance = _chance(own_K, beside_K, error_K, fold)
            if chance < enough:
                n_patients = int((fold_P == fold).sum())
                gains.append(FoldGain(m, int(folds[fold]), -math.log(max(chance, 1e-300)), n_patients))
    return tuple(gains)


def _means(loss_P: np.ndarray, n_P: np.ndarray, fold_P: np.ndarray, n_folds: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the mean over slices in each fold (K,), and its standard error, patients being drawn.

    Source: Cochran, Sampling Techniques, 3rd edition, section 6.4 (a ratio of sums over clusters).
    """
    n_K = np.bincount(fold_P, weights=n_P, minlength=n_folds)
    mean_K = np.bincount(fold_P, weights=loss_P, minlength=n_folds) / n_K
    residual_P = loss_P - mean_K[fold_P] * n_P
    patients_K = np.bincount(fold_P, minlength=n_folds)
    inflation_K = patients_K / np.maximum(patients_K - 1, 1)
    return mean_K, np.sqrt(inflation_K * np.bincount(fold_P, weights=residual_P**2, minlength=n_folds)) / n_K


def _chance(own_K: np.ndarray, beside_K: np.ndarray, error_K: np.ndarray, fold: int) -> float:
    """Return the chance of such a gain over the member's usual fold: the lower median of its others.

    A member beside one that leaked looks worse in that fold and so better in the others; it is the leak only where the
    member's own loss is low there.
    """
    others = np.delete(np.arange(len(own_K)), fold)
    usual = others[np.argsort(beside_K[others], kind="stable")[(len(others) - 1) // 2]]
    gain = beside_K[usual] - beside_K[fold]
    own_gain = np.median(own_K[others]) - own_K[fold]
    if gain < LEAST_GAIN * np.median(own_K[others]) or own_gain < gain / 2:
        return 1.0
    error = math.hypot(error_K[usual], error_K[fold])
    return 0.0 if error == 0 else 0.5 * math.erfc(gain / error / math.sqrt(2.0))
