"""A search that is played through, so as to know what it costs: the scheduler decides, and nothing is trained."""

import random
import statistics
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from ichtune.search.ledger import FINISHED, INTERRUPTED, STOPPED, TrialRecord
from ichtune.search.schedulers import Scheduler, create_scheduler, to_finish
from ichtune.search.stages import TrialPlan, plan_trial
from ichtune.second_level_recipe import AnyRecipe
from ichtune.space import Space

#: Orders of good and bad trials over which the expected cost is a mean.
N_ORDERS = 5


@dataclass(frozen=True)
class Amount:
    """Something of all trials together: if luck is good, on average, and if it is bad.

    Good and bad are the least and the most among the orders in which the trials were played: the best one first, which
    stops most, the best one last, which stops least, and some by chance.
    """

    at_least: float
    expected: float
    at_most: float

    def divided(self, by: float) -> "Amount":
        """Return the amount in units of ``by``."""
        return Amount(self.at_least / by, self.expected / by, self.at_most / by)


def play(
    space: Space, recipes: Sequence[AnyRecipe], seconds: Sequence[float], n_trials: int, most: int
) -> tuple[Amount, Amount]:
    """Play a search through in several orders of good and bad trials.

    Args:
        space: what would be searched.
        recipes: of the trials, which take them in turns.
        seconds: what an epoch of each of the recipes takes.
        n_trials: trials of the search.
        most: trials that are played; a larger search is scaled.

    Returns:
        Whole epochs of all trials, branches of rungs included, and the seconds that they compute.
    """
    played = [_played(space, recipes, seconds, n_trials, order) for order in _orders(min(n_trials, most))]
    return _amount([n_epochs for n_epochs, _ in played]), _amount([computing_s for _, computing_s in played])


def _amount(played: Sequence[float]) -> Amount:
    """Return the amount that trials came to in the orders of ``_orders``; it is expected that they come by chance."""
    return Amount(min(played), statistics.fmean(played[-N_ORDERS:]), max(played))


def _orders(n: int) -> Iterator[list[float]]:
    """Yield losses of trials in the order of their proposal: best first, best last, and shuffled."""
    losses = [float(i) for i in range(n)]
    yield losses
    yield losses[::-1]
    for seed in range(N_ORDERS):
        yield random.Random(seed).sample(losses, n)


def _played(
    space: Space, recipes: Sequence[AnyRecipe], seconds: Sequence[float], n_trials: int, losses: Sequence[float]
) -> tuple[float, float]:
    """Play a search through with trials of known losses; return whole epochs and seconds, scaled to ``n_trials``."""
    records = _Play(space, recipes, losses).run()
    scale = n_trials / len(records)
    each = [seconds[i % len(seconds)] for i in range(len(records))]
    n_epochs = [record.n_epochs_spent for record in records]
    return scale * sum(n_epochs), scale * sum(n * s for n, s in zip(n_epochs, each, strict=True))


class _Play:
    """A search in which nothing is trained: the scheduler decides on losses that are given, one trial at a time."""

    def __init__(self, space: Space, recipes: Sequence[AnyRecipe], losses: Sequence[float]) -> None:
        self._early_stop, self._top = space.search.early_stop, space.train.top
        self._folds, self._recipes, self._losses = space.folds.search_on, recipes, losses
        self._scheduler: Scheduler = create_scheduler(self._early_stop)
        self._records: list[TrialRecord] = []

    def run(self) -> list[TrialRecord]:
        """Run to the end: promotions first, then new trials, then the best of the stopped ones to their end."""
        while (record := self._next()) is not None:
            record.status = INTERRUPTED
            self._train(record)
        return self._records

    def _next(self) -> TrialRecord | None:
        for trial in self._scheduler.promotable(self._records):
            return self._records[trial]
        number = len(self._records)
        if number < len(self._losses):
            self._records.append(TrialRecord(number, {}, {}, self._recipes[number % len(self._recipes)]))
            return self._records[-1]
        n_finished = sum(record.status == FINISHED for record in self._records)
        for trial in to_finish(self._records, self._top - n_finished):
            self._records[trial].to_end = True
            return self._records[trial]
        return None

    def _train(self, record: TrialRecord) -> None:
        plan = plan_trial(record.recipe, self._folds, self._early_stop, self._scheduler.rungs(record.trial))
        for epoch in range(len(record.curve) + 1, plan.n_epochs + 1):
            record.curve.append(self._epoch(plan, epoch, record))
            if "rung" in record.curve[-1] and not self._scheduler.goes_on(record, self._records):
                record.status = STOPPED
                return
        record.status = FINISHED

    def _epoch(self, plan: TrialPlan, epoch: int, record: TrialRecord) -> dict[str, Any]:
        place = plan.place(epoch)
        stage = plan.stages[place.stage]
        if place.rung is None or (record.to_end and not place.is_stage_end):
            return {"cost": stage.cost}
        branches = self._early_stop.judge == "cooldown" and not place.is_stage_end
        branch = self._early_stop.cooldown if branches else 0.0
        return {"cost": stage.cost * (1.0 + branch), "rung": place.rung, "rung_loss": self._losses[record.trial]}
