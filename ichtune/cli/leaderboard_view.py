"""What a person sees of ended trials: the leaderboard as a table, importances, and what stopping early saved."""

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from ichtune.cli.console import duration

if TYPE_CHECKING:
    from rich.console import Console, ConsoleOptions, RenderableType
    from rich.table import Table

    from ichtune.search.cost_model import Savings
    from ichtune.search.importance import Importances

_LOSS = "{:.4f}"
#: Headings up to this length stay on one line.
_SHORT = 6
_ENDLESS = 10_000


class LeaderboardTable:
    """Leaderboard rows as a table; a parameter with one value for all rows is left out, and so are empty columns.

    Each parameter has a column where the terminal is wide enough for that, else they share one.

    Args:
        rows: as ``ichtune.search.leaderboard.leaderboard_rows`` gives them.
    """

    def __init__(self, rows: Sequence[dict[str, Any]]) -> None:
        from ichtune.search.leaderboard import parameter_names

        self._rows = rows
        self._varied = [name for name in parameter_names(rows) if len({str(row.get(name)) for row in rows}) > 1]
        columns = ["trial", "status", "epochs", "best_loss", "last_loss", "seconds"]
        if any(row["rung"] is not None for row in rows):
            columns[3:3], columns[6:6] = ["rung"], ["rung_loss"]
        self._columns = [*(["search"] if len({row["search"] for row in rows}) > 1 else []), *columns]

    def __rich_console__(self, console: "Console", options: "ConsoleOptions") -> "Iterator[RenderableType]":
        wide = self.wide()
        needed = wide.__rich_measure__(console, options.update(max_width=_ENDLESS)).maximum
        yield wide if needed <= options.max_width else self.narrow()

    def wide(self) -> "Table":
        """A column for each parameter that varies."""
        table = self._table([*self._columns, *self._varied, "recipe_id"])
        for row in self._rows:
            table.add_row(*(_cell(column, row) for column in (*self._columns, *self._varied, "recipe_id")))
        return table

    def narrow(self) -> "Table":
        """One column for all parameters, and no best loss of an epoch, which nothing is ranked by."""
        columns = [column for column in self._columns if column != "best_loss"]
        table = self._table(columns)
        table.add_column("parameters", overflow="fold")
        for row in self._rows:
            told = [f"{name}={_cell(name, row)}" for name in self._varied if row.get(name) is not None]
            table.add_row(*(_cell(column, row) for column in columns), " ".join(told) or row["recipe_id"])
        return table

    def _table(self, columns: Sequence[str]) -> "Table":
        from rich.box import SIMPLE_HEAD
        from rich.table import Table

        table = Table(box=SIMPLE_HEAD, padding=(0, 1, 0, 0))
        for column in columns:
            is_name = any(isinstance(row.get(column), str) for row in self._rows)
            table.add_column(_heading(column), overflow="fold", no_wrap=True, justify="left" if is_name else "right")
        return table


def _heading(column: str) -> str:
    """A column's name, broken after its parts where figures below it are shorter."""
    return column if len(column) <= _SHORT else column.replace("_", "_\n").replace("].", "].\n")


def _cell(column: str, row: dict[str, Any]) -> str:
    value = row.get(column)
    if value is None:
        return "-"
    if column == "status" and row["duplicate_of"] is not None:
        return f"as trial {row['duplicate_of']}"
    if column.endswith("loss"):
        return _LOSS.format(value)
    if column == "seconds":
        return f"{value:.0f}"
    return f"{value:.3g}" if isinstance(value, float) else str(value)


def savings_line(saved: "Savings", typical_error: float | None, n_trials: int) -> str:
    """Say what stopping came to in one sentence; empty where nothing was stopped."""
    if not saved.n_trials:
        return ""
    took = "" if saved.seconds is None else f" and about {duration(max(0.0, saved.seconds))}"
    sure = "" if typical_error is None else f" (an epoch's cost is predicted to within {typical_error:.0%}, typically)"
    judged = f"; judging the others on the way cost {_count(saved.judged_epochs)}" if saved.judged_epochs else ""
    return (
        f"{saved.n_trials} of {n_trials} trials were stopped early, which spared {_count(saved.n_epochs)}{took}"
        f"{sure}{judged}"
    )


def _count(n_epochs: float) -> str:
    told = f"{n_epochs:,.1f}".removesuffix(".0")
    return f"{told} epoch{'' if told == '1' else 's'}"


def importance_table(found: Sequence["Importances"]) -> "Table":
    """Lay out importances, a column a method; what chance gives as well stands beside each share."""
    from rich.box import SIMPLE_HEAD
    from rich.table import Table

    table = Table(box=SIMPLE_HEAD)
    table.add_column("parameter", overflow="fold")
    for one in found:
        table.add_column(one.method, justify="right")
        table.add_column("by chance", justify="right")
    names = list(dict.fromkeys(name for one in found for name in one.shares))
    for name in names:
        cells = []
        for one in found:
            if name in one.shares:
                mark = " *" if one.is_told(name) else "  "
                cells += [f"{one.shares[name]:.0%}{mark}", f"{one.chance[name]:.0%}"]
            else:
                cells += ["-", "-"]
        table.add_row(name, *cells)
    return table
