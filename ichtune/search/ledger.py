"""The ledger: what a search decided and saw, one fsynced JSON line an event. Resuming trusts this file and no other.

Ray Tune keeps a state of its own, but a killed driver loses the latest part of it, and neither the scheduler's rungs
nor the sampler's history come back with it.
"""

import json
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from ichtune.errors import ConfigError, DataError, IchtuneError, StorageError
from ichtune.second_level_recipe import AnyRecipe, recipe_from_dict
from ichtune.tables import SCHEMA_VERSION
from ichtune.version import __version__

#: How a trial can have ended. ``interrupted`` is a trial with no end: it is taken up again. ``duplicate`` is a proposal
#: that was answered from the table.
FINISHED, STOPPED, FAILED, INTERRUPTED, DUPLICATE = "finished", "stopped", "failed", "interrupted", "duplicate"


@dataclass
class Tally:
    """What a curve comes to, kept up to date epoch by epoch: a search asks for it at every decision.

    Attributes:
        rung_losses: loss at each rung that was reached, by the rung's number, in order.
        gpu_seconds: seconds of whole GPUs.
    """

    rung_losses: dict[int, float] = field(default_factory=dict)
    gpu_seconds: float = 0.0

    def add(self, epoch: Mapping[str, Any]) -> None:
        """Take in one more epoch."""
        self.rung_losses.update(_rung_losses([epoch]))
        self.gpu_seconds += _gpu_seconds([epoch])


def _rung_losses(curve: Sequence[Mapping[str, Any]]) -> dict[int, float]:
    return {int(epoch["rung"]): float(epoch["rung_loss"]) for epoch in curve if "rung" in epoch}


def _gpu_seconds(curve: Sequence[Mapping[str, Any]]) -> float:
    return sum(float(epoch["seconds"]) * float(epoch["gpu"]) for epoch in curve if "gpu" in epoch)


@dataclass
class TrialRecord:
    """One trial as the ledger tells it.

    Attributes:
        trial: its number, from 0, in the order of proposals.
        parameters: the searched values, by flat name.
        optuna: the proposal in Optuna's own terms, ``params`` and ``distributions``.
        recipe: what was trained.
        status: ``finished``, ``stopped`` (at a rung; it may be promoted later), ``failed``, ``duplicate`` or
            ``interrupted``.
        reason: why it failed, else empty.
        curve: one mapping an epoch, in order: ``epoch`` (counted over all that the trial trains), ``fold``, losses,
            ``lr``, ``seconds`` (of the epoch and of judging it), ``images_per_second``, ``cost`` (whole epochs that it
            is worth); where it was judged also ``rung`` and ``rung_loss``.
        to_end: whether it was promoted for good, and is judged no more.
        promoted_at: epochs that it had when it was last promoted.
        n_before_end: trials that had been proposed when it last ended, itself among them.
        duplicate_of: number of the trial of the same recipe, None where there is none before it.
        from_search: the other search to which ``duplicate_of`` belongs, empty for this one.
        tally: what the curve comes to, where a ledger keeps it up to date; None: it is added up when asked for.
    """

    trial: int
    parameters: dict[str, Any]
    optuna: dict[str, Any]
    recipe: AnyRecipe
    status: str = INTERRUPTED
    reason: str = ""
    curve: list[dict[str, Any]] = field(default_factory=list)
    to_end: bool = False
    promoted_at: int = 0
    n_before_end: int = 0
    duplicate_of: int | None = None
    from_search: str = ""
    tally: Tally | None = field(default=None, init=False, repr=False, compare=False)

    @cached_property
    def recipe_id(self) -> str:
        """Name of its recipe, by which a repetition is found; worked out once, since every proposal asks."""
        return self.recipe.recipe_id

    @property
    def ended(self) -> bool:
        """Whether nothing of the trial is left to be done, unless it is promoted."""
        return self.status != INTERRUPTED

    @property
    def awaits_judgement(self) -> bool:
        """Whether it stands at a rung and nobody has decided yet whether it goes on."""
        at_rung = bool(self.curve) and "rung" in self.curve[-1]
        return not self.ended and at_rung and not self.to_end and self.promoted_at < len(self.curve)

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
        return float(self.curve[-1]["val_weighted_log_loss"]) if self.curve else None

    @property
    def rung_losses(self) -> dict[int, float]:
        """Loss at each rung that the trial has reached, by the rung's number, in order."""
        return _rung_losses(self.curve) if self.tally is None else self.tally.rung_losses

    @property
    def gpu_seconds(self) -> float:
        """Seconds of whole GPUs that were spent on it; none where it was answered from a table."""
        if self.duplicate_of is not None:
            return 0.0
        return _gpu_seconds(self.curve) if self.tally is None else self.tally.gpu_seconds

    @property
    def seconds(self) -> float:
        """Seconds spent in its epochs and in judging them."""
        return sum(float(epoch["seconds"]) for epoch in self.curve)

    @property
    def n_epochs_spent(self) -> float:
        """Whole epochs' worth of training that was spent on it, branches included."""
        if self.duplicate_of is not None:
            return 0.0
        return sum(float(epoch.get("cost", 1.0)) for epoch in self.curve)

    def add(self, epoch: dict[str, Any]) -> None:
        """Take in the next epoch."""
        self.curve.append(epoch)
        if self.tally is not None:
            self.tally.add(epoch)


class Ledger:
    """Append-only file of one search.

    Args:
        path: ``ledger.jsonl`` in the search's folder.
        on_append: keeps a line somewhere else before it is written here; what it raises, the writing raises.

    Attributes:
        failure: why a line could not be written. None is written after it: what was decided since is not known.
    """

    def __init__(self, path: Path, on_append: Callable[[str], None] | None = None) -> None:
        self.path = path
        self.failure: IchtuneError | None = None
        self._on_append = on_append
        self._forget()

    def _forget(self) -> None:
        self._read_bytes, self._n_lines = 0, 0
        self._about: dict[str, Any] | None = None
        self._trials: dict[int, TrialRecord] = {}
        self._in_order: list[TrialRecord] = []

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
        self._catch_up()
        if self._about is None:
            raise DataError(f"{self.path} is no ledger of a search; move it away to start anew")
        return dict(self._about)

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
        """Write how a trial ended; one that was stopped at a rung may yet ``go_on``."""
        self._append({"event": "end", "trial": trial, "status": status, "reason": reason})

    def duplicate(self, trial: int, of: int, search: str = "", curve: Sequence[Mapping[str, Any]] = ()) -> None:
        """Write that a proposal is answered by a trial of the same recipe, of this search or of another one.

        Args:
            trial: the proposal.
            of: number of the trial that answers it.
            search: name of the other search, with the finished curve of its trial.
            curve: of the trial of the other search.
        """
        about = {"event": "duplicate", "trial": trial, "of": of, "search": search, "curve": [dict(e) for e in curve]}
        self._append(about)

    def go_on(self, trial: int, *, to_end: bool = False) -> None:
        """Write that a stopped trial is promoted.

        Args:
            trial: its number.
            to_end: it is judged no more.
        """
        self._append({"event": "go_on", "trial": trial, "to_end": to_end})

    def records(self) -> list[TrialRecord]:
        """Return every trial, by number. An epoch that was told twice counts once, as told first.

        The records are the ledger's own and grow with it; only what is new in the file is read.
        """
        self._catch_up()
        if len(self._in_order) != len(self._trials):
            self._in_order = [self._trials[number] for number in sorted(self._trials)]
        return list(self._in_order)

    @property
    def n_lines(self) -> int:
        """Lines that were read so far; as long as it stays the same, so does what the records tell."""
        return self._n_lines

    def _catch_up(self) -> None:
        """Read the whole lines that were written since the last look."""
        try:
            if self.path.stat().st_size < self._read_bytes:
                self._forget()  # another file by the same name
            with self.path.open("rb") as file:
                file.seek(self._read_bytes)
                text = file.read()
        except OSError as error:
            raise DataError(f"cannot read {self.path}: {error.strerror}; run `ichtune search` first") from error
        whole = text.rfind(b"\n") + 1  # what follows is being written, or was cut by a kill
        for line in text[:whole].split(b"\n")[:-1]:
            self._n_lines += 1
            try:
                self._take(json.loads(line))
            except (ValueError, LookupError, TypeError) as error:
                where = f"{self.path}:{self._n_lines}"
                self._forget()
                raise DataError(f"{where} is damaged ({error!r}); restore the file from a copy") from error
        self._read_bytes += whole

    def _take(self, event: dict[str, Any]) -> None:
        kind = event.get("event")
        if kind == "search":
            self._about = {key: value for key, value in event.items() if key != "event"}
            return
        number = event["trial"]
        if kind == "start":
            recipe = recipe_from_dict(event["recipe"])
            self._trials[number] = TrialRecord(number, event["parameters"], event["optuna"], recipe)
            self._trials[number].tally, self._in_order = Tally(), []
            return
        record = self._trials[number]
        if kind == "epoch" and event["epoch"] == len(record.curve) + 1:
            record.add({key: value for key, value in event.items() if key not in _FRAME})
        elif kind == "end":
            record.status, record.reason = event["status"], event["reason"]
            record.n_before_end = len(self._trials)
        elif kind == "go_on":
            record.status, record.to_end = INTERRUPTED, record.to_end or event["to_end"]
            record.promoted_at = len(record.curve)
        elif kind == "duplicate":
            record.duplicate_of, record.from_search = event["of"], event["search"]
            record.curve, record.status = [], FINISHED if event["curve"] else DUPLICATE
            record.tally = Tally()
            for epoch in event["curve"]:
                record.add(epoch)
            record.n_before_end = len(self._trials)

    def _append(self, event: Mapping[str, Any]) -> None:
        if self.failure is not None:
            raise self.failure
        try:
            self._write(event)
        except IchtuneError as error:
            self.failure = error
            raise

    def _write(self, event: Mapping[str, Any]) -> None:
        line = json.dumps({"schema_version": SCHEMA_VERSION, "ichtune_version": __version__, **event}, sort_keys=True)
        if self._on_append is not None:
            self._on_append(line)
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with self.path.open("a", encoding="utf-8") as file:
                file.write(line + "\n")
                file.flush()
                os.fsync(file.fileno())
        except OSError as error:
            raise StorageError(f"cannot write {self.path}: {error.strerror}; free the disk and continue") from error


#: Keys of a line that say nothing of the epoch in it.
_FRAME = ("event", "trial", "schema_version", "ichtune_version")


def _mend_torn_end(path: Path) -> None:
    """Cut a last line that a kill left without its newline, so that the next event starts on a line of its own."""
    with path.open("rb+") as file:
        content = file.read()
        whole = content.rfind(b"\n") + 1
        if whole < len(content):
            file.truncate(whole)


def _values(values: Mapping[str, Any], keys: Iterable[str]) -> str:
    return ", ".join(f"{key} {values.get(key)!r}" for key in keys)
