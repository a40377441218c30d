"""What finding the best recipe costs: epochs spent until a trial ends within 1 % of the best, replayed on the table.

Each variant searches the same grid, one trial at a time, 60 times (seeds of the search, in turns over the seeds of the
table). What was tried already is answered from the table for every variant, also for the stock ones. Branches count as
the epochs that they cost. The ratio is that of the medians, to random search that trains every trial to its end.
"""

import math
import random
import statistics
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import Any

from benchmarks.replays import N_EPOCHS, Table, replay, space_of, tables
from benchmarks.rung_table import grid
from ichtune.search.names import METRIC
from ichtune.space import EarlyStop

N_REPLAYS = 60
#: Proposals in a row that were tried already, after which a stock sampler is given a random point.
MAX_REPEATS = 20
#: Epochs after which a stock search is given up: those of the whole table.
MOST_EPOCHS = len(grid()) * N_EPOCHS
WITHIN = 1.01
TO_THE_END = EarlyStop(type="none")


def ours(algorithm: str, **early_stop: Any) -> Callable[[Table, int, float], float]:
    """Return a variant that runs the search's own decisions."""
    return partial(_ours, algorithm, EarlyStop(**{"type": "none", **early_stop}))


def _ours(algorithm: str, early_stop: EarlyStop, table: Table, seed: int, target: float) -> float:
    return replay(table, space_of(algorithm, early_stop, seed), target)


def stock(sampler: str, scheduler: str) -> Callable[[Table, int, float], float]:
    """Return a variant of stock parts: Optuna's sampler and Ray's scheduler, as Ray Tune joins the two."""
    return partial(_stock, sampler, scheduler)


def _stock(sampler: str, scheduler: str, table: Table, seed: int, target: float) -> float:
    """Replay Ray's scheduler on the plain losses; what it stops is told to Optuna as complete, as OptunaSearch does."""
    import optuna

    from benchmarks.rung_table import FIXED, GRID
    from ichtune.recipe import Recipe

    optuna.logging.set_verbosity(optuna.logging.ERROR)
    samplers = {"random": optuna.samplers.RandomSampler, "TPE": optuna.samplers.TPESampler}
    study = optuna.create_study(sampler=samplers[sampler](seed=seed))
    rng = random.Random(seed)
    judge, spent, seen, n_repeats = _ray_scheduler(scheduler), 0.0, {}, 0
    while True:
        if n_repeats > MAX_REPEATS:  # the sampler is caught in one corner: help it out, at no cost
            study.enqueue_trial({key: rng.randrange(len(values)) for key, values in GRID.items()})
        asked = study.ask()
        labels = {key: asked.suggest_categorical(key, range(len(values))) for key, values in GRID.items()}
        point = {key: GRID[key][i] for key, i in labels.items()}
        number = tuple(labels.values())
        if spent > MOST_EPOCHS:
            return math.inf  # the best recipe is stopped again and again
        if number in seen:
            n_repeats += 1
            if n_repeats <= MAX_REPEATS:
                study.tell(asked, seen[number])
            continue
        n_repeats = 0
        run = table.run_of(Recipe.from_dict({**FIXED, **point}))
        trial = _Trial(str(asked.number))
        judge.on_trial_add(_CONTROLLER, trial)
        for epoch, loss in enumerate(run["last"], start=1):
            spent += 1
            if epoch < N_EPOCHS and judge.on_trial_result(_CONTROLLER, trial, {"epoch": epoch, METRIC: loss}) == "STOP":
                break
        judge.on_trial_complete(_CONTROLLER, trial, {"epoch": epoch, METRIC: loss})
        study.tell(asked, loss)
        if epoch == N_EPOCHS:  # only a whole curve answers for the next one
            seen[number] = loss
            if loss <= target:
                return spent


@dataclass(frozen=True)
class _Trial:
    """What Ray's schedulers look at of a trial."""

    trial_id: str


class _Controller:
    """What Ray's schedulers ask of a controller: one trial runs at a time."""

    def get_live_trials(self) -> set[Any]:
        return set()


_CONTROLLER: Any = _Controller()


def _ray_scheduler(name: str) -> Any:
    from ray.tune.schedulers import AsyncHyperBandScheduler, MedianStoppingRule

    shared = {"time_attr": "epoch", "metric": METRIC, "mode": "min"}
    if name == "median":
        return MedianStoppingRule(**shared, grace_period=1)
    return AsyncHyperBandScheduler(**shared, grace_period=1, max_t=N_EPOCHS, reduction_factor=3)


def _cooled(grace: int) -> Callable[[Table, int, float], float]:
    return ours("tpe", type="asha", grace=grace, factor=3, judge="cooldown", cooldown=0.5)


#: Variants by name; the first one is what the others are measured by.
VARIANTS: dict[str, Callable[[Table, int, float], float]] = {
    "random search, every trial to its end": ours("random"),
    "random + Ray's ASHA, plain losses": stock("random", "asha"),
    "random + Ray's median stopping, plain losses": stock("random", "median"),
    "Optuna's TPE, every trial to its end": ours("tpe"),
    "Optuna's TPE + Ray's ASHA, as OptunaSearch joins them": stock("TPE", "asha"),
    "Optuna's TPE + Ray's median stopping": stock("TPE", "median"),
    "ours: TPE, promoting ASHA, rungs at 1, 2, 4, 8, best half, plain losses (as shipped)": ours("tpe", type="asha"),
    "ours: TPE, promoting ASHA, rungs at 1 and 3, best third, plain losses": ours("tpe", type="asha", factor=3),
    "ours: TPE, promoting ASHA, rungs at 1 and 3, best third, cooldown of 0.5": _cooled(1),
    "ours: TPE, promoting ASHA, rungs at 3 and 6, best half, plain losses": ours("tpe", type="asha", grace=3),
    "ours: TPE, promoting ASHA, rung at 3, best third, cooldown of 0.5": _cooled(3),
    "ours: TPE, median stopping, rungs at 1, 2, 4, 8, plain losses": ours("tpe", type="median"),
    "ours: TPE, HyperBand, rungs at 1, 2, 4, 8, plain losses": ours("tpe", type="hyperband"),
}


def measure() -> Iterator[tuple[str, str, str]]:
    found = run_variants(VARIANTS, tables())
    base = statistics.median(found[next(iter(VARIANTS))])
    for name, spent in found.items():
        middle = statistics.median(spent)
        low, high = (sorted(spent)[round(share * (len(spent) - 1))] for share in (0.25, 0.75))
        yield (
            f"epochs until within 1 % of the best: {name}",
            f"{middle:.0f} ({low:.0f} to {high:.0f}): **{base / middle:.1f} times fewer**",
            f"median and quartiles of {len(spent)} replays, generated data",
        )


def run_variants(
    variants: dict[str, Callable[[Table, int, float], float]], by_seed: dict[int, Table], n: int = N_REPLAYS
) -> dict[str, list[float]]:
    """Return the epochs that each variant spent in each of ``n`` replays."""
    jobs = [(variant, by_seed[sorted(by_seed)[i % len(by_seed)]], i) for variant in variants.values() for i in range(n)]
    with ProcessPoolExecutor(2) as pool:
        spent = list(pool.map(_one, jobs, chunksize=4))
    return {name: spent[i * n : (i + 1) * n] for i, name in enumerate(variants)}


def _one(job: tuple[Any, Table, int]) -> float:
    variant, table, seed = job
    return float(variant(table, seed, WITHIN * table.best))
