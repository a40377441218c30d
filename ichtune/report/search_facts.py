"""The trials of every search, as plain values."""

import json
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd

from ichtune.errors import ConfigError, DataError
from ichtune.recipe import Recipe
from ichtune.windows import resolve_windows, window_set_name
from ichtune.workspace import Workspace

#: Window sets in the strip plot; the best ones are kept.
MAX_WINDOW_SETS = 12


@dataclass(frozen=True)
class TrialRow:
    """One trial; ``values`` are its searched parameters as text, ``curve`` its ``(epoch, loss)`` points."""

    search: str
    trial: int
    recipe_id: str
    status: str
    reason: str
    epochs: int
    best_loss: float | None
    last_loss: float | None
    seconds: float
    windows: str
    values: dict[str, str]
    curve: tuple[tuple[int, float], ...]


@dataclass(frozen=True)
class SearchFacts:
    """Every trial of every search.

    Attributes:
        rows: best loss first, those without a loss last.
        keys: names of the searched parameters that differ between trials.
        constant: searched parameters that all trials share, as text.
        by_status: trials counted.
        n_epochs: epochs spent.
        seconds: time spent in epochs, all trials added up.
    """

    rows: tuple[TrialRow, ...]
    searches: tuple[str, ...]
    keys: tuple[str, ...]
    constant: dict[str, str]
    by_status: dict[str, int]
    n_epochs: int
    seconds: float

    @property
    def best(self) -> TrialRow | None:
        """The trial with the lowest loss."""
        return self.rows[0] if self.rows and self.rows[0].best_loss is not None else None

    @property
    def failures(self) -> tuple[TrialRow, ...]:
        """Trials that say why they ended."""
        return tuple(row for row in self.rows if row.reason)


def collect_search(workspace: Workspace) -> SearchFacts | None:
    """Return every trial of a workspace; None where there is none."""
    if not workspace.layout.trials.is_file():
        return None
    rows = [_trial(values) for values in workspace.trials.to_dict("records")]
    if not rows:
        return None
    rows.sort(key=lambda row: (row.best_loss is None, row.best_loss or 0.0, row.search, row.trial))
    names = list(dict.fromkeys(key for row in rows for key in row.values))
    differing = [name for name in names if len({row.values.get(name) for row in rows}) > 1]
    return SearchFacts(
        rows=tuple(rows),
        searches=tuple(sorted({row.search for row in rows})),
        keys=tuple(differing),
        constant={name: rows[0].values[name] for name in names if name not in differing},
        by_status=dict(sorted(Counter(row.status for row in rows).items())),
        n_epochs=sum(row.epochs for row in rows),
        seconds=sum(row.seconds for row in rows),
    )


def spent_and_best(rows: Sequence[TrialRow]) -> dict[str, list[tuple[int, float]]]:
    """Return, by search and in the order of its trials, epochs spent so far and each trial's best loss."""
    searches: dict[str, list[tuple[int, float]]] = {}
    spent: Counter[str] = Counter()
    for row in sorted(rows, key=lambda row: (row.search, row.trial)):
        spent[row.search] += row.epochs
        if row.best_loss is not None:
            searches.setdefault(row.search, []).append((spent[row.search], row.best_loss))
    return searches


def by_window_set(rows: Sequence[TrialRow]) -> dict[str, list[tuple[str, float]]]:
    """Return status and best loss of each trial by window set, the set with the best trial first."""
    groups: dict[str, list[tuple[str, float]]] = {}
    for row in sorted(rows, key=lambda row: (row.best_loss or 0.0, row.search, row.trial)):
        if row.best_loss is not None:
            groups.setdefault(row.windows, []).append((row.status, row.best_loss))
    return dict(list(groups.items())[:MAX_WINDOW_SETS])


def _trial(values: Mapping[Any, Any]) -> TrialRow:
    where = f"trial {values['trial']} of search {values['search']!r}"
    recipe, parameters, curve = (_loads(values[key], key, where) for key in ("recipe", "parameters", "curve"))
    points = [(int(e["epoch"]), _finite(e.get("val_weighted_log_loss"))) for e in curve or []]
    return TrialRow(
        search=str(values["search"]),
        trial=int(values["trial"]),
        recipe_id=str(values["recipe_id"]),
        status=str(values["status"]),
        reason=str(values["reason"]),
        epochs=int(values["epochs"]),
        best_loss=_finite(values["best_loss"]),
        last_loss=_finite(values["last_loss"]),
        seconds=_finite(values["seconds"]) or 0.0,
        windows=_windows(recipe or {}),
        values={str(key): value_text(str(key), value) for key, value in (parameters or {}).items()},
        curve=tuple((epoch, loss) for epoch, loss in points if loss is not None),
    )


def _loads(text: Any, column: str, where: str) -> Any:
    if text is None or text is pd.NA or text == "":
        return None
    try:
        return json.loads(text)
    except ValueError as error:
        raise DataError(f"{where}: column {column!r} is no JSON ({error}); run `ichtune search` again") from error


def _windows(recipe: Mapping[str, Any]) -> str:
    try:
        return window_set_name(Recipe.from_dict(recipe).windows)
    except ConfigError:
        return str(recipe.get("windows", "unknown"))


def value_text(name: str, value: Any) -> str:
    """Return a parameter's value for a table: window sets by name, numbers to three figures."""
    if name == "windows" and not isinstance(value, str):
        try:
            return window_set_name(resolve_windows(value))
        except ConfigError:
            return str(value)
    if isinstance(value, bool) or not isinstance(value, float):
        return "" if value is None else str(value)
    return f"{value:.3g}"


def _finite(value: Any) -> float | None:
    return float(value) if isinstance(value, int | float) and math.isfinite(value) else None
