"""Greedy selection with replacement: members are added one by one, each time the one that helps most.

Dimension key: G members without duplicates, N slices, L labels, E entries: the slices of every label in one row.
"""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from ichtune.ensemble.numbers import check_share, check_whole
from ichtune.ensemble.weighted_mean import WeightedMean
from ichtune.labels import METRIC_WEIGHTS


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
        self.alone_G = np.array([self.of(x_E) for x_E in self.x_GE])

    def of(self, x_E: np.ndarray) -> float:
        """Loss of a mean, in nats."""
        losses_E = np.log(x_E) if self._is_probability else -np.logaddexp(np.float32(0.0), -x_E)
        return -float(self.weight_E @ losses_E.astype(np.float64))

    def pick(self, subset: np.ndarray, rounds: int) -> list[int]:
        """Return the members that were picked, in order; of equally good ones, the better one alone."""
        total_E = np.zeros_like(self.weight_E, dtype=np.float32)
        picked: list[int] = []
        for n_picked in range(rounds):
            share = np.float32(1.0 / (n_picked + 1))
            losses = [self.of((total_E + self.x_GE[g]) * share) for g in subset]
            best = int(subset[int(np.argmin(losses))])
            picked.append(best)
            total_E += self.x_GE[best]
        return picked
