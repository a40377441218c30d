"""SCHEDULERS: who stops a trial early. Ray Tune's own, told of the trials that earlier runs of the search ended."""

from collections.abc import Callable, Sequence
from types import SimpleNamespace
from typing import Any

from ray.tune.schedulers import AsyncHyperBandScheduler, FIFOScheduler, TrialScheduler

from ichtune.errors import ConfigError, nearest
from ichtune.search.ledger import TrialRecord
from ichtune.search.names import METRIC, TIME_ATTR
from ichtune.space import EarlyStop


def _asha(early_stop: EarlyStop) -> TrialScheduler:
    if early_stop.max is None:
        raise ConfigError("early_stop needs max, the epochs of the longest trial; got none")
    return AsyncHyperBandScheduler(
        time_attr=TIME_ATTR,
        metric=METRIC,
        mode="min",
        grace_period=early_stop.grace,
        max_t=early_stop.max,
        reduction_factor=early_stop.factor,
    )


def _none(early_stop: EarlyStop) -> TrialScheduler:
    return FIFOScheduler()


#: Schedulers by the name that a search space gives as ``early_stop: {type: ...}``.
SCHEDULERS: dict[str, Callable[[EarlyStop], TrialScheduler]] = {"asha": _asha, "none": _none}


def find_scheduler(name: str) -> Callable[[EarlyStop], TrialScheduler]:
    """Return a scheduler's factory by name; ``ConfigError`` with the nearest one otherwise."""
    if name not in SCHEDULERS:
        raise ConfigError(f"unknown early_stop type {name!r}. {nearest(name, SCHEDULERS)}")
    return SCHEDULERS[name]


def create_scheduler(early_stop: EarlyStop, ended: Sequence[TrialRecord] = ()) -> TrialScheduler:
    """Build a scheduler that knows the trials which have ended already.

    Ray restores no scheduler's state, so the rungs are filled again by showing it, through its public interface, what
    it saw before. A trial that was interrupted tells its own curve again when it goes on.

    Args:
        early_stop: the search space's setting; a space that was read from a file always names a maximum.
        ended: trials of earlier runs of the same search, in the order of their ends.
    """
    scheduler = find_scheduler(early_stop.type)(early_stop)
    for record in ended:
        _show(scheduler, record)
    return scheduler


def _show(scheduler: TrialScheduler, record: TrialRecord) -> None:
    controller: Any = None  # Ray's early stoppers do not look at it
    trial: Any = SimpleNamespace(trial_id=f"ledger_{record.trial}")
    scheduler.on_trial_add(controller, trial)
    results = [{TIME_ATTR: epoch["epoch"], METRIC: epoch[METRIC]} for epoch in record.curve]
    for result in results:
        scheduler.on_trial_result(controller, trial, result)
    scheduler.on_trial_complete(controller, trial, results[-1] if results else {})
