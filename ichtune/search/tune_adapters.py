"""Between the legs of a search and Ray Tune: its searcher, scheduler and callback, all of which only read and write the
ledger. A Tune trial is one leg; a trial that is promoted later is another Tune trial."""

import math
from collections import Counter
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Any

from ray import tune
from ray.tune.schedulers import FIFOScheduler, TrialScheduler
from ray.tune.search import Searcher

from ichtune.errors import IchtuneError
from ichtune.search.deaths import MAX_FAILURES, Keep, gains_tries, reason_of
from ichtune.search.ledger import FAILED, FINISHED, STOPPED, Ledger, TrialRecord
from ichtune.search.legs import Legs, Nothing
from ichtune.search.names import METRIC, TIME_ATTR
from ichtune.search.telemetry import OnEvent, TrialEvent

#: What of an epoch's result is written to the ledger; the last four where there are any.
EPOCH_KEYS = (TIME_ATTR, METRIC, "fold", "train_loss", "lr", "seconds", "images_per_second", "cost")
MORE_EPOCH_KEYS = ("rung", "rung_loss", "gpu", "gpu_memory_mb")


class LegSearcher(Searcher):
    """Feeds Ray Tune with legs.

    Args:
        legs: decides.
        config_of: turns a record into the configuration that a trial receives.
        on_event: told of every leg that begins, and of duplicates.
        room: how many legs there may be at a time right now, where that changes; None leaves it to Tune.
    """

    def __init__(
        self,
        legs: Legs,
        config_of: Callable[[TrialRecord], dict[str, Any]],
        on_event: OnEvent | None = None,
        room: Callable[[], int] | None = None,
    ) -> None:
        super().__init__(metric=METRIC, mode="min")
        self._legs, self._config_of, self._on_event, self._room = legs, config_of, on_event, room
        self._running: dict[str, int] = {}
        self._n_known = len(legs.ledger.records())

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_on_event": None, "_legs": None, "_config_of": None, "_room": None}

    def suggest(self, trial_id: str) -> dict[str, Any] | str | None:  # type: ignore[override]
        """Return the configuration of the next leg, None while there is none yet, or that there is none left."""
        if self._room is not None and len(self._running) >= self._room():
            return None
        found = self._legs.next(frozenset(self._running.values()))
        self._tell_duplicates()
        if found is Nothing.YET:
            return None
        if isinstance(found, Nothing):
            return str(Searcher.FINISHED)
        self._running[trial_id] = found.trial
        config = self._config_of(found)
        self._tell(event_of("start", config, found.curve[-1] if found.curve else {}))
        return config

    def _tell_duplicates(self) -> None:
        records = self._legs.ledger.records()
        for record in records[self._n_known :]:
            if record.duplicate_of is not None:
                reason = f"duplicate of trial {record.duplicate_of}"
                reason += f" of search {record.from_search}" if record.from_search else ""
                last = record.curve[-1] if record.curve else {}
                self._tell(event_of("duplicate", self._config_of(record), last, reason))
        self._n_known = len(records)

    def _tell(self, event: TrialEvent) -> None:
        if self._on_event is not None:
            self._on_event(event)

    def on_trial_complete(self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False) -> None:
        """Remember that the leg runs no more; how it ended is in the ledger."""
        self._running.pop(trial_id, None)

    def save(self, checkpoint_path: str) -> None:
        """Nothing to do: the ledger is the state."""

    def restore(self, checkpoint_path: str) -> None:
        """Nothing to do: the ledger is the state."""


class Bookkeeper:
    """Writes epochs to the ledger, each once."""

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger

    def record(self, config: Mapping[str, Any], result: Mapping[str, Any]) -> TrialRecord | None:
        """Write an epoch that is new; returns its trial's record, None for what was written before or is no number."""
        number, epoch = config["trial"], int(result[TIME_ATTR])
        records = {record.trial: record for record in self._ledger.records()}
        if epoch <= len(records[number].curve) or not math.isfinite(result[METRIC]) or result.get("failure"):
            return None
        kept = {key: result[key] for key in EPOCH_KEYS} | {k: result[k] for k in MORE_EPOCH_KEYS if k in result}
        self._ledger.epoch(number, kept)
        self._ledger.records()
        return records[number]


class RungScheduler(FIFOScheduler):
    """Stops a trial at a rung that it does not pass; Tune runs legs in the order in which they were suggested.

    Args:
        legs: decides.
        keeper: writes the epoch first: what is decided must know it.
    """

    def __init__(self, legs: Legs, keeper: Bookkeeper) -> None:
        super().__init__()
        self._legs, self._keeper = legs, keeper

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_legs": None, "_keeper": None}

    def on_trial_result(self, tune_controller: Any, trial: Any, result: dict[str, Any]) -> str:
        """Return whether the trial goes on."""
        record = self._keeper.record(trial.config, result)
        records = self._legs.ledger.records()
        if self._legs.budget.is_gpu_time_up(records):
            return str(TrialScheduler.STOP)
        if record is None or not record.awaits_judgement:
            return str(TrialScheduler.CONTINUE)
        return str(TrialScheduler.CONTINUE if self._legs.decide(record) else TrialScheduler.STOP)


class LedgerCallback(tune.Callback):
    """Writes every end to the ledger, in the driver, before the next leg is asked for, and tells whoever watches.

    Args:
        ledger: the search's memory.
        keeper: writes epochs.
        on_event: told of each event once it is written; left behind when Ray copies the callback.
        keep: keeps in the workspace what Ray said of a worker's death.
    """

    def __init__(
        self, ledger: Ledger, keeper: Bookkeeper, on_event: OnEvent | None = None, keep: Keep | None = None
    ) -> None:
        self._ledger, self._keeper, self._on_event, self._keep = ledger, keeper, on_event, keep
        self._told: dict[int, int] = {}
        #: Deaths of each trial's workers since its last new epoch.
        self._deaths: Counter[int] = Counter()
        #: Turn of Tune's loop in which each trial was last started again.
        self._recovered: dict[int, int] = {}

    def __getstate__(self) -> dict[str, Any]:
        return {}

    def on_trial_result(
        self, iteration: int, trials: list[Any], trial: Any, result: dict[str, Any], **info: Any
    ) -> None:
        """Write an epoch that the scheduler was not asked about, such as the last one, and tell of it."""
        self._keeper.record(trial.config, result)
        number, epoch = trial.config["trial"], int(result[TIME_ATTR])
        if epoch > self._told.get(number, trial.config["told"]) and math.isfinite(result[METRIC]):
            self._told[number] = epoch
            self._deaths[number] = 0
            gains_tries(trial)
            self._tell(event_of("epoch", trial.config, result))

    def on_trial_complete(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """Write the end of a leg: its trial ran out of epochs, was stopped, or failed in a way it could report."""
        last = trial.last_result or {}
        if last.get("halt"):
            return  # it is no fault of the trial's: it goes on when the search does
        failure, record = last.get("failure", ""), self._record(trial)
        if failure:
            status = FAILED
        elif len(record.curve) >= trial.config["epochs"]:
            status = FINISHED
        elif record.awaits_judgement:
            status = STOPPED
        else:
            return  # left where it was, because the budget is spent
        self._end(trial.config, status, last, failure)

    def on_trial_recover(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """Count a death after which Tune starts the trial again."""
        number = trial.config["trial"]
        self._deaths[number] += 1
        self._recovered[number] = iteration
        gains_tries(trial, self._deaths[number])

    def on_trial_error(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """Write the end of a trial whose process died more often than it may without a new epoch.

        Tune gives a trial up at once where one death reaches it twice, as that of a worker does to which the trial is
        just being handed on: in the same turn of its loop it has put the trial into its queue again, and takes the
        second message for a start that failed. Tune counts both, so its own number says nothing. Such a trial is left
        as interrupted, and its next leg is handed out like that of any other.
        """
        number = trial.config["trial"]
        is_echo = self._recovered.get(number) == iteration
        self._deaths[number] += not is_echo
        if is_echo and self._deaths[number] <= MAX_FAILURES:
            return
        try:
            reason = reason_of(trial, self._keep)
        except (OSError, IchtuneError):  # the ledger will say if the disk is full
            reason = reason_of(trial)
        self._end(trial.config, FAILED, trial.last_result or {}, reason)

    def _end(self, config: Mapping[str, Any], status: str, result: Mapping[str, Any], reason: str) -> None:
        # the ledger keeps what went wrong, and ends the run; raised here, Tune would take it for the trial's fault
        with suppress(IchtuneError):
            self._ledger.end(config["trial"], status, reason)
        if self._ledger.failure is None:
            self._tell(event_of(status, config, result, reason))

    def _record(self, trial: Any) -> TrialRecord:
        return next(r for r in self._ledger.records() if r.trial == trial.config["trial"])

    def _tell(self, event: TrialEvent) -> None:
        if self._on_event is not None:
            self._on_event(event)


def event_of(kind: str, config: Mapping[str, Any], result: Mapping[str, Any], reason: str = "") -> TrialEvent:
    """Put an event together from a trial's configuration and one of its results."""
    rung = result.get("rung")
    numbers = sorted(config["rung_epochs"], key=lambda number: config["rung_epochs"][number])
    return TrialEvent(
        kind=kind,
        trial=config["trial"],
        summary=config["summary"],
        epoch=int(result.get(TIME_ATTR, 0)),
        epochs=config["epochs"],
        loss=result.get(METRIC),
        reason=reason,
        rung=numbers.index(str(rung)) if rung is not None and str(rung) in numbers else None,
        rung_loss=result.get("rung_loss"),
        train_loss=result.get("train_loss"),
        lr=result.get("lr"),
        cost=float(result.get("cost", 1.0)),
        seconds=float(result.get("seconds", 0.0)),
        images_per_second=float(result.get("images_per_second", 0.0)),
        gpu_memory_mb=result.get("gpu_memory_mb"),
        parameters=dict(config["parameters"]),
        resources=dict(config["resources"]),
        node=str(result.get("hostname", "")),
        to_end=bool(config.get("to_end", False)),
    )
