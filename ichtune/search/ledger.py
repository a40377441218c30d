"""The ledger: what a search decided and saw, one fsynced JSON line an event. Resuming trusts this file and no other.

Ray Tune keeps a state of its own, but a killed driver loses the latest part of it, and neither the scheduler's rungs
nor the sampler's history come back with it.
"""

import json
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ichtune.errors import ConfigError, DataError, StorageError
from ichtune.recipe import Recipe
from ichtune.tables import SCHEMA_VERSION
from ichtune.version import __version__

#: How a trial can have ended. ``interrupted`` is a trial with no end: it is taken up again.
FINISHED, STOPPED, FAILED, INTERRUPTED = "finished", "stopped", "failed", "interrupted"


@dataclass
class TrialRecord:
    """One trial as the ledger tells it.

    Attributes:
        trial: its number, from 0, in the order of proposals.
        parameters: the searched values, by flat name.
        optuna: the proposal in Optuna's own terms, ``params`` and ``distributions``.
        recipe: what was trained.
        status: ``finished``, ``stopped`` (by the scheduler), ``failed`` or ``interrupted``.
        reason: why it failed, else empty.
        curve: one mapping an epoch, as ``EpochResult``, in order.
    """

    trial: int
    parameters: dict[str, Any]
    optuna: dict[str, Any]
    recipe: Recipe
    status: str = INTERRUPTED
    reason: str = ""
    curve: list[dict[str, Any]] = field(default_factory=list)

    @property
    def ended(self) -> bool:
        """Whether the trial will not be run again."""
        return self.status != INTERRUPTED

    @property
    def losses(self) -> list[float]:
        """Validation weighted log loss after each epoch."""
        return [float(epoch["val_weighted_log_loss"]) for epoch in self.curve]

    @property
    def best_loss(self) -> float | None:
        """Lowest loss of the curve; None before the first epoch."""
        return min((loss for loss in self.losses if loss == loss), default=None)

    @property
    def last_loss(self) -> float | None:
        """Loss after the last epoch; None before the first."""
        return self.losses[-1] if self.curve else None

    @property
    def seconds(self) -> float:
        """Seconds spent in its epochs."""
        return sum(float(epoch["seconds"]) for epoch in self.curve)


class Ledger:
    """Append-only file of one search.

    Args:
        path: ``ledger.jsonl`` in the search's folder.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    def open(self, about: Mapping[str, Any], notes: Mapping[str, Any] | None = None) -> None:
        """Start the ledger, or check that it was started for the same thing.

        Args:
            about: what must not change between two runs of one search: space, fold plan, cache, folds.
            notes: what is worth keeping beside it and may change.

        Raises:
            ConfigError: the search of this name was started with something else.
        """
        if self.path.is_file():
            _mend_torn_end(self.path)
        if not self.path.is_file() or self.path.stat().st_size == 0:
            self._append({"event": "search", **about, **(notes or {})})
            return
        started = self.about()
        changed = [key for key, value in about.items() if started.get(key) != value]
        if changed:
            raise ConfigError(
                f"search {self.path.parent.name!r} was started with another {' and '.join(changed)}: "
                f"{_values(started, changed)} then, {_values(about, changed)} now. Give this one a name of its own "
                f"with --name, or undo the change to continue the old one"
            )

    def about(self) -> dict[str, Any]:
        """Return what the search was started with."""
        events = list(self._events())
        if not events or events[0].get("event") != "search":
            raise DataError(f"{self.path} is no ledger of a search; move it away to start anew")
        return {k: v for k, v in events[0].items() if k != "event"}

    def start(self, record: TrialRecord) -> None:
        """Write that a trial is proposed, before anything of it runs."""
        self._append(
            {
                "event": "start",
                "trial": record.trial,
                "parameters": record.parameters,
                "optuna": record.optuna,
                "recipe": record.recipe.to_dict(),
            }
        )

    def epoch(self, trial: int, epoch: Mapping[str, Any]) -> None:
        """Write the result of one epoch."""
        self._append({"event": "epoch", "trial": trial, **epoch})

    def end(self, trial: int, status: str, reason: str = "") -> None:
        """Write that a trial will not be run again."""
        self._append({"event": "end", "trial": trial, "status": status, "reason": reason})

    def records(self) -> list[TrialRecord]:
        """Return every trial, by number. An epoch that was told twice counts once, as told first."""
        trials: dict[int, TrialRecord] = {}
        for event in self._events():
            kind = event.get("event")
            if kind == "start":
                recipe = Recipe.from_dict(event["recipe"])
                trials[event["trial"]] = TrialRecord(event["trial"], event["parameters"], event["optuna"], recipe)
            elif kind == "epoch":
                record = trials[event["trial"]]
                if event["epoch"] == len(record.curve) + 1:
                    record.curve.append({k: v for k, v in event.items() if k not in ("event", "trial")})
            elif kind == "end":
                record = trials[event["trial"]]
                record.status, record.reason = event["status"], event["reason"]
        return [trials[number] for number in sorted(trials)]

    def _events(self) -> Iterable[dict[str, Any]]:
        try:
            text = self.path.read_text(encoding="utf-8")
        except OSError as error:
            raise DataError(f"cannot read {self.path}: {error.strerror}; run `ichtune search` first") from error
        lines = text.split("\n")
        for number, line in enumerate(lines, start=1):
            try:
                if line:
                    yield json.loads(line)
            except ValueError as error:
                if number == len(lines):  # no newline yet: being written, or cut by a kill
                    return
                raise DataError(f"{self.path}:{number} is damaged ({error}); restore the file from a copy") from error

    def _append(self, event: Mapping[str, Any]) -> None:
        line = json.dumps({"schema_version": SCHEMA_VERSION, "ichtune_version": __version__, **event}, sort_keys=True)
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with self.path.open("a", encoding="utf-8") as file:
                file.write(line + "\n")
                file.flush()
                os.fsync(file.fileno())
        except OSError as error:
            raise StorageError(f"cannot write {self.path}: {error.strerror}; free the disk and continue") from error


def _mend_torn_end(path: Path) -> None:
    """Cut a last line that a kill left without its newline, so that the next event starts on a line of its own."""
    with path.open("rb+") as file:
        content = file.read()
        whole = content.rfind(b"\n") + 1
        if whole < len(content):
            file.truncate(whole)


def _values(values: Mapping[str, Any], keys: Iterable[str]) -> str:
    return ", ".join(f"{key} {values.get(key)!r}" for key in keys)
