"""What a search says while it runs: a live table on a terminal, a line an event elsewhere, JSON lines for machines."""

import json
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import asdict
from types import TracebackType
from typing import TYPE_CHECKING, Any, TextIO

from ichtune.cli.console import note
from ichtune.cli.live_table import RUNNING, Heading, TrialRow, live_table, loss_text
from ichtune.search.watchers import Watcher, is_end

if TYPE_CHECKING:
    from rich.console import Console, RenderableType
    from rich.live import Live

    from ichtune.search.cluster import Cluster
    from ichtune.search.ledger import TrialRecord
    from ichtune.search.telemetry import TrialEvent

#: Times a second that the live table is drawn; training needs the cores more than it does.
DRAWN_PER_SECOND = 2
#: Seconds after which the time left is worked out anew; it runs down in between.
ASKED_EVERY_S = 5.0
#: Says how many seconds a search will take yet, None if nobody knows.
SecondsLeft = Callable[[], float | None]


class SearchView(Watcher):
    """Shows a search on stderr while it runs.

    Args:
        n_trials: trials in all; None where the budget is another one.
        quiet: show nothing.
        seconds_left: says how long the search will take yet; without one it is guessed from the trials that ended.
    """

    def __init__(self, n_trials: int | None, quiet: bool, seconds_left: SecondsLeft | None = None) -> None:
        self._n_trials = n_trials
        self._quiet = quiet
        self._seconds_left = seconds_left or self._guess_left
        self._left: tuple[float, float | None] | None = None
        self._rows: dict[int, TrialRow] = {}
        self._n_earlier = 0
        self._closes = False
        self._best: tuple[float, int] | None = None
        self._start = time.monotonic()
        self._console: Console | None = None
        self._live: Live | None = None
        self._lock = threading.Lock()

    def __enter__(self) -> "SearchView":
        note("starting Ray ...", self._quiet)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.ended()

    def started(self, name: str, cluster: "Cluster", records: "list[TrialRecord]") -> None:
        """Say where the dashboard is and what is there from before."""
        has = f"{cluster.n_cpus:g} CPUs" + (f", {cluster.n_gpus:g} GPUs" if cluster.n_gpus else "")
        note(f"Ray is ready ({'joined' if cluster.joined else 'started here'}, {has})", self._quiet)
        if cluster.dashboard_url:
            note(f"Ray dashboard: {cluster.dashboard_url}, job {name}", self._quiet)
            if cluster.token_path:
                note(f"  it asks for a token: cat {cluster.token_path}", self._quiet)
        self._take_records(records)
        if records:
            n_open = len(records) - self._n_earlier
            note(
                f"continuing: {self._n_earlier} trials have ended before, {n_open} go on from their last epoch",
                self._quiet,
            )
        if not self._quiet and sys.stderr.isatty():
            self._show_live()

    def event(self, event: "TrialEvent") -> None:
        """Take in what happened; where there is no live table, write a line for the end of a trial."""
        with self._lock:
            self._rows.setdefault(event.trial, TrialRow(event.trial)).take(event)
            self._take_loss(event.loss, event.trial)
        if event.to_end and not self._closes:
            self._closes = True
            note("no more trials are proposed; the best of the stopped ones are now trained to their end", self._quiet)
        if self._live is None and is_end(event):
            note(self._end_line(event), self._quiet)

    def ended(self) -> None:
        """Take the live table away."""
        if self._live is not None:
            self._live.stop()
            self._live = None

    def _take_records(self, records: "list[TrialRecord]") -> None:
        for record in records:
            self._rows[record.trial] = TrialRow.of_record(record)
            self._take_loss(record.best_loss, record.trial)
        self._n_earlier = self._n_ended()

    def _take_loss(self, loss: float | None, trial: int) -> None:
        if loss is not None and loss == loss and (self._best is None or loss < self._best[0]):
            self._best = loss, trial

    def _n_ended(self) -> int:
        return sum(row.state not in (RUNNING, "interrupted") for row in self._rows.values())

    def _end_line(self, event: "TrialEvent") -> str:
        loss, best = loss_text(event.loss), "-" if self._best is None else loss_text(self._best[0])
        of = "" if self._n_trials is None else f"/{self._n_trials}"
        return (
            f"[{self._n_ended()}{of}] trial {event.trial:3d} {event.kind:8s} epoch {event.epoch}/{event.epochs} "
            f"loss {loss:>6s} best {best}  {event.summary} {event.reason}".rstrip()
        )

    def _guess_left(self) -> float | None:
        """Guess that the trials to come take as long as those that ended in this run did, on the same cores."""
        n_ended = self._n_ended()
        n_now = n_ended - self._n_earlier
        if self._n_trials is None or n_now < 1:
            return None
        return (time.monotonic() - self._start) / n_now * max(0, self._n_trials - n_ended)

    def _show_live(self) -> None:
        from rich.console import Console
        from rich.live import Live

        self._console = Console(stderr=True, highlight=False)
        self._live = Live(
            console=self._console, refresh_per_second=DRAWN_PER_SECOND, transient=True, get_renderable=self.picture
        )
        self._live.start()

    def picture(self) -> "RenderableType":
        """Return the table as it stands, for the terminal as wide and high as it is now."""
        width, height = self._console.size if self._console is not None else (80, 24)
        now = time.monotonic()
        left_s = self._time_left(now)
        with self._lock:
            heading = Heading(self._n_trials, now - self._start, left_s, self._best)
            return live_table(self._rows.values(), heading, width, height)

    def _time_left(self, now_s: float) -> float | None:
        if self._left is None or now_s - self._left[0] >= ASKED_EVERY_S:
            try:
                self._left = now_s, self._seconds_left()
            except Exception as error:  # noqa: BLE001 - the table is drawn in a thread of its own, which must not end
                note(f"the time left is not known: {error}", self._quiet)
                self._seconds_left, self._left = self._guess_left, (now_s, None)
        asked_s, left_s = self._left
        return None if left_s is None else max(0.0, left_s - (now_s - asked_s))


class JsonLines(Watcher):
    """Writes a JSON object a line for each thing that happens, as it happens.

    ``event`` in it says what the line is: ``search`` at the start, then as in ``TrialEvent.kind``, ``summary`` at last.

    Args:
        stream: where to; stdout by default.
    """

    def __init__(self, stream: TextIO | None = None) -> None:
        self._stream = stream

    def started(self, name: str, cluster: "Cluster", records: "list[TrialRecord]") -> None:
        """Write what runs where."""
        earlier = {"trials": len(records), "ended": sum(record.ended for record in records)}
        self._write({"event": "search", "search": name, "earlier": earlier, **asdict(cluster)})

    def event(self, event: "TrialEvent") -> None:
        """Write one thing that happened to a trial."""
        told = asdict(event)
        self._write({"event": told.pop("kind"), **told})

    def ended(self) -> None:
        """Say nothing: how the search ended is known after Ray has ended."""

    def summary(self, result: dict[str, Any]) -> None:
        """Write the last line: how the search ended."""
        self._write({"event": "summary", **result})

    def _write(self, told: dict[str, Any]) -> None:
        stream = self._stream or sys.stdout
        stream.write(json.dumps(_finite(told), default=_plain) + "\n")
        stream.flush()


def _plain(value: Any) -> Any:
    return value.tolist() if hasattr(value, "tolist") else str(value)  # numpy, without importing it


def _finite(value: Any) -> Any:
    """Return a value with null for every number that JSON has no word for."""
    if isinstance(value, dict):
        return {str(key): _finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(item) for item in value]
    if isinstance(value, float) and (value != value or value in (float("inf"), float("-inf"))):
        return None
    return value
