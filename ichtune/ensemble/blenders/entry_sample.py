"""A sample of the entries (a slice and a label) that tell most about a blend's weights.

Entries on which all members are sure and right hardly move the loss; those that are doubtful or wrong decide. An entry
is taken with a probability in proportion to how wrong the mean of the members is, and weighs the more the less likely
it was, so that the sample's loss is that of all entries on average. Whether one is taken follows from its predictions
alone: the same sample in whatever order slices or members come.

Dimension key: G members, N slices, L labels, K problems, S sampled entries, R slices of a block.
"""

from dataclasses import dataclass

import numpy as np

from ichtune.ensemble.blenders.blocks import block_size, on_threads, sum_over_blocks

#: Entries of a sample at most, over all problems: this share of all, within these bounds. Those that are certain to be
#: taken leave it smaller.
SHARE, LEAST, MOST = 1 / 12, 100_000, 360_000
#: The thin part of a sample, as a share of it.
THIN = 1 / 8
#: Makes the fractional part of a logarithm as good as random.
STRETCH = 1000.0


@dataclass(frozen=True)
class EntrySample:
    """Sampled entries of one problem.

    Attributes:
        p_GS: the members' probabilities, float64.
        y_S: labels.
        weight_S: share of each entry in the loss divided by the probability of taking it.
        share_S: share of each entry in the loss.
        thin: numbers of the entries of the thin part.
        thin_weight_S: the weights that entries have in the thin part.
    """

    p_GS: np.ndarray
    y_S: np.ndarray
    weight_S: np.ndarray
    share_S: np.ndarray
    thin: np.ndarray
    thin_weight_S: np.ndarray


def sample_entries(
    p_GNL: np.ndarray, y_NL: np.ndarray, weight_N: np.ndarray, share_KL: np.ndarray
) -> list[EntrySample]:
    """Sample the entries of each problem; together at most about ``MOST``.

    Args:
        p_GNL: probabilities.
        y_NL: labels in [0, 1].
        weight_N: weight of each slice.
        share_KL: share of each label in each problem's loss, each label in exactly one.
    """
    entries = _Entries(p_GNL, y_NL, weight_N, share_KL)
    size = min(max(SHARE * y_NL.size, LEAST), MOST)
    return [entries.sample(np.flatnonzero(share_L), size / len(share_KL)) for share_L in share_KL]


class _Entries:
    """How much each entry tells, and the random number that decides on it."""

    def __init__(self, p_GNL: np.ndarray, y_NL: np.ndarray, weight_N: np.ndarray, share_KL: np.ndarray) -> None:
        self._p_GNL, self._y_NL = p_GNL, y_NL
        self._weight_N, self._share_L = weight_N, share_KL.max(axis=0)
        self._told_NL = np.empty(y_NL.shape)
        self._chance_NL = np.empty(y_NL.shape, dtype=np.float32)
        self._all_labels = np.ones((y_NL.shape[1], y_NL.shape[1]))
        size = block_size(y_NL.shape[1] * len(p_GNL))
        self._share_B = np.tile(self._share_L, size)
        (self._told_L,) = sum_over_blocks(self._look_at, len(y_NL), size)

    def _look_at(self, rows: slice) -> tuple[np.ndarray]:
        mean_RL, y_RL = self._p_GNL[:, rows].mean(axis=0, dtype=np.float64), self._y_NL[rows]
        told_RL = self._told_NL[rows]
        np.multiply(mean_RL, 1.0 - 2.0 * y_RL, out=told_RL)
        told_RL += y_RL  # how wrong the mean is
        told_B = told_RL.reshape(-1)
        told_B *= self._share_B[: len(told_B)]
        told_B *= np.repeat(self._weight_N[rows], len(self._share_L))
        log_RL = np.log(np.maximum(mean_RL, 1e-300, out=mean_RL), out=mean_RL)
        log_RL += log_RL @ self._all_labels  # slices that differ in any label draw different numbers
        log_RL *= STRETCH
        np.subtract(log_RL, np.floor(log_RL), out=self._chance_NL[rows], casting="same_kind")
        return (np.ones(len(told_RL)) @ told_RL,)

    def sample(self, labels: np.ndarray, size: float) -> EntrySample:
        """Take at most about ``size`` entries of some labels."""
        told_NL = self._told_NL if len(labels) == len(self._share_L) else self._told_NL[:, labels]
        chance_NL = self._chance_NL if told_NL is self._told_NL else self._chance_NL[:, labels]
        scale = size / max(float(self._told_L[labels].sum()), 1e-300)
        taken = np.flatnonzero(chance_NL < scale * told_NL)
        if len(taken) == 0:  # the members are right throughout: the entry on which they are least so stands for all
            taken = np.array([told_NL.argmax()])
        row_S, label_S = taken // len(labels), labels[taken % len(labels)]
        share_S = self._weight_N[row_S] * self._share_L[label_S]
        likely_S = scale * told_NL.ravel()[taken]
        return EntrySample(
            p_GS=self._gather(row_S, label_S),
            y_S=self._y_NL[row_S, label_S].astype(np.float64),
            weight_S=share_S / np.clip(likely_S, 1e-300, 1.0),
            share_S=share_S,
            thin=np.flatnonzero(chance_NL.ravel()[taken] < THIN * likely_S),
            thin_weight_S=share_S / np.clip(THIN * likely_S, 1e-300, 1.0),
        )

    def _gather(self, row_S: np.ndarray, label_S: np.ndarray) -> np.ndarray:
        p_GS = np.empty((len(self._p_GNL), len(row_S)))
        place_S = row_S * len(self._share_L) + label_S

        def one(g: int) -> None:
            p_NL = self._p_GNL[g]
            if p_NL.flags.c_contiguous:
                p_GS[g] = p_NL.ravel().take(place_S, mode="clip")
            else:
                p_GS[g] = p_NL[row_S, label_S]

        list(on_threads(one, range(len(p_GS))))
        return p_GS
