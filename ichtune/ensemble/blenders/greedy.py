"""Greedy selection with replacement: members are added one by one, each time the one that helps most.

Dimension key: G members without duplicates, N slices, L labels, E entries: the slices of every label in one row.
"""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from ichtune.ensemble.blenders.blocks import Scratch, sum_over_blocks
from ichtune.ensemble.blenders.numbers import check_share, check_whole
from ichtune.ensemble.blenders.weighted_mean import WeightedMean
from ichtune.labels import METRIC_WEIGHTS

#: Entries that are looked at together.
BLOCK = 16_384


@dataclass
class Greedy(WeightedMean):
    """How often each member was picked, averaged over bags of members.

    Attributes:
        space: ``probability`` averages probabilities, ``logit`` log odds.
        rounds: picks a bag.
        bags: random subsets of the members, each of which is picked from by itself; 1 picks from all members.
        bag_share: share of the members that a bag holds.
        seed: of the subsets.

    Source: Caruana et al., Ensemble selection from libraries of models, ICML 2004.
    """

    name: ClassVar[str] = "greedy"

    rounds: int = 25
    bags: int = 5
    bag_share: float = 0.5
    seed: int = 7

    def __post_init__(self) -> None:
        super().__post_init__()
        for key in ("rounds", "bags", "seed"):
            check_whole("greedy", key, getattr(self, key), 0 if key == "seed" else 1)
        check_share("greedy", "bag_share", self.bag_share)

    def _solve(self, p_GNL: np.ndarray, y_NL: np.ndarray, row_weight_N: np.ndarray) -> np.ndarray:
        losses = _Losses(self, p_GNL, y_NL, row_weight_N)
        best_first = np.argsort(losses.alone_G, kind="stable")  # the same subsets in whatever order members come
        rng = np.random.default_rng(self.seed)
        n_groups = len(p_GNL)
        n_bag = max(1, round(self.bag_share * n_groups)) if self.bags > 1 else n_groups
        picked_G = np.zeros(n_groups)
        for _ in range(self.bags):
            subset = best_first[np.sort(rng.permutation(n_groups)[:n_bag])]
            np.add.at(picked_G, losses.pick(subset, self.rounds), 1.0)
        return np.repeat((picked_G / picked_G.sum())[:, None], y_NL.shape[1], axis=1)


class _Losses:
    """Losses of means of members over the entries, each as the side of the label sees it.

    A member's input is turned so that more is better: the probability, or the log odds, of what the label says. The
    mean of turned inputs is the turned mean, so one logarithm an entry is enough. Single precision halves memory and
    is summed in double.
    """

    def __init__(self, blender: Greedy, p_GNL: np.ndarray, y_NL: np.ndarray, row_weight_N: np.ndarray) -> None:
        share_L = np.asarray(METRIC_WEIGHTS) / sum(METRIC_WEIGHTS)
        weight_NL = row_weight_N[:, None] * share_L
        y = y_NL.astype(np.float64)
        sides = [(True, weight_NL * y), (False, weight_NL * (1.0 - y))]
        kept = [(is_positive, weight > 0.0, weight) for is_positive, weight in sides]
        self.weight_E = np.concatenate([weight[rows] for _, rows, weight in kept])
        self._is_probability = blender.space == "probability"
        self.x_GE = np.empty((len(p_GNL), len(self.weight_E)), dtype=np.float32)
        for x_E, p_NL in zip(self.x_GE, p_GNL, strict=True):
            x_NL = blender._inputs(p_NL)
            turned = (1.0 - x_NL) if self._is_probability else -x_NL
            x_E[:] = np.concatenate([(x_NL if is_positive else turned)[rows] for is_positive, rows, _ in kept])
        self.alone_G = self.of_each(np.zeros(len(self.weight_E), dtype=np.float32), np.arange(len(p_GNL)), 1)

    def of_each(self, total_E: np.ndarray, candidates: np.ndarray, n: int) -> np.ndarray:
        """Loss, in nats, of the mean of ``n`` members of which ``total_E`` adds up all but the last, for each last."""
        share, scratch = np.float32(1.0 / n), Scratch()

        def block(entries: slice) -> tuple[np.ndarray]:
            total_B, weight_B = total_E[entries], self.weight_E[entries]
            mean_B = scratch.array("mean", total_B.shape, np.float32)
            losses = np.empty(len(candidates))
            for i, g in enumerate(candidates):
                np.add(total_B, self.x_GE[g, entries], out=mean_B)
                np.multiply(mean_B, share if self._is_probability else -share, out=mean_B)
                if not self._is_probability:  # log odds lie within 14, whose exponential is no trouble
                    np.exp(mean_B, out=mean_B)
                (np.log if self._is_probability else np.log1p)(mean_B, out=mean_B)
                losses[i] = weight_B @ mean_B.astype(np.float64)
            return (-losses if self._is_probability else losses,)

        return np.asarray(sum_over_blocks(block, len(total_E), BLOCK)[0])

    def pick(self, subset: np.ndarray, rounds: int) -> list[int]:
        """Return the members that were picked, in order; of equally good ones, the better one alone."""
        total_E = np.zeros(len(self.weight_E), dtype=np.float32)
        picked: list[int] = []
        for n_picked in range(rounds):
            best = int(subset[int(np.argmin(self.of_each(total_E, subset, n_picked + 1)))])
            picked.append(best)
            total_E += self.x_GE[best]
        return picked
