"""Trials of every search as one table, and the leaderboard made of it."""

import json
import math
from pathlib import Path
from typing import Any

import pandas as pd

from ichtune.errors import DataError
from ichtune.layout import Layout
from ichtune.locks import is_held
from ichtune.recipe import Recipe
from ichtune.search.ledger import FAILED, FINISHED, STOPPED, Ledger, TrialRecord
from ichtune.tables import TRIALS, write_table

#: What the leaderboard calls a trial without an end while its search runs.
RUNNING = "running"


def ledger_path(layout: Layout, search: str) -> Path:
    """Return where the ledger of a search lies."""
    return layout.searches / search / "ledger.jsonl"


def lock_path(layout: Layout, search: str) -> Path:
    """Return the file that is locked while a search runs."""
    return layout.searches / search / ".lock"


def all_records(layout: Layout) -> dict[str, list[TrialRecord]]:
    """Read the ledgers of every search in a workspace, by the search's name.

    Raises:
        DataError: there is none.
    """
    paths = sorted(layout.searches.glob("*/ledger.jsonl"))
    if not paths:
        raise DataError(f"no search in {layout.searches}: run `ichtune search --space windows.yaml` first")
    return {path.parent.name: Ledger(path).records() for path in paths}


def write_trials(layout: Layout) -> None:
    """Write ``trials.parquet`` from the ledgers."""
    rows = [_row(search, record) for search, records in all_records(layout).items() for record in records]
    write_table(pd.DataFrame(rows, columns=list(TRIALS.columns)), layout.trials, TRIALS)


def _row(search: str, record: TrialRecord) -> dict[str, Any]:
    return {
        "search": search,
        "trial": record.trial,
        "recipe_id": record.recipe.recipe_id,
        "status": record.status,
        "reason": record.reason,
        "epochs": len(record.curve),
        "best_loss": _or_nan(record.best_loss),
        "last_loss": _or_nan(record.last_loss),
        "seconds": record.seconds,
        "recipe": json.dumps(record.recipe.to_dict(), sort_keys=True),
        "parameters": json.dumps(record.parameters, sort_keys=True),
        "curve": json.dumps(record.curve, sort_keys=True),
    }


def _or_nan(value: float | None) -> float:
    return math.nan if value is None else value


def leaderboard(layout: Layout, search: str | None = None) -> list[dict[str, Any]]:
    """Rank the trials of one search, or of all: best loss first, those without a loss last.

    Returns:
        A mapping a trial: ``search``, ``trial``, ``recipe_id``, ``status``, ``epochs``, ``best_loss``, ``seconds``,
        ``reason`` and the searched parameters by name. Absent figures are None.
    """
    rows = []
    for name, records in _chosen(layout, search).items():
        is_running = is_held(lock_path(layout, name))
        for record in records:
            row = {key: value for key, value in _row(name, record).items() if key not in _LONG}
            row["best_loss"], row["last_loss"] = record.best_loss, record.last_loss
            row["status"] = RUNNING if is_running and not record.ended else record.status
            rows.append({**record.parameters, **row})
    return sorted(rows, key=lambda row: (row["best_loss"] is None, row["best_loss"], row["search"], row["trial"]))


_LONG = ("recipe", "parameters", "curve")


def _chosen(layout: Layout, search: str | None) -> dict[str, list[TrialRecord]]:
    records = all_records(layout)
    if search is None:
        return records
    if search not in records:
        raise DataError(f"no search {search!r} in {layout.searches}; there is {', '.join(records)}")
    return {search: records[search]}


def train_top(layout: Layout, search: str | None = None) -> int:
    """Return how many winners the chosen searches want trained: the most that one of them names."""
    names = list(_chosen(layout, search))
    return max(int(Ledger(ledger_path(layout, name)).about()["space"]["train"]["top"]) for name in names)


def winners(layout: Layout, n: int, search: str | None = None) -> list[Recipe]:
    """Return the ``n`` best distinct recipes of one search, or of all, unlike ones first.

    Trials that were trained to the end come before stopped ones, whatever the loss: a stopped trial's loss was never
    annealed. Among these the lower loss at the end of the curve wins, since a run keeps its last weights; but a recipe
    that differs from a better one in nothing but its optimisation waits until every other kind has had its turn. Two
    runs of one kind err alike, and a blend lives on members that do not.

    Raises:
        DataError: no trial has a loss yet.
    """
    records = [r for records in _chosen(layout, search).values() for r in records if r.last_loss is not None]
    ranked = sorted(
        (r for r in records if r.status in (FINISHED, STOPPED)),
        key=lambda r: (r.status != FINISHED, _or_nan(r.last_loss), r.trial),
    )
    if not ranked:
        raise DataError(
            f"no trial in {layout.searches} has ended with a loss ({sum(r.status == FAILED for r in records)} failed); "
            f"run `ichtune search` first"
        )
    finished = [r.recipe for r in ranked if r.status == FINISHED]
    stopped = [r.recipe for r in ranked if r.status == STOPPED]
    order = [*_unlike_first(finished), *_unlike_first(stopped)]
    return list(dict.fromkeys(order))[:n]


def _unlike_first(ranked: list[Recipe]) -> list[Recipe]:
    """Put the best recipe of each kind before second ones of any kind; otherwise keep the order."""
    turns: dict[tuple[object, ...], int] = {}
    placed = []
    for place, recipe in enumerate(ranked):
        kind = (recipe.architecture, recipe.windows, recipe.neighbours, recipe.image_px, recipe.crop)
        turns[kind] = turns.get(kind, 0) + 1
        placed.append((turns[kind], place, recipe))
    return [recipe for _, _, recipe in sorted(placed, key=lambda entry: entry[:2])]
