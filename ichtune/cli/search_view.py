"""What a person sees of a running search: a live table on a terminal, a line an event elsewhere."""

import sys
import time
from types import TracebackType
from typing import TYPE_CHECKING, Any

from ichtune.cli.console import note

if TYPE_CHECKING:
    from rich.live import Live
    from rich.table import Table

    from ichtune.search.cluster import Cluster
    from ichtune.search.ledger import TrialRecord
    from ichtune.search.telemetry import TrialEvent

#: Rows of the live table and of the table at the end.
ROWS = 20
_COLOURS = {"finished": "green", "stopped": "yellow", "failed": "red", "epoch": "cyan"}


class SearchView:
    """Shows a search while it runs.

    Args:
        n_trials: trials in all.
        quiet: show nothing.
    """

    def __init__(self, n_trials: int, quiet: bool) -> None:
        self._n_trials = n_trials
        self._quiet = quiet
        self._latest: dict[int, TrialEvent] = {}
        self._earlier = 0
        self._best: float | None = None
        self._start = time.monotonic()
        self._live: Live | None = None

    def __enter__(self) -> "SearchView":
        note("starting Ray ...", self._quiet)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._live is not None:
            self._live.stop()

    def started(self, cluster: "Cluster", records: "list[TrialRecord]") -> None:
        """Say where the dashboard is and what is there from before."""
        has = f"{cluster.n_cpus:g} CPUs" + (f", {cluster.n_gpus:g} GPUs" if cluster.n_gpus else "")
        note(f"Ray is ready ({'joined' if cluster.joined else 'started here'}, {has})", self._quiet)
        if cluster.dashboard_url:
            note(f"Ray dashboard: {cluster.dashboard_url}", self._quiet)
            if cluster.token_path:
                note(f"  it asks for a token: cat {cluster.token_path}", self._quiet)
        ended = [record for record in records if record.ended]
        self._earlier = len(ended)
        self._best = min((r.best_loss for r in ended if r.best_loss is not None), default=None)
        if records:
            note(
                f"continuing: {len(ended)} trials have ended before, {len(records) - len(ended)} go on from their last "
                f"epoch",
                self._quiet,
            )
        if not self._quiet and sys.stderr.isatty():
            self._live = _live()
            self._live.start()
            self._live.update(self._live_table())

    def event(self, event: "TrialEvent") -> None:
        """Show one epoch or one end of a trial."""
        self._latest[event.trial] = event
        if event.loss is not None and event.loss == event.loss and (self._best is None or event.loss < self._best):
            self._best = event.loss
        if self._live is not None:
            self._live.update(self._live_table())
        elif event.kind != "epoch":
            loss = "     -" if event.loss is None else f"{event.loss:.4f}"
            best = "-" if self._best is None else f"{self._best:.4f}"
            note(
                f"[{self._n_ended()}/{self._n_trials}] trial {event.trial:3d} {event.kind:8s} epoch "
                f"{event.epoch}/{event.epochs} loss {loss} best {best}  {event.summary} {event.reason}".rstrip(),
                self._quiet,
            )

    def _n_ended(self) -> int:
        return self._earlier + sum(event.kind != "epoch" for event in self._latest.values())

    def _live_table(self) -> "Table":
        from rich.table import Table

        ended, seconds = self._n_ended(), time.monotonic() - self._start
        now = ended - self._earlier
        left = f", about {seconds / now * (self._n_trials - ended):.0f} s left" if now else ""
        best = "-" if self._best is None else f"{self._best:.4f}"
        table = Table(
            title=f"{ended} of {self._n_trials} trials, best loss {best}, {seconds:.0f} s{left}", expand=False
        )
        for column in ("trial", "state", "epoch", "loss", "recipe"):
            table.add_column(column, no_wrap=column != "recipe")
        for number in sorted(self._latest)[-ROWS:]:
            event = self._latest[number]
            state = "running" if event.kind == "epoch" else event.kind
            loss = "-" if event.loss is None else f"{event.loss:.4f}"
            colour = _COLOURS[event.kind]
            table.add_row(
                str(number),
                f"[{colour}]{state}[/]",
                f"{event.epoch}/{event.epochs}",
                loss,
                event.reason or event.summary,
            )
        return table

    @staticmethod
    def table(rows: list[dict[str, Any]]) -> "Table":
        """Lay out a leaderboard; only parameters that vary get a column."""
        return leaderboard_table(rows[:ROWS])


def _live() -> "Live":
    from rich.console import Console
    from rich.live import Live

    return Live(console=Console(stderr=True), refresh_per_second=4, transient=True)


def leaderboard_table(rows: list[dict[str, Any]]) -> "Table":
    """Lay out leaderboard rows as a table; parameters with one value for all rows are left out."""
    from rich.table import Table

    fixed = (
        "search",
        "trial",
        "recipe_id",
        "status",
        "epochs",
        "best_loss",
        "last_loss",
        "seconds",
        "reason",
    )
    names = list(dict.fromkeys(key for row in rows for key in row if key not in fixed))
    varied = [name for name in names if len({str(row.get(name)) for row in rows}) > 1]
    table = Table()
    several = len({row["search"] for row in rows}) > 1
    for column in (
        *(["search"] if several else []),
        "trial",
        "status",
        "epochs",
        "best_loss",
        "seconds",
        *varied,
        "recipe_id",
    ):
        table.add_column(column, overflow="fold")
    for row in rows:
        cells = [_cell(row.get(name)) for name in varied]
        table.add_row(
            *([row["search"]] if several else []),
            str(row["trial"]),
            row["status"],
            str(row["epochs"]),
            _cell(row["best_loss"], "{:.4f}"),
            f"{row['seconds']:.0f}",
            *cells,
            row["recipe_id"],
        )
    return table


def _cell(value: Any, style: str = "{:.3g}") -> str:
    if value is None:
        return "-"
    return style.format(value) if isinstance(value, float) else str(value)
