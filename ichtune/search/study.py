"""run_search: one search, from its space to its table, continued wherever it was left."""

import logging
import math
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ray import tune

from ichtune.errors import ConfigError, DataError, NothingUsableError
from ichtune.locks import only_one
from ichtune.recipe import Recipe
from ichtune.search.cluster import Cluster, ray_session
from ichtune.search.ledger import FAILED, FINISHED, INTERRUPTED, STOPPED, Ledger, TrialRecord
from ichtune.search.objective import FoldTrial
from ichtune.search.schedulers import create_scheduler, find_scheduler
from ichtune.search.searchers import LedgerSearcher, find_searcher
from ichtune.search.telemetry import LedgerCallback, OnEvent, TrialEvent
from ichtune.search.trial_table import ledger_path, lock_path, write_trials
from ichtune.space import Resources, Space, check_corners, combinations
from ichtune.space.domains import Choice, label_of
from ichtune.training.checks import NAME_CHECKS, check_recipe, check_weights
from ichtune.training.fold_run import cache_to_read
from ichtune.workspace import Workspace

#: Times that a trial whose worker died is taken up again, each time from its last whole epoch.
MAX_FAILURES = 2


@dataclass(frozen=True)
class SearchOptions:
    """What a person may set beside the space.

    Attributes:
        name: of the search's folder; the space's name by default.
        n_trials: trials in all, counted over every run of the search; None takes the space's.
        time_s: seconds after which this run ends; None takes the space's.
        concurrent: trials at a time; None takes the space's, or as many as the resources hold.
        address: of a Ray cluster to join.
        dashboard: whether a Ray that is started here has a dashboard.
    """

    name: str | None = None
    n_trials: int | None = None
    time_s: float | None = None
    concurrent: int | None = None
    address: str | None = None
    dashboard: bool = True


@dataclass(frozen=True)
class SearchResult:
    """How a run of a search ended."""

    name: str
    records: list[TrialRecord]
    n_trials: int
    time_is_up: bool = False

    @property
    def complete(self) -> bool:
        """Whether every trial that was asked for has ended."""
        return self.count(INTERRUPTED) == 0 and len(self.records) >= self.n_trials

    def count(self, status: str) -> int:
        """Return how many trials have a status."""
        return sum(record.status == status for record in self.records)

    @property
    def best(self) -> TrialRecord | None:
        """The trial that ended with the lowest loss."""
        ended = [r for r in self.records if r.status in (FINISHED, STOPPED) and r.best_loss is not None]
        return min(ended, key=lambda record: record.best_loss or math.inf, default=None)


def run_search(
    workspace: Workspace,
    space: Space,
    options: SearchOptions,
    on_start: Callable[[Cluster, list[TrialRecord]], None] | None = None,
    on_event: OnEvent | None = None,
) -> SearchResult:
    """Run a search, or continue the one of the same name.

    Trials that ended are never run again; one that was interrupted goes on after its last whole epoch.

    Args:
        workspace: prepared data.
        space: what to search.
        options: budget and place.
        on_start: called once Ray is ready, with the trials of earlier runs.
        on_event: called for each epoch and each end of a trial.

    Raises:
        ConfigError: the space does not fit the workspace, or the search of this name had another space.
        ConflictError: a search of this name is running already.
        NothingUsableError: no trial ended with a usable result.
    """
    check_space(workspace, space)
    check_data(workspace, inputs_of(space))
    name = options.name or space.name
    n_trials = options.n_trials or space.search.trials
    ledger = Ledger(ledger_path(workspace.layout, name))
    start = time.monotonic()
    busy = f"search {name!r} is running already in {workspace.layout.root}; watch it with `ichtune leaderboard`"
    with only_one(lock_path(workspace.layout, name), busy):
        ledger.open(_identity(workspace, space), {"space": space.resolved()})
        records = ledger.records()
        if any(not record.ended for record in records) or len(records) < n_trials:
            with ray_session(options.address, ledger.path.parent / "ray_token", dashboard=options.dashboard) as cluster:
                if on_start is not None:
                    on_start(cluster, records)
                tell = _table_writer(workspace, on_event)
                _tune(workspace, space, options, ledger, n_trials, cluster, tell)
    write_trials(workspace.layout)
    time_s = options.time_s or space.search.time_s
    time_is_up = time_s is not None and time.monotonic() - start >= time_s
    result = SearchResult(name, ledger.records(), n_trials, time_is_up)
    if result.records and result.count(FAILED) == len(result.records) and result.complete:
        raise NothingUsableError(
            f"all {len(result.records)} trials of search {name!r} failed, the last with: {result.records[-1].reason}"
        )
    return result


def _table_writer(workspace: Workspace, on_event: OnEvent | None) -> OnEvent:
    """Keep trials.parquet as new as the last trial that ended, so that a kill leaves it current."""

    def tell(event: TrialEvent) -> None:
        if event.kind != "epoch":
            write_trials(workspace.layout)
        if on_event is not None:
            on_event(event)

    return tell


def _check_pretrained(space: Space) -> None:
    """Build each network that would start from pretrained weights once: missing ones must not cost a search."""
    default = Recipe()
    smallest_px: dict[tuple[str, bool | str], int] = {}
    for values in combinations(space, ("architecture", "pretrained", "image_px")):
        architecture, weights, image_px = (
            values.get(key, getattr(default, key)) for key in ("architecture", "pretrained", "image_px")
        )
        if weights is not False:
            pair = architecture, weights
            smallest_px[pair] = min(image_px, smallest_px.get(pair, image_px))
    for (architecture, weights), image_px in smallest_px.items():
        with space.at(*space.places.get(("pretrained", label_of(weights)), ("parameters", "pretrained"))):
            check_weights(Recipe(architecture=architecture, pretrained=weights, image_px=image_px))


def check_space(workspace: Workspace, space: Space) -> None:
    """Refuse, before anything is spent, what would fail trial by trial.

    Raises:
        ConfigError: a name that no table knows, values that contradict each other, weights that do not fit, or folds
            that the workspace does not have; with its place in the file where there is one.
        DataError: pretrained weights that are not there.
    """
    space.check_names(NAME_CHECKS)
    check_corners(space, check_recipe)
    _check_pretrained(space)
    with space.at("search", "algorithm"):
        find_searcher(space.search.algorithm)
    with space.at("search", "early_stop", "type"):
        find_scheduler(space.search.early_stop.type)
    plan, asked = workspace.fold_plan, space.folds
    if (asked.k not in (None, plan.k)) or (asked.seed not in (None, plan.seed)):
        raise ConfigError(
            f"space {space.name!r} asks for {asked.k} folds with seed {asked.seed}, but {workspace.layout.folds} has "
            f"{plan.k} with seed {plan.seed}; leave `folds` to `search_on` alone, or run `ichtune prepare ... "
            f"--folds {asked.k} --seed {asked.seed}`"
        )
    beyond = [fold for fold in asked.search_on if fold >= plan.k]
    if beyond:
        raise ConfigError(
            f"space {space.name!r}: search_on names folds {beyond}, but the workspace has 0..{plan.k - 1}"
        )


def check_data(workspace: Workspace, inputs: Iterable[tuple[int, str]]) -> None:
    """Refuse, before Ray is started, a workspace that some recipe could not be trained on.

    Args:
        workspace: prepared data.
        inputs: ``image_px`` and ``crop`` of the recipes.

    Raises:
        DataError: no labelled slices, slices of several sizes, or a crop that was not prepared; the message names
            the command that mends it.
    """
    if workspace.labelled.empty:
        raise DataError(
            f"workspace {workspace.layout.root} has no labelled slices to train on; run `ichtune prepare DICOM_DIR "
            f"--labels CSV --out {workspace.layout.root}`"
        )
    for image_px, crop in dict.fromkeys(inputs):
        cache_to_read(workspace, image_px, crop)


def inputs_of(space: Space) -> list[tuple[int, str]]:
    """Return for every crop that a space may choose the largest ``image_px`` that it may ask for."""
    default = Recipe()
    asked: dict[str, set[Any]] = {key: {getattr(default, key)} for key in ("image_px", "crop")}
    for key, values in asked.items():
        parameter = space.parameter(key)
        if parameter is not None:
            if not parameter.when:  # where a condition fails the default is taken
                values.clear()
            domain = parameter.domain
            values.update([o.value for o in domain.options] if isinstance(domain, Choice) else [domain.high])
        values.update(start[key] for start in space.start_with if key in start)
    return [(int(max(asked["image_px"])), crop) for crop in sorted(asked["crop"])]


def _identity(workspace: Workspace, space: Space) -> dict[str, Any]:
    return {
        "space_id": space.space_id,
        "fold_plan_hash": workspace.fold_plan.plan_hash,
        "cache_id": str(workspace.about["cache_id"]),
        "folds": list(space.folds.search_on),
    }


def trial_resources(resources: Resources, n_gpus: float) -> dict[str, float]:
    """Return what one trial asks Ray for: a share of a GPU where there are any, else cores."""
    if n_gpus > 0 and resources.gpu > 0:
        return {"gpu": resources.gpu, "cpu": resources.cpu}
    return {"cpu": resources.cpu or 1.0}


def wants_gpu(asked: dict[str, float]) -> bool:
    """Return whether a task asked for a GPU; Ray hides none from one that did not."""
    return asked.get("gpu", 0) > 0


def n_concurrent(asked: dict[str, float], cluster: Cluster) -> int:
    """Return how many trials fit on the cluster at a time, at least one.

    Raises:
        ConfigError: not even one fits, which Ray would wait for without end.
    """
    has = {"cpu": cluster.n_cpus, "gpu": cluster.n_gpus}
    fits = min(math.floor(has[kind] / amount + 1e-9) for kind, amount in asked.items() if amount > 0)
    if fits < 1:
        raise ConfigError(
            f"a trial asks for {asked}, but the cluster has {cluster.n_cpus:g} CPUs and {cluster.n_gpus:g} GPUs; lower "
            f"`resources` in the space"
        )
    return fits


def _tune(
    workspace: Workspace,
    space: Space,
    options: SearchOptions,
    ledger: Ledger,
    n_trials: int,
    cluster: Cluster,
    on_event: OnEvent,
) -> None:
    resources = trial_resources(space.resources, cluster.n_gpus)
    n_threads = max(1, math.floor(resources["cpu"]))
    folder = ledger.path.parent.resolve()

    def config_of(record: TrialRecord) -> dict[str, Any]:
        return {
            "work": str(workspace.layout.root.resolve()),
            "folder": str(folder / "trials" / f"{record.trial:04d}"),
            "trial": record.trial,
            "folds": list(space.folds.search_on),
            "recipe": record.recipe.to_dict(),
            "summary": record.recipe.summary,
            "n_threads": n_threads,
            "wants_gpu": wants_gpu(resources),
        }

    records = ledger.records()
    for name in ("ray.tune", "ray.train"):
        logging.getLogger(name).setLevel(logging.ERROR)
    tuner = tune.Tuner(
        tune.with_resources(FoldTrial, resources),
        tune_config=tune.TuneConfig(
            search_alg=LedgerSearcher(space, ledger, n_trials, config_of),
            scheduler=create_scheduler(space.search.early_stop, [r for r in records if r.ended]),
            num_samples=-1,
            max_concurrent_trials=options.concurrent or space.search.concurrent or n_concurrent(resources, cluster),
            time_budget_s=options.time_s or space.search.time_s,
            reuse_actors=True,
            trial_name_creator=_trial_name,
            trial_dirname_creator=_trial_name,
        ),
        run_config=tune.RunConfig(
            name="ray",
            storage_path=str(folder),
            verbose=0,
            callbacks=[LedgerCallback(ledger, on_event)],
            failure_config=tune.FailureConfig(max_failures=MAX_FAILURES),
            checkpoint_config=tune.CheckpointConfig(checkpoint_frequency=0, checkpoint_at_end=False),
        ),
    )
    tuner.fit()


def _trial_name(trial: Any) -> str:
    return f"trial_{trial.config['trial']:04d}"


def search_folder(workspace: Workspace, name: str) -> Path:
    """Return the folder of a search."""
    return ledger_path(workspace.layout, name).parent
