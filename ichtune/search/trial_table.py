"""Trials of every search as one table, and the leaderboard made of it."""

import json
import logging
import math
import time
from collections.abc import Callable, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import pandas as pd

from ichtune.errors import ConfigError, DataError
from ichtune.layout import Layout
from ichtune.locks import is_held
from ichtune.recipe import Recipe
from ichtune.search.ledger import FAILED, FINISHED, STOPPED, Ledger, TrialRecord
from ichtune.search.levels import search_level
from ichtune.second_level_recipe import LEVEL, AnyRecipe, SecondLevelRecipe
from ichtune.space.levels import level_of_recipe
from ichtune.tables import TRIALS, write_table

#: What the leaderboard calls a trial without an end while its search runs.
RUNNING = "running"


def ledger_path(layout: Layout, search: str) -> Path:
    """Return where the ledger of a search lies."""
    return layout.searches / search / "ledger.jsonl"


def lock_path(layout: Layout, search: str) -> Path:
    """Return the file that is locked while a search runs."""
    return layout.searches / search / ".lock"


def holder_path(layout: Layout, search: str) -> Path:
    """Return where it is noted who held a search's lease when its workspace, at a URL, was last looked at."""
    return layout.searches / search / "holder.json"


def is_running(layout: Layout, search: str) -> bool:
    """Say whether a search runs now: on this machine, or, by the clocks, on another one at the workspace's URL."""
    if is_held(lock_path(layout, search)):
        return True
    try:
        holder = json.loads(holder_path(layout, search).read_text(encoding="utf-8"))
        return bool(time.time() < holder["alive_until"])
    except (OSError, ValueError, LookupError, TypeError):
        return False


def search_names(layout: Layout) -> list[str]:
    """Return the names of the searches in a workspace, in order."""
    return sorted(path.parent.name for path in layout.searches.glob("*/ledger.jsonl"))


def readable_ledgers(layout: Layout) -> dict[str, Ledger]:
    """Return the ledgers of every search in a workspace, by the search's name.

    One that is damaged, or moved away meanwhile, is no concern of the other searches: it is left out, and said so once.
    """
    found = {}
    for name in search_names(layout):
        ledger = Ledger(ledger_path(layout, name))
        try:
            ledger.records()
        except DataError as error:
            _warn_once(f"search {name!r} is left out: {error}")
        else:
            found[name] = ledger
    return found


@lru_cache(maxsize=256)
def _warn_once(message: str) -> None:
    logging.getLogger(__name__).warning(message)


def all_records(layout: Layout) -> dict[str, list[TrialRecord]]:
    """Return the trials of every search whose ledger can be read, by the search's name.

    Raises:
        DataError: there is none.
    """
    found = {name: ledger.records() for name, ledger in readable_ledgers(layout).items()}
    if not found:
        _check_any(search_names(layout), layout)
        raise DataError(f"no ledger in {layout.searches} can be read; restore one of them from a copy")
    return found


def _check_any(names: list[str], layout: Layout, level: int = 1) -> None:
    if not names:
        example = search_level(level).example
        raise DataError(f"no search in {layout.searches}: run `ichtune search --space {example}` first")


def trial_checkpoints(layout: Layout, exists: Callable[[Path], bool] = Path.is_file) -> dict[tuple[str, int], Path]:
    """Return the checkpoints that trials have left, by recipe_id and the fold held out; the longest of several.

    A winner's trial has been trained on its fold already: in cross-validation that fold costs nothing more.

    Args:
        layout: of the workspace.
        exists: says whether there is a file.
    """
    found: dict[tuple[str, int], tuple[int, Path]] = {}
    for search, ledger in readable_ledgers(layout).items():
        for record in ledger.records():
            for fold in ledger.about()["folds"]:
                path = trial_folder(layout, search, record.trial) / f"checkpoint_fold_{fold}.safetensors"
                key, length = (record.recipe.recipe_id, int(fold)), len(record.curve)
                if exists(path) and length > found.get(key, (-1, path))[0]:
                    found[key] = length, path
    return {key: path.resolve() for key, (_, path) in found.items()}


def trial_folder(layout: Layout, search: str, trial: int) -> Path:
    """Return where a trial of a search keeps its checkpoints."""
    return layout.searches / search / "trials" / f"{trial:04d}"


def write_trials(layout: Layout) -> None:
    """Write ``trials.parquet`` from the ledgers that can be read."""
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
        "epochs_spent": record.n_epochs_spent,
        "n_rungs": len(record.rung_losses),
        "rung_loss": _or_nan(next(reversed(record.rung_losses.values()), None)),
        "duplicate_of": _answered_by(record),
        "best_loss": _or_nan(record.best_loss),
        "last_loss": _or_nan(record.last_loss),
        "seconds": record.seconds,
        "recipe": json.dumps(record.recipe.to_dict(), sort_keys=True),
        "parameters": json.dumps(record.parameters, sort_keys=True),
        "optuna": json.dumps(record.optuna, sort_keys=True),
        "curve": json.dumps(record.curve, sort_keys=True),
    }


def _answered_by(record: TrialRecord) -> str:
    if record.duplicate_of is None:
        return ""
    return f"{record.from_search}/{record.duplicate_of}" if record.from_search else str(record.duplicate_of)


def _or_nan(value: float | None) -> float:
    return math.nan if value is None else value


def chosen_records(layout: Layout, search: str | None = None) -> dict[str, list[TrialRecord]]:
    """Return the trials of one search, or of all, by the search's name; only what is asked for is read.

    Raises:
        DataError: there is no such search, or none at all, or its ledger is damaged.
    """
    if search is None:
        return all_records(layout)
    names = search_names(layout)
    _check_any(names, layout)
    if search not in names:
        raise DataError(f"no search {search!r} in {layout.searches}; there is {', '.join(names)}")
    return {search: Ledger(ledger_path(layout, search)).records()}


def records_of_level(layout: Layout, level: int, search: str | None = None) -> dict[str, list[TrialRecord]]:
    """Return the trials of one search, or of all, whose recipes are of one level, by the search's name.

    Args:
        layout: of the workspace.
        level: of the recipes.
        search: its name; None for all.

    Raises:
        ConfigError: the named search is of another level; the message names the command that takes its winners.
        DataError: there is no such search, or none at all, or its ledger is damaged.
    """
    _check_any(search_names(layout), layout, level)
    chosen = chosen_records(layout, search)
    levels = {name: _level_of(layout, name, records) for name, records in chosen.items()}
    found = {name: records for name, records in chosen.items() if levels[name] == level}
    if not found and search is not None:
        raise ConfigError(
            f"search {search!r} is of level {levels[search]}; its winners are for `ichtune "
            f"{search_level(levels[search]).command} --search {search}`"
        )
    if not found:
        raise DataError(
            f"no search of level {level} in {layout.searches}; there is {', '.join(chosen)}. Run `ichtune search "
            f"--space {search_level(level).example}` first"
        )
    return found


def _level_of(layout: Layout, search: str, records: Sequence[TrialRecord]) -> int:
    if records:
        return level_of_recipe(records[0].recipe).number
    space = Ledger(ledger_path(layout, search)).about().get("space") or {}
    return int(space.get("level", 1))


def train_top(layout: Layout, search: str | None = None, level: int = 1) -> int:
    """Return how many winners the chosen searches of a level want trained: the most that one of them names.

    Raises:
        ConfigError, DataError: see ``records_of_level``.
    """
    names = list(records_of_level(layout, level, search))
    return max(int(Ledger(ledger_path(layout, name)).about()["space"]["train"]["top"]) for name in names)


def finished_searches(layout: Layout, level: int) -> list[str]:
    """Return the searches of a level that have winners and do not run now, in order of their names."""
    found = {name: ledger.records() for name, ledger in readable_ledgers(layout).items()}
    return [
        name
        for name, records in found.items()
        if _level_of(layout, name, records) == level and _ranked(records) and not is_running(layout, name)
    ]


def winners(layout: Layout, n: int, search: str | None = None) -> list[Recipe]:
    """Return the ``n`` best distinct recipes of networks, of one search or of all, unlike ones first.

    Trials that were trained to the end come before stopped ones, whatever the loss: a stopped trial's loss was never
    annealed. Among these the lower loss at the end of the curve wins, since a run keeps its last weights; but a recipe
    that differs from a better one in nothing but its optimisation waits until every other kind has had its turn. Two
    runs of one kind err alike, and a blend lives on members that do not.

    Raises:
        ConfigError: the search is of the second level.
        DataError: no trial has a loss yet.
    """
    return [recipe for recipe in _winners(layout, n, search, 1) if isinstance(recipe, Recipe)]


def second_level_winners(layout: Layout, n: int, search: str | None = None) -> list[SecondLevelRecipe]:
    """Return the ``n`` best distinct recipes of the second level, ranked as ``winners`` are.

    Raises:
        ConfigError: the search is of the first level.
        DataError: no trial has a loss yet.
    """
    found = _winners(layout, n, search, LEVEL)
    return [recipe for recipe in found if isinstance(recipe, SecondLevelRecipe)]


def _winners(layout: Layout, n: int, search: str | None, level: int) -> list[AnyRecipe]:
    found = records_of_level(layout, level, search)
    records = [r for records in found.values() for r in records]
    ranked = _ranked(records)
    if not ranked:
        raise DataError(
            f"no trial in {layout.searches} has ended with a loss ({sum(r.status == FAILED for r in records)} failed); "
            f"run `ichtune search` first"
        )
    finished = [r.recipe for r in ranked if r.status == FINISHED]
    stopped = [r.recipe for r in ranked if r.status == STOPPED]
    order = [*_unlike_first(finished), *_unlike_first(stopped)]
    return list(dict.fromkeys(order))[:n]


def _ranked(records: Sequence[TrialRecord]) -> list[TrialRecord]:
    """Return the trials that have ended with a loss: those that were trained to the end first, then by that loss."""
    return sorted(
        (r for r in records if r.last_loss is not None and r.status in (FINISHED, STOPPED)),
        key=lambda r: (r.status != FINISHED, _or_nan(r.last_loss), r.trial),
    )


def _unlike_first(ranked: list[AnyRecipe]) -> list[AnyRecipe]:
    """Put the best recipe of each kind before second ones of any kind; otherwise keep the order."""
    turns: dict[tuple[object, ...], int] = {}
    placed = []
    for place, recipe in enumerate(ranked):
        turns[recipe.kind] = turns.get(recipe.kind, 0) + 1
        placed.append((turns[recipe.kind], place, recipe))
    return [recipe for _, _, recipe in sorted(placed, key=lambda entry: entry[:2])]
