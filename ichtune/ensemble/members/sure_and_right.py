"""Is a member sure and right where the others are not, more often than its own predictions elsewhere imply?

A member that was told some labels is very sure about them, also where the other members are unsure or wrong, and it is
right. A better member is surer than the others too, but its log odds follow theirs with a spread of its own, and what
its distance from the others is worth shows in all its predictions. So for each label the usual log odds given those of
the others are measured with their spread; how often the truth lies where the member points is learnt from predictions
within three spreads; and those that claim something from further away are judged by that, at the most as if they were
four spreads away.

Each patient gives an e-value: the likelihood of what is true if the member was told, over that if it was not, averaged
over the patient's claims. Its mean is at most one for an honest member whatever slices of a patient have in common, and
so is that of the product over patients: it exceeds 1 / a with probability at most a.

Source: Vovk and Wang, E-values: calibration, combination and applications, Annals of Statistics 49, 2021 (averages and
products of e-values; Markov's inequality).

Dimension key: M members, R slices, L labels, B bins, C claims of one member, F features.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from ichtune.ensemble.blenders.logits import from_logits

#: Log odds are cut off here: beyond one in a thousand they say more of clipping and rounding than of the slice.
MAX_LOGIT = 7.0
#: In spreads: up to where a member's own worth is learnt, and from where on a claim is far from the usual.
NEAR, FAR = 3.0, 4.0
#: The least spread, in log odds, and the least number of slices in a bin.
LEAST_SPREAD, LEAST_IN_BIN = 0.25, 30
#: How often a member is right that was told, and what an honest one is given beyond what it shows, in log odds.
TOLD, LEEWAY = 0.99, 0.25
#: However surely a claim seems wrong, it is taken to be right this often.
LEAST_RIGHT = 0.01
#: Where more of the claims are wrong, nobody was told.
MOST_WRONG = 0.1
#: Sets of claims that are looked at: at least so sure (log odds), of slices at least so many of whose labels stand out.
LOOKS = ((2.0, 0), (3.0, 0), (4.0, 0), (5.0, 0), (6.5, 0), (2.0, 5), (5.0, 5))
#: In spreads: from where on a label stands out when those of a slice are counted.
STANDS_OUT = 2.5
#: Strength of the penalty on intercept, others' log odds, own distance and the bend of the others' log odds.
_PENALTY = (1e-3, 1e-2, 1e-1, 1e-1)


@dataclass(frozen=True)
class SureAndRight:
    """How surprising a member's sureness is.

    Attributes:
        log_odds: that it was told some labels, against an honest member, nats; 0 or below says nothing.
        n_patients: with claims in the most surprising set.
        rows: slices with the least likely right claims, most surprising first.
    """

    log_odds: float
    n_patients: int
    rows: np.ndarray


def medians_of_others(z_MRL: np.ndarray) -> Iterator[np.ndarray]:
    """Yield for each member the median log odds of the others, float64 (R, L); of fewer than four their mean.

    A median does not follow a minority of members that were told the same labels.
    """
    n_others = len(z_MRL) - 1
    if n_others < 4:
        total = z_MRL.sum(axis=0, dtype=np.float64)
        for z_RL in z_MRL:
            yield (total - z_RL) / n_others
        return
    low, high = (n_others - 1) // 2, n_others // 2
    ranked = np.sort(z_MRL, axis=0)[low : high + 2]
    for z_RL in z_MRL:  # taking one out moves those above it down by a place
        middle = [np.where(z_RL <= ranked[k], ranked[k + 1], ranked[k]) for k in range(high - low + 1)]
        yield np.asarray(np.mean(middle, axis=0, dtype=np.float64))


def sure_and_right(z_RL: np.ndarray, others_RL: np.ndarray, y_RL: np.ndarray, patient_R: np.ndarray) -> SureAndRight:
    """Weigh one member's claims; see the module.

    Args:
        z_RL: its log odds, float64, cut off at ``MAX_LOGIT``.
        others_RL: those of the others together.
        y_RL: labels, 0 or 1.
        patient_R: number of each slice's patient, from 0.
    """
    distance_RL, right_RL = np.zeros_like(z_RL), np.ones_like(z_RL)
    for label in range(z_RL.shape[1]):
        distance_RL[:, label], right_RL[:, label] = _claims(z_RL[:, label], others_RL[:, label], y_RL[:, label])
    is_right_RL = (z_RL > 0) == (y_RL > 0.5)
    n_out_R = (distance_RL > STANDS_OUT).sum(axis=1)
    open_RL = (distance_RL > FAR) & (right_RL < TOLD)
    looks = [
        _weigh(open_RL & (np.abs(z_RL) >= least) & (n_out_R >= n_out)[:, None], right_RL, is_right_RL, patient_R)
        for least, n_out in LOOKS
    ]
    log_odds = np.array([look.log_odds for look in looks])
    best = looks[int(log_odds.argmax())]
    # The mean of e-values is one, so that looking several times costs no more than its logarithm.
    together = float(np.logaddexp.reduce(log_odds) - np.log(len(looks)))
    return SureAndRight(together, best.n_patients, best.rows)


def _claims(z_R: np.ndarray, others_R: np.ndarray, y_R: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return how far predictions of one label lie from the usual, towards what they claim, and how often that is so.

    Returns:
        Distances in spreads, and shares that should be right, 0 to 1.
    """
    usual_R, spread_R = _usual(z_R, others_R)
    away_R = (z_R - usual_R) / spread_R
    sign_R = np.where(z_R > 0, 1.0, -1.0)
    distance_R = away_R * sign_R
    if not (distance_R > FAR).any():
        return distance_R, np.ones_like(z_R)
    bend_R = np.maximum(others_R - np.median(others_R), 0.0)
    x_RF = np.stack([np.ones_like(z_R), others_R, np.clip(away_R, -FAR, FAR) * spread_R, bend_R], axis=1)
    near_R = np.abs(away_R) <= NEAR
    coefficient_F = _logistic(x_RF[near_R], y_R[near_R])
    right_R = from_logits(sign_R * (x_RF @ coefficient_F) + LEEWAY)
    return distance_R, np.clip(right_R, LEAST_RIGHT, 1.0)


def _usual(z_R: np.ndarray, others_R: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the member's usual log odds given the others', and their spread: medians in bins of the others' log odds.

    Bins grow finer towards both ends, by halves, for that is where positives of a rare label lie.
    """
    n_rows = len(z_R)
    finest = max(1.0, np.log2(n_rows / LEAST_IN_BIN)) if n_rows else 1.0
    tail = 2.0 ** -np.arange(1.5, finest + 1e-9, 0.5)[::-1]
    cuts = np.unique((np.concatenate([[0.0], tail, [0.5], 1.0 - tail[::-1], [1.0]]) * n_rows).astype(int))
    order = np.argsort(others_R, kind="stable")
    bins = [order[start:stop] for start, stop in pairwise(cuts)]
    middle_B = np.array([np.median(others_R[rows]) for rows in bins])
    median_B = np.array([np.median(z_R[rows]) for rows in bins])
    usual_R = np.interp(others_R, middle_B, median_B)
    if len(bins) > 2:
        for end, inner, outside in ((0, 2, others_R < middle_B[0]), (-1, -3, others_R > middle_B[-1])):
            run = max(abs(middle_B[end] - middle_B[inner]), 1e-6)
            slope = np.clip(abs(median_B[end] - median_B[inner]) / run, 0.0, 2.0)
            usual_R[outside] += slope * (others_R[outside] - middle_B[end])
    away_R = np.abs(z_R - usual_R)
    spread_B = np.array([1.4826 * np.median(away_R[rows]) for rows in bins])  # the standard deviation of a normal
    return usual_R, np.maximum(np.interp(others_R, middle_B, spread_B), LEAST_SPREAD)


def _logistic(x_RF: np.ndarray, y_R: np.ndarray) -> np.ndarray:
    """Return the coefficients (F,) of a logistic regression with a weak penalty, by Newton's method."""
    penalty_F = np.array(_PENALTY)
    coefficient_F = np.zeros(x_RF.shape[1])
    for _ in range(25):
        p_R = from_logits(x_RF @ coefficient_F)
        hessian = (x_RF * (p_R * (1.0 - p_R))[:, None]).T @ x_RF + np.diag(penalty_F)
        step_F = np.linalg.solve(hessian, x_RF.T @ (y_R - p_R) - penalty_F * coefficient_F)
        coefficient_F += step_F
        if np.abs(step_F).max() < 1e-6:
            break
    return coefficient_F


def _weigh(chosen_RL: np.ndarray, right_RL: np.ndarray, is_right_RL: np.ndarray, patient_R: np.ndarray) -> SureAndRight:
    """Return the evidence of the chosen claims; less certain ones weigh more in the mean of a patient."""
    row_C, label_C = np.nonzero(chosen_RL)
    is_right_C, right_C = is_right_RL[row_C, label_C], right_RL[row_C, label_C]
    if len(row_C) == 0 or (~is_right_C).sum() > MOST_WRONG * len(row_C):
        return SureAndRight(0.0, 0, row_C[:0])
    e_value_C = np.where(is_right_C, TOLD / right_C, (1.0 - TOLD) / (1.0 - right_C))
    weight_C = 1.0 - right_C
    total_P = np.bincount(patient_R[row_C], weights=weight_C * e_value_C)
    weight_P = np.bincount(patient_R[row_C], weights=weight_C)
    has = weight_P > 0
    most_surprising = np.argsort(np.where(is_right_C, right_C, np.inf), kind="stable")
    rows = row_C[most_surprising]
    _, first = np.unique(rows, return_index=True)
    return SureAndRight(float(np.log(total_P[has] / weight_P[has]).sum()), int(has.sum()), rows[np.sort(first)])
