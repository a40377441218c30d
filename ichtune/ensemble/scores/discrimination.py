"""How well probabilities rank positives above negatives, for many weighings of the same slices at once.

A ranking changes only at the scores of positives: negatives between the same two of them are alike for every score
here. So each label is sorted once into a sparse table of places by patients, and a bootstrap draw costs one column of
its product with the draws. That is exact. Where there are many positives, neighbouring places are joined first
(``on_places``), at an error that is known.

Dimension key: N slices, P groups (patients, or the slices themselves), K distinct scores of positives, D weighings.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from scipy import sparse

from ichtune.errors import DataError

#: The specificities at which sensitivity is read, and the sensitivities at which specificity is.
OPERATING_POINTS = (0.9, 0.95)
AUC, AVERAGE_PRECISION = "auc", "average_precision"
#: Names of the scores, each between 0 and 1, more being better.
RANK_SCORES: tuple[str, ...] = (
    AUC,
    AVERAGE_PRECISION,
    *(f"sensitivity_at_specificity_{point:g}" for point in OPERATING_POINTS),
    *(f"specificity_at_sensitivity_{point:g}" for point in OPERATING_POINTS),
)
#: Elements of one block of weighings, and its longest side; they bound memory and keep it near, not the result.
BLOCK, LONGEST = 12_000_000, 64
#: Rounding allowed, as a share, where a rate must reach an operating point.
SLACK = 1e-9


@dataclass(frozen=True)
class RankedLabel:
    """The slices of one label in descending order of score, counted by place and group.

    Attributes:
        positives_KP: positives that have the k-th highest score of positives, (K, P).
        between_KP: negatives above the k-th and below the one before; the last row holds those below all, (K + 1, P).
        ties_KP: negatives that are equal to the k-th, (K, P).
    """

    positives_KP: sparse.csr_array
    between_KP: sparse.csr_array
    ties_KP: sparse.csr_array

    @property
    def missing(self) -> str | None:
        """Which kind of slice there is none of, as a reason for people; None where both are there."""
        if self.positives_KP.shape[0] == 0:
            return "no positive"
        return "no negative" if self.between_KP.nnz + self.ties_KP.nnz == 0 else None


def rank_label(y_N: np.ndarray, p_N: np.ndarray, group_N: np.ndarray, n_groups: int) -> RankedLabel:
    """Sort one label once.

    Args:
        y_N: labels, 0 or 1.
        p_N: scores; the higher, the more likely positive.
        group_N: number of each slice's group, from 0.
        n_groups: P.

    Raises:
        DataError: labels other than 0 and 1, or a score that is not a number.
    """
    is_positive = y_N == 1
    if not np.all(is_positive | (y_N == 0)):
        raise DataError("a ranking needs labels of 0 or 1, got others; soft labels have a log loss, but no ranking")
    if np.isnan(p_N).any():
        raise DataError("a ranking needs scores that are numbers, got NaN; score labelled, predicted slices only")
    ascending, place = np.unique(p_N[is_positive], return_inverse=True)
    n_places = len(ascending)
    p_negative, group_negative = p_N[~is_positive], group_N[~is_positive]
    n_below = np.searchsorted(ascending, p_negative, side="right")
    is_tied = n_below > 0
    is_tied[is_tied] = ascending[n_below[is_tied] - 1] == p_negative[is_tied]
    return RankedLabel(
        _counted(n_places - 1 - place, group_N[is_positive], (n_places, n_groups)),
        _counted(n_places - n_below[~is_tied], group_negative[~is_tied], (n_places + 1, n_groups)),
        _counted(n_places - n_below[is_tied], group_negative[is_tied], (n_places, n_groups)),
    )


def on_places(y_N: np.ndarray, p_N: np.ndarray, n_places: int) -> np.ndarray:
    """Lower each score to the nearest of some scores of positives, between which about equally many positives lie.

    What is joined in one place counts as tied. Each place holds at most a share of 1 / ``n_places`` of the positives,
    beside those of one score. So the area under the curve moves by at most half the share of pairs that are joined,
    which is below 1 / (2 ``n_places``), and the sensitivity at a specificity by at most 1 / ``n_places``.

    Args:
        y_N: labels, 0 or 1.
        p_N: scores.
        n_places: how many places to keep at least; no fewer positives are joined.

    Returns:
        The lowered scores, float64 (N,); -inf below all positives.
    """
    of_positives = np.sort(p_N[y_N == 1])
    kept = np.unique(of_positives[:: max(1, len(of_positives) // n_places)])
    return np.append(-np.inf, kept.astype(np.float64))[np.searchsorted(kept, p_N, side="right")]


def rank_scores(ranked: RankedLabel, weight_PD: np.ndarray) -> dict[str, np.ndarray]:
    """Score a label under each of D weighings of its groups.

    AUC counts a tie as a half. Average precision is the sum of precision times the gain of recall, without
    interpolation. The operating points are those that a threshold reaches: the highest sensitivity whose specificity
    is at least the named one, and the other way round.

    Args:
        ranked: the label, from ``rank_label``.
        weight_PD: weight of each group, at least 0, such as how often a patient was drawn.

    Returns:
        float64 (D,) for each name of ``RANK_SCORES``; NaN where a weighing leaves no positive or no negative.

    Source: Fawcett, An introduction to ROC analysis, Pattern Recognition Letters 27, 2006; Hanley and McNeil,
        Radiology 143, 1982 (the area, ties as a half).
    """
    n_draws = weight_PD.shape[1]
    scores = {name: np.full(n_draws, np.nan) for name in RANK_SCORES}
    if ranked.missing:
        return scores
    n_rows = 2 * ranked.positives_KP.shape[0] + 1 + weight_PD.shape[0]
    step = min(LONGEST, max(1, BLOCK // n_rows))
    is_counts = weight_PD.dtype.kind in "ui"  # sums of counts are exact in single precision up to 16 million slices
    for start in range(0, n_draws, step):
        block = slice(start, start + step)
        weight_PB = np.ascontiguousarray(weight_PD[:, block], dtype=np.float32 if is_counts else np.float64)
        for name, values in _block_scores(ranked, weight_PB):
            scores[name][block] = values
    return scores


def _block_scores(ranked: RankedLabel, weight_PB: np.ndarray) -> Iterator[tuple[str, np.ndarray]]:
    with np.errstate(invalid="ignore", divide="ignore"):
        gained_KB = (ranked.positives_KP @ weight_PB).astype(np.float64)
        ties_KB = (ranked.ties_KP @ weight_PB).astype(np.float64)
        alarms_KB = (ranked.between_KP @ weight_PB).astype(np.float64)
        alarms_KB[:-1] += ties_KB
        hits_KB, alarms_KB = np.cumsum(gained_KB, axis=0), np.cumsum(alarms_KB, axis=0)
        n_positive_B, n_negative_B = hits_KB[-1].copy(), alarms_KB[-1].copy()
        n_positive_B[n_positive_B <= 0] = np.nan
        n_negative_B[n_negative_B <= 0] = np.nan
        alarms_KB = alarms_KB[:-1]
        lost_B = np.einsum("kb,kb->b", gained_KB, alarms_KB - 0.5 * ties_KB)
        yield AUC, 1.0 - lost_B / (n_positive_B * n_negative_B)
        is_lost_B = np.isnan(n_positive_B * n_negative_B)
        yield from _operating_points(hits_KB, alarms_KB, n_positive_B, n_negative_B, is_lost_B)
        gained_KB *= hits_KB
        hits_KB += alarms_KB
        np.divide(gained_KB, hits_KB, out=gained_KB, where=hits_KB > 0)
        yield AVERAGE_PRECISION, np.where(is_lost_B, np.nan, gained_KB.sum(axis=0) / n_positive_B)


def _operating_points(
    hits_KB: np.ndarray,
    alarms_KB: np.ndarray,
    n_positive_B: np.ndarray,
    n_negative_B: np.ndarray,
    is_lost_B: np.ndarray,
) -> Iterator[tuple[str, np.ndarray]]:
    columns = np.arange(hits_KB.shape[1])
    for point in OPERATING_POINTS:
        n_allowed_B = (alarms_KB <= (1.0 - point) * n_negative_B * (1.0 + SLACK)).sum(axis=0)
        found_B = np.where(n_allowed_B > 0, hits_KB[n_allowed_B - 1, columns], 0.0)
        yield f"sensitivity_at_specificity_{point:g}", np.where(is_lost_B, np.nan, found_B / n_positive_B)
        first_B = (hits_KB < point * n_positive_B * (1.0 - SLACK)).sum(axis=0)
        spared_B = 1.0 - alarms_KB[np.minimum(first_B, len(hits_KB) - 1), columns] / n_negative_B
        yield f"specificity_at_sensitivity_{point:g}", np.where(is_lost_B, np.nan, spared_B)


def _counted(place: np.ndarray, group: np.ndarray, shape: tuple[int, int]) -> sparse.csr_array:
    """Return how many slices of each group lie at each place; several of one patient at one place are one entry."""
    return sparse.csr_array((np.ones(len(place), dtype=np.float32), (place, group)), shape=shape)
