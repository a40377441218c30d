"""The trials of every search, as plain values."""

import json
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import pandas as pd

from ichtune.errors import ConfigError, DataError
from ichtune.recipe import Recipe
from ichtune.report.search_axes import Axis, read_axes
from ichtune.report.search_plots import Curve, Point, Rung
from ichtune.search.cost_model import CostModel, Savings, n_epochs_spared, n_folds_of, saved_by_stopping
from ichtune.search.importance import IMPORTANCES, Importances, comparable_values, parameter_importances
from ichtune.search.leaderboard import rank_of
from ichtune.search.ledger import STOPPED, TrialRecord
from ichtune.second_level_recipe import recipe_from_dict
from ichtune.windows import resolve_windows, window_set_name
from ichtune.workspace import Workspace

#: Window sets in the strip plot; the best ones are kept.
MAX_WINDOW_SETS = 12


@dataclass(frozen=True)
class TrialRow:
    """One trial.

    Attributes:
        values: its searched parameters as text.
        curve: its epochs and scores at rungs, to be drawn.
        epochs_spent: whole epochs' worth of training that it cost, judging included.
        rung_epoch: epoch of its last rung, None where it was never judged.
        rung_loss: its score there.
        duplicate_of: the trial that answered it, as ``3`` or ``other search/3``; empty where it was trained itself.
        spared_epochs: epochs that it would have cost beyond those, had it not been stopped; None where it was not.
        spared_seconds: what these would have taken, as the cost model predicts.
        record: the trial as the search knows it; None where its recipe is of another version.
    """

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
    curve: Curve
    epochs_spent: float
    rung_epoch: int | None
    rung_loss: float | None
    duplicate_of: str
    record: TrialRecord | None
    spared_epochs: float | None = None
    spared_seconds: float | None = None


@dataclass(frozen=True)
class SearchDetail:
    """What one search tells about its parameters and about stopping.

    Attributes:
        name: of the search.
        axes: parameters that took more than one value, the most important first.
        points: the trials that can be compared.
        what: the value that they are compared by.
        importances: by each method of ``IMPORTANCES``.
        savings: what stopping came to.
        typical_error: of the cost model, as a share; None where too few recipes were seen.
    """

    name: str
    axes: tuple[Axis, ...]
    points: tuple[Point, ...]
    what: str
    importances: tuple[Importances, ...]
    savings: Savings
    typical_error: float | None

    @property
    def told(self) -> dict[str, tuple[str, ...]]:
        """Parameters that are told from chance, and the methods that tell them; those that most methods tell first."""
        by_name: dict[str, list[str]] = {}
        for one in self.importances:
            for name in filter(one.is_told, one.shares):
                by_name.setdefault(name, []).append(one.method)
        return {name: tuple(m) for name, m in sorted(by_name.items(), key=lambda entry: -len(entry[1]))}


@dataclass(frozen=True)
class SearchFacts:
    """Every trial of every search.

    Attributes:
        rows: ranked as the leaderboard ranks them.
        keys: names of the searched parameters that differ between trials.
        constant: searched parameters that all trials share, as text.
        by_status: trials counted.
        n_epochs: whole epochs' worth of training that was spent, judging included.
        seconds: time spent in epochs, all trials added up.
        details: of each search, by name.
    """

    rows: tuple[TrialRow, ...]
    searches: tuple[str, ...]
    keys: tuple[str, ...]
    constant: dict[str, str]
    by_status: dict[str, int]
    n_epochs: float
    seconds: float
    details: tuple[SearchDetail, ...]

    @property
    def best(self) -> TrialRow | None:
        """The trial that is ranked first."""
        return self.rows[0] if self.rows and self.rows[0].last_loss is not None else None

    @property
    def failures(self) -> tuple[TrialRow, ...]:
        """Trials that say why they ended."""
        return tuple(row for row in self.rows if row.reason)

    @property
    def was_judged(self) -> bool:
        """Whether any trial has a score at a rung."""
        return any(row.rung_loss is not None for row in self.rows)


def collect_search(workspace: Workspace) -> SearchFacts | None:
    """Return every trial of a workspace; None where there is none."""
    if not workspace.layout.trials.is_file():
        return None
    rows = [_trial(values) for values in workspace.trials.to_dict("records")]
    if not rows:
        return None
    rows.sort(key=_rank)
    names = list(dict.fromkeys(key for row in rows for key in row.values))
    differing = [name for name in names if len({row.values.get(name) for row in rows}) > 1]
    searches = tuple(sorted({row.search for row in rows}))
    costs = {name: _costs(rows, name) for name in searches}
    return SearchFacts(
        rows=tuple(_with_spared(row, *costs[row.search]) for row in rows),
        searches=searches,
        keys=tuple(differing),
        constant={name: rows[0].values[name] for name in names if name not in differing},
        by_status=dict(sorted(Counter(row.status for row in rows).items())),
        n_epochs=sum(row.epochs_spent for row in rows),
        seconds=sum(row.seconds for row in rows if not row.duplicate_of),
        details=tuple(_detail(name, rows, costs[name][0]) for name in searches),
    )


def _rank(row: TrialRow) -> tuple[Any, ...]:
    rungs = {} if row.rung_epoch is None or row.rung_loss is None else {row.rung_epoch: row.rung_loss}
    if row.record is not None:
        rungs = row.record.rung_losses
    return (*rank_of(row.status, row.last_loss, rungs), row.search, row.trial)


def _records(rows: Sequence[TrialRow], search: str) -> list[TrialRecord]:
    found = [row.record for row in rows if row.search == search and row.record is not None]
    return sorted(found, key=lambda record: record.trial)


def _costs(rows: Sequence[TrialRow], search: str) -> tuple[CostModel, int]:
    records = _records(rows, search)
    return CostModel.fit(records), n_folds_of(records)


def _with_spared(row: TrialRow, model: CostModel, n_folds: int) -> TrialRow:
    if row.record is None or row.status != STOPPED:
        return row
    spared = n_epochs_spared(row.record, n_folds)
    seconds = model.seconds_left(row.record.recipe, spared)
    return replace(row, spared_epochs=spared, spared_seconds=seconds)


def _detail(name: str, rows: Sequence[TrialRow], model: CostModel) -> SearchDetail:
    records = _records(rows, name)
    ranks = {row.trial: rank for rank, row in enumerate(rows) if row.search == name}
    found = comparable_values(records)
    importances = tuple(parameter_importances(records, method) for method in IMPORTANCES)
    points = tuple(
        Point(record.status, value, ranks[record.trial], record.optuna["params"])
        for record, value in zip(found.trials, found.values, strict=True)
    )
    axes = read_axes([r.optuna["distributions"] for r in found.trials], [point.params for point in points])
    shares = next((one.shares for one in importances if one.shares), {})
    order = {name: place for place, name in enumerate(shares)}
    return SearchDetail(
        name=name,
        axes=tuple(sorted(axes, key=lambda axis: order.get(axis.name, len(order)))),
        points=points,
        what=found.what,
        importances=importances,
        savings=saved_by_stopping(records, model),
        typical_error=model.typical_error,
    )


def spent_and_best(rows: Sequence[TrialRow]) -> dict[str, list[tuple[float, float]]]:
    """Return, by search and in the order of its trials, epochs spent so far and each trial's best loss."""
    searches: dict[str, list[tuple[float, float]]] = {}
    spent: dict[str, float] = dict.fromkeys((row.search for row in rows), 0.0)
    for row in sorted(rows, key=lambda row: (row.search, row.trial)):
        spent[row.search] += row.epochs_spent
        if row.best_loss is not None:
            searches.setdefault(row.search, []).append((spent[row.search], row.best_loss))
    return searches


def by_window_set(rows: Sequence[TrialRow]) -> dict[str, list[tuple[str, float]]]:
    """Return status and best loss of each trial that reads pixels by window set, the one with the best trial first."""
    groups: dict[str, list[tuple[str, float]]] = {}
    for row in sorted(rows, key=lambda row: (row.best_loss or 0.0, row.search, row.trial)):
        if row.best_loss is not None and row.windows:
            groups.setdefault(row.windows, []).append((row.status, row.best_loss))
    return dict(list(groups.items())[:MAX_WINDOW_SETS])


def _trial(values: Mapping[Any, Any]) -> TrialRow:
    where = f"trial {values['trial']} of search {values['search']!r}"
    columns = ("recipe", "parameters", "curve", "optuna")
    recipe, parameters, curve, optuna = (_loads(values[key], key, where) for key in columns)
    row = TrialRow(
        search=str(values["search"]),
        trial=int(values["trial"]),
        recipe_id=str(values["recipe_id"]),
        status=str(values["status"]),
        reason=str(values["reason"]),
        epochs=int(values["epochs"]),
        best_loss=_finite(values["best_loss"]),
        last_loss=_finite(values["last_loss"]),
        seconds=_finite(values["seconds"]) or 0.0,
        windows=_windows(recipe or {}, parameters or {}),
        values={str(key): value_text(str(key), value) for key, value in (parameters or {}).items()},
        curve=_curve(curve or [], str(values["status"])),
        epochs_spent=float(values["epochs_spent"]),
        rung_epoch=None,
        rung_loss=None,
        duplicate_of=str(values["duplicate_of"]),
        record=None,
    )
    last = row.curve.rungs[-1] if row.curve.rungs else None
    row = row if last is None else replace(row, rung_epoch=last.epoch, rung_loss=last.loss)
    try:
        known = recipe_from_dict(recipe or {})
    except ConfigError:
        return row
    told = {"params": {}, "distributions": {}} | (optuna or {})
    record = TrialRecord(row.trial, parameters or {}, told, known, row.status, row.reason, curve or [])
    if row.duplicate_of:
        record.from_search, _, number = row.duplicate_of.rpartition("/")
        record.duplicate_of = int(number)
    return replace(row, record=record)


def _curve(epochs: Sequence[Mapping[str, Any]], status: str) -> Curve:
    """What is drawn of a trial; a branch is what an epoch at a rung cost beyond itself."""
    points = [(int(e["epoch"]), _finite(e.get("val_weighted_log_loss"))) for e in epochs]
    rungs = [
        Rung(
            epoch=int(epoch["epoch"]),
            loss=float(epoch["rung_loss"]),
            branch=max(0.0, float(epoch.get("cost", 1.0)) - 1.0),
            is_end=status == STOPPED and place == len(epochs) - 1,
        )
        for place, epoch in enumerate(epochs)
        if "rung" in epoch and _finite(epoch["rung_loss"]) is not None
    ]
    return Curve(status, tuple((epoch, loss) for epoch, loss in points if loss is not None), tuple(rungs))


def _loads(text: Any, column: str, where: str) -> Any:
    if text is None or text is pd.NA or text == "":
        return None
    try:
        return json.loads(text)
    except ValueError as error:
        raise DataError(f"{where}: column {column!r} is no JSON ({error}); run `ichtune search` again") from error


def _windows(recipe: Mapping[str, Any], parameters: Mapping[str, Any]) -> str:
    """The window set as it was searched, so that sets with searched numbers are one; else as it was trained.

    Empty for a recipe that reads no pixels.
    """
    if "level" in recipe:
        return ""
    if "windows" in parameters:
        return value_text("windows", parameters["windows"])
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
