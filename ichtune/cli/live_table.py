"""The table of a running search: laid out for the width and height that the terminal has."""

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

from ichtune.cli.console import duration

if TYPE_CHECKING:
    from rich.console import Group, RenderableType
    from rich.table import Table
    from rich.text import Text

    from ichtune.search.ledger import TrialRecord
    from ichtune.search.telemetry import TrialEvent

RUNNING = "running"
#: Most rows of trials, however high the terminal is.
ROWS = 20
#: Characters between two columns, and those of the widest column of a parameter, whose longer values end in an
#: ellipsis: the first with which all parameters have room.
SPACINGS = ((2, 24), (2, 18), (1, 18), (1, 12), (1, 8))
WIDEST_NODE = 18
#: Lines around the rows of trials: three of heading, one of column names, one of what is left out, one for the prompt.
LINES_AROUND = 7
_COLOURS = {"finished": "green", "stopped": "yellow", "failed": "red", RUNNING: "cyan"}


@dataclass
class TrialRow:
    """One trial as the table shows it.

    Attributes:
        trial: its number.
        state: ``running``, or how it ended.
        epoch: epochs that it has had, of ``epochs``.
        loss: after the latest epoch, nats.
        rung: index, from 0, of the latest rung that it was judged at, and the loss by which.
        seconds: of each epoch of this run of the search.
        parameters: the searched values by name.
        resources: what it asked Ray for.
        node: where it runs.
        reason: why it failed.
    """

    trial: int
    state: str = RUNNING
    epoch: int = 0
    epochs: int = 0
    loss: float | None = None
    rung: tuple[int, float] | None = None
    seconds: list[float] = field(default_factory=list)
    parameters: dict[str, Any] = field(default_factory=dict)
    resources: dict[str, float] = field(default_factory=dict)
    node: str = ""
    reason: str = ""

    @classmethod
    def of_record(cls, record: "TrialRecord") -> "TrialRow":
        """Show a trial of an earlier run of the search."""
        reached = list(record.rung_losses.values())
        return cls(
            trial=record.trial,
            state=record.status,
            epoch=len(record.curve),
            epochs=max(record.recipe.n_epochs, len(record.curve)),
            loss=record.last_loss,
            rung=(len(reached) - 1, reached[-1]) if reached else None,
            parameters=dict(record.parameters),
            reason=record.reason,
        )

    def take(self, event: "TrialEvent") -> None:
        """Take in what happened to the trial."""
        is_epoch = event.kind == "epoch"
        self.state = RUNNING if event.kind in ("start", "epoch") else event.kind
        self.epoch, self.epochs, self.reason = max(self.epoch, event.epoch), event.epochs, event.reason
        self.loss = self.loss if event.loss is None else event.loss
        if event.rung is not None and event.rung_loss is not None:
            self.rung = event.rung, event.rung_loss
        if is_epoch and event.seconds:
            self.seconds.append(event.seconds)
        self.parameters = dict(event.parameters) or self.parameters
        self.resources = dict(event.resources) or self.resources
        self.node = event.node or self.node


@dataclass(frozen=True)
class Heading:
    """What is said above the rows.

    Attributes:
        n_trials: trials in all; None where none are counted.
        elapsed_s: seconds of this run.
        left_s: seconds that the search will take yet; None where nobody knows.
        best: lowest loss so far with its trial's number.
    """

    n_trials: int | None
    elapsed_s: float
    left_s: float | None = None
    best: tuple[float, int] | None = None


def live_table(rows: Iterable[TrialRow], heading: Heading, width: int, height: int) -> "Group":
    """Lay a search out: what is known of it as a whole, then the running trials and the best of the others.

    Only parameters of which the search has seen more than one value get a column, as many as there is room for.

    Args:
        rows: every trial.
        heading: what is said above them.
        width: of the terminal, characters.
        height: of the terminal, lines.
    """
    from rich.console import Group

    every = list(rows)
    varied = varied_parameters(every)
    shown = first_rows(every, max(1, min(ROWS, height - LINES_AROUND)))
    columns = _columns(every, shown)
    for gap, widest in SPACINGS:
        room = width - sum(column.width + gap for column in columns)
        parameters = _parameter_columns(varied, shown, widest)
        fitting = _fitting(parameters, room, gap)
        if len(fitting) == len(parameters):
            break
    lines: list[RenderableType] = [*_heading_lines(every, heading), _table([*columns, *fitting], shown, gap)]
    left_out = [column.name for column in parameters if column not in fitting]
    if left_out:
        lines.append(_line(f"no room for {', '.join(left_out)}", style="dim"))
    failed = [row for row in every if row.reason and row.state == "failed"]
    if failed:
        lines.append(_line(f"trial {failed[-1].trial} failed: {failed[-1].reason}", style="red"))
    return Group(*lines)


def varied_parameters(rows: Iterable[TrialRow]) -> list[str]:
    """Return the names of the parameters of which the rows hold more than one value, in the order of the space."""
    values: dict[str, set[str]] = {}
    every = list(rows)
    for row in every:
        for name in row.parameters:
            values.setdefault(name, set())
    for name, seen in values.items():
        seen.update(str(row.parameters.get(name)) for row in every)
    return [name for name, seen in values.items() if len(seen) > 1]


def first_rows(rows: Iterable[TrialRow], count: int) -> list[TrialRow]:
    """Return the rows to show: those that run, by number, then the others, lowest loss first.

    However many run, a third of the rows is for the best of the others.
    """

    def place(row: TrialRow) -> tuple[Any, ...]:
        if row.state == RUNNING:
            return 0, row.trial
        known = row.loss is not None and row.loss == row.loss
        return (1, row.loss, row.trial) if known else (2, row.trial)

    ordered = sorted(rows, key=place)
    running = [row for row in ordered if row.state == RUNNING]
    others = ordered[len(running) :]
    n_others = min(len(others), max(count // 3, count - len(running)))
    return [*running[: count - n_others], *others[:n_others]]


@dataclass(frozen=True)
class _Column:
    name: str
    cells: list[str]
    justify: Literal["left", "right"] = "right"
    widest: int | None = None

    @property
    def width(self) -> int:
        needed = max(len(cell) for cell in (self.name, *self.cells))
        return needed if self.widest is None else min(needed, self.widest)


def _columns(every: Sequence[TrialRow], shown: Sequence[TrialRow]) -> list[_Column]:
    """The columns that a trial has whatever is searched; those with nothing to say are left out."""
    columns = [
        _Column("trial", [str(row.trial) for row in shown]),
        _Column("state", [row.state for row in shown], "left"),
        _Column("epoch", [f"{row.epoch}/{row.epochs}" for row in shown]),
    ]
    if any(row.rung for row in every):
        columns.append(
            _Column("rung", ["-" if row.rung is None else f"{row.rung[0]} {loss_text(row.rung[1])}" for row in shown])
        )
    columns.append(_Column("loss", [loss_text(row.loss) for row in shown]))
    columns.append(_Column("s/epoch", [_mean(row.seconds) for row in shown]))
    if len({str(row.resources) for row in every if row.resources}) > 1:
        columns.append(_Column("resources", [resources_text(row.resources) or "-" for row in shown], "left"))
    if len({row.node for row in every if row.node}) > 1:
        columns.append(_Column("node", [row.node or "-" for row in shown], "left", WIDEST_NODE))
    return columns


def _parameter_columns(names: Iterable[str], shown: Sequence[TrialRow], widest: int) -> list[_Column]:
    columns = []
    for name in names:
        numeric = all(isinstance(row.parameters.get(name), int | float | None) for row in shown)
        cells = [value_text(row.parameters.get(name)) for row in shown]
        columns.append(_Column(name, cells, "right" if numeric else "left", widest))
    return columns


def _fitting(columns: Sequence[_Column], room: int, gap: int) -> list[_Column]:
    """Take columns in order, leaving out each that is wider than what is left."""
    taken = []
    for column in columns:
        if column.width <= room:
            taken.append(column)
            room -= column.width + gap
    return taken


def _table(columns: Sequence[_Column], shown: Sequence[TrialRow], gap: int) -> "Table":
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, padding=(0, gap, 0, 0), pad_edge=False, header_style="bold")
    for column in columns:
        table.add_column(
            Text(column.name),
            justify=column.justify,
            width=column.width,
            no_wrap=True,
            overflow="ellipsis",
        )
    for number, row in enumerate(shown):
        colour = _COLOURS.get(row.state, "")
        cells = [Text(column.cells[number], style=colour if column.name == "state" else "") for column in columns]
        table.add_row(*cells)
    return table


def _heading_lines(rows: Sequence[TrialRow], heading: Heading) -> "list[Text]":
    counts: dict[str, int] = {}
    for row in rows:
        counts[row.state] = counts.get(row.state, 0) + 1
    n_ended = sum(count for state, count in counts.items() if state not in (RUNNING, "interrupted"))
    of = "" if heading.n_trials is None else f" of {heading.n_trials}"
    states = ", ".join(f"{count} {state}" for state, count in counts.items() if state != RUNNING)
    asked = {resources_text(row.resources) for row in rows if row.resources}
    each = f" with {asked.pop()} each" if len(asked) == 1 else ""
    running = f"{counts.get(RUNNING, 0)} running{each}"
    best = (
        "no loss yet" if heading.best is None else f"best loss {loss_text(heading.best[0])} (trial {heading.best[1]})"
    )
    left = "" if heading.left_s is None else f", about {duration(heading.left_s)} left"
    return [
        _line(f"{n_ended}{of} trials ended" + (f": {states}" if states else ""), style="bold"),
        _line(f"{best}, {running}"),
        _line(f"{duration(heading.elapsed_s)} so far{left}"),
    ]


def _line(text: str, style: str = "") -> "Text":
    from rich.text import Text

    return Text(text, style=style, no_wrap=True, overflow="ellipsis")


def resources_text(resources: dict[str, float]) -> str:
    """Say what a trial asked for.

    Example:
        >>> resources_text({"gpu": 0.25, "cpu": 2.0})
        '0.25 GPU + 2 CPU'
    """
    return " + ".join(f"{amount:g} {kind.upper()}" for kind, amount in resources.items() if amount)


def value_text(value: Any) -> str:
    """Return a searched value as short as it may be.

    Example:
        >>> value_text(0.00031622), value_text([[40, 80], [80, 200]]), value_text(None)
        ('0.000316', '[[40,80],[80,200]]', '-')
    """
    if value is None:
        return "-"
    if isinstance(value, float):
        return f"{value:.3g}"
    return value if isinstance(value, str) else json.dumps(value, separators=(",", ":"), default=str)


def loss_text(loss: float | None) -> str:
    """Return a loss, or a dash where there is none or it is no number."""
    return "-" if loss is None or loss != loss else f"{loss:.4f}"


def _mean(seconds: Sequence[float]) -> str:
    return f"{sum(seconds) / len(seconds):.3g}" if seconds else "-"
