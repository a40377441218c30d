"""Searches replayed on the table of full curves: the search's own decisions, with training looked up."""

import math
import tempfile
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from benchmarks.rung_table import FIXED, GRID, read_table
from ichtune.recipe import Recipe
from ichtune.search.ledger import FINISHED, STOPPED, Ledger, TrialRecord
from ichtune.search.legs import Budget, Legs, Nothing
from ichtune.search.names import METRIC
from ichtune.search.schedulers import create_scheduler, to_finish
from ichtune.search.stages import plan_trial
from ichtune.space import EarlyStop, SearchSettings, Space, TrainSettings, read_space

N_EPOCHS = FIXED["epochs"]
KEYS = tuple(GRID)
#: Proposals in a row that were tried already, after which a search proposes no more while there are stopped trials.
N_REPEATS = 3


@dataclass
class Table:
    """Full curves of one seed, by the searched values of a recipe."""

    runs: dict[tuple[Any, ...], dict[str, Any]]

    @property
    def best(self) -> float:
        return min(run["last"][-1] for run in self.runs.values())

    def run_of(self, recipe: Recipe) -> dict[str, Any]:
        return self.runs[_key(recipe)]


def _key(recipe: Recipe) -> tuple[Any, ...]:
    return tuple(getattr(recipe, key) for key in KEYS)


def tables(rows: list[dict[str, Any]] | None = None) -> dict[int, Table]:
    """Return a table for each seed; runs that diverged lose to all others."""
    found: dict[int, Table] = {}
    for row in rows or read_table():
        row["last"] = [math.inf if loss is None else loss for loss in row["last"]]
        recipe = Recipe.from_dict({**FIXED, **row["values"]})
        found.setdefault(row["seed"], Table({})).runs[_key(recipe)] = row
    return found


def space_of(algorithm: str, early_stop: EarlyStop, seed: int, **other: str) -> Space:
    """Return the table's grid as a search space; ``other`` are parameters in YAML in place of the grid's."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "grid.yaml"
        lines = [f"  {key}: {value}" for key, value in FIXED.items()]
        written = {key: f"{{choices: {list(values)}}}" for key, values in GRID.items()} | other
        lines += [f"  {key}: {text}" for key, text in written.items()]
        path.write_text("parameters:\n" + "\n".join(lines) + "\n")
        space = read_space(path)
    settings = SearchSettings(
        algorithm=algorithm, trials=10**6, seed=seed, early_stop=replace(early_stop, max=N_EPOCHS)
    )
    return replace(space, search=settings, train=TrainSettings(top=1))


def rung_loss(run: dict[str, Any], early_stop: EarlyStop, epoch: int) -> tuple[float, float]:
    """Return what a rung sees of a run, and the epochs that seeing it costs."""
    if early_stop.judge == "cooldown":
        loss, cost = run["cooldown"][str(early_stop.cooldown)][str(epoch)], early_stop.cooldown
    elif early_stop.judge == "average":
        loss, cost = run["average"][epoch - 1], 0.0
    else:
        loss, cost = run["last"][epoch - 1], 0.0
    return (math.inf if loss is None else loss), cost


def replay(table: Table, space: Space, target: float, legs_of: Any = Legs) -> float:
    """Search a table until a trial ends at or below the target; returns the epochs spent."""
    early_stop, spent = space.search.early_stop, 0.0
    n_points = len(table.runs)
    with tempfile.TemporaryDirectory(dir="/dev/shm" if Path("/dev/shm").is_dir() else None) as folder:
        ledger = Ledger(Path(folder) / "ledger.jsonl")
        ledger.open({"space_id": space.space_id})
        legs = legs_of(space, ledger, create_scheduler(early_stop), Budget(n_trials=4 * n_points))
        while (record := _next(legs, n_points)) is not None:
            for cost, is_finished in _run_leg(legs, record, table.run_of(record.recipe)):
                spent += cost
                if is_finished and (record.last_loss or math.inf) <= target:
                    return spent
    raise AssertionError("the search ended without the best recipe")


def _next(legs: Legs, n_points: int) -> TrialRecord | None:
    """Return the next leg; once proposals repeat themselves, stopped trials are trained to their end, best first."""
    while True:
        records = legs.ledger.records()
        is_over = len({record.recipe.recipe_id for record in records}) == n_points
        repeats = [record.duplicate_of is not None for record in records[-N_REPEATS:]]
        is_stuck = len(repeats) == N_REPEATS and all(repeats) and bool(to_finish(records, 1))
        legs.budget = Budget(n_trials=len(records) + (0 if is_over or is_stuck else 1))
        found = legs.next()
        if not isinstance(found, Nothing):
            return found
        for trial in to_finish(legs.ledger.records(), 1 if is_over or is_stuck else 0):
            legs.ledger.go_on(trial, to_end=True)
            return legs.ledger.records()[trial]
        if is_over:
            return None


def _run_leg(legs: Legs, record: TrialRecord, run: dict[str, Any]) -> Any:
    early_stop = legs.space.search.early_stop
    plan = plan_trial(record.recipe, (0,), early_stop, legs.scheduler.rungs(record.trial))
    for epoch in range(len(record.curve) + 1, plan.n_epochs + 1):
        place = plan.place(epoch)
        entry = {"epoch": epoch, METRIC: run["last"][epoch - 1], "seconds": 1.0, "cost": 1.0}
        if place.rung is not None:
            entry["rung"] = place.rung
            entry["rung_loss"], extra = rung_loss(run, early_stop, epoch)
            entry["cost"] += extra
        legs.ledger.epoch(record.trial, entry)
        legs.ledger.records()
        if epoch == plan.n_epochs:
            legs.ledger.end(record.trial, FINISHED)
            legs.ledger.records()
        yield entry["cost"], epoch == plan.n_epochs
        if record.awaits_judgement and not legs.decide(record):
            legs.ledger.end(record.trial, STOPPED)
            return
