"""Watching a search: what Ray tells is written to the ledger, and shown to whoever watches."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from ray import tune

from ichtune.search.ledger import FAILED, FINISHED, STOPPED, Ledger
from ichtune.search.names import METRIC, TIME_ATTR


@dataclass(frozen=True)
class TrialEvent:
    """One thing that happened to a trial, for the terminal: ``kind`` is ``epoch`` or a status."""

    kind: str
    trial: int
    summary: str
    epoch: int
    epochs: int
    loss: float | None
    reason: str = ""


OnEvent = Callable[[TrialEvent], None]


class LedgerCallback(tune.Callback):
    """Writes every epoch and every end to the ledger, in the driver, before the next proposal is asked for.

    Args:
        ledger: the search's memory.
        on_event: told of each event once it is written; left behind when Ray copies the callback.
    """

    def __init__(self, ledger: Ledger, on_event: OnEvent | None = None) -> None:
        self._ledger = ledger
        self._on_event = on_event
        self._seen = {record.trial: len(record.curve) for record in ledger.records()}

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_on_event": None}

    def on_trial_result(
        self, iteration: int, trials: list[Any], trial: Any, result: dict[str, Any], **info: Any
    ) -> None:
        """Write an epoch that is new."""
        number, epoch = trial.config["trial"], int(result[TIME_ATTR])
        if epoch <= self._seen.get(number, 0) or not math.isfinite(result[METRIC]):
            return
        self._seen[number] = epoch
        kept = (TIME_ATTR, METRIC, "train_loss", "lr", "seconds", "images_per_second")
        self._ledger.epoch(number, {key: result[key] for key in kept})
        self._tell("epoch", trial, epoch, result[METRIC])

    def on_trial_complete(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """Write the end of a trial that ran out of epochs, was stopped, or failed in a way it could report."""
        last = trial.last_result or {}
        failure = last.get("failure", "")
        epoch = int(last.get(TIME_ATTR, 0))
        if failure:
            status = FAILED
        elif epoch >= trial.config["recipe"]["epochs"]:
            status = FINISHED
        else:
            status = STOPPED
        self._ledger.end(trial.config["trial"], status, failure)
        self._tell(status, trial, epoch, last.get(METRIC), failure)

    def on_trial_error(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """Write the end of a trial whose process died more often than it may."""
        reason = f"its worker died (traceback in {trial.error_file})"
        self._ledger.end(trial.config["trial"], FAILED, reason)
        self._tell(FAILED, trial, int((trial.last_result or {}).get(TIME_ATTR, 0)), None, reason)

    def _tell(self, kind: str, trial: Any, epoch: int, loss: float | None, reason: str = "") -> None:
        if self._on_event is not None:
            config = trial.config
            summary, epochs = config["summary"], config["recipe"]["epochs"]
            self._on_event(TrialEvent(kind, config["trial"], summary, epoch, epochs, loss, reason))
