"""Cross-validation as Ray tasks: every recipe on every fold, as many at a time as the cluster holds."""

import logging
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ichtune.errors import NothingUsableError
from ichtune.recipe import Recipe
from ichtune.search.checks import check_data
from ichtune.search.cluster import Cluster, ray_session
from ichtune.search.deaths import MAX_FAILURES
from ichtune.search.growth import can_grow
from ichtune.search.mirror import fetch_pixels, fetch_runs, fetch_sources, node_workspace, push
from ichtune.search.node_folder import NodeFolder, fetched_file, trial_files
from ichtune.search.packer import Packer
from ichtune.space import Resources
from ichtune.training.checks import check_weights
from ichtune.training.crossval import FoldResult, TrainOptions, assemble_run, finished_fold, is_complete, train_fold
from ichtune.training.devices import device_for
from ichtune.training.fold_run import check_sources, fold_folder
from ichtune.workspace import Workspace

#: Seconds between two looks at how far the folds are.
POLL_S = 1.0


@dataclass(frozen=True)
class RunResult:
    """One recipe trained on every fold; losses in nats."""

    recipe: Recipe
    oof_loss: float
    fold_losses: tuple[float, ...]
    seconds: float


@dataclass(frozen=True)
class FoldTask:
    """One recipe to be trained without one fold."""

    recipe: Recipe
    fold: int


@dataclass(frozen=True)
class CrossvalProgress:
    """How far a cross-validation is: epochs done of all, folds done of all, and the fold that ended last."""

    epochs_done: int
    epochs: int
    folds_done: int
    folds: int
    last: FoldResult | None


def train_recipes(
    workspace: Workspace,
    recipes: Sequence[Recipe],
    resources: Resources,
    address: str | None = None,
    on_progress: Callable[[CrossvalProgress], None] | None = None,
    options: TrainOptions | None = None,
) -> list[RunResult]:
    """Train each recipe on every fold and put its out-of-fold and test Predictions together.

    Folds that are trained already are not trained again; one that was interrupted goes on after its last whole epoch.

    Raises:
        ConflictError: a recipe would start from, or be taught by, a model that has seen what it is scored on.
        DataError: weights or runs that a recipe starts from are not there.
        NothingUsableError: a fold failed; the message names it, and the others are kept.
    """
    inputs = [(recipe.image_px, recipe.crop) for recipe in recipes]
    fetch_pixels(workspace, inputs)
    fetch_runs(workspace, recipes)
    check_data(workspace, inputs)
    k = workspace.fold_plan.k
    tasks = [FoldTask(recipe, fold) for recipe in recipes for fold in range(k)]
    options = options or TrainOptions()
    waiting = [task for task in tasks if not is_complete(workspace, task.recipe, task.fold, options)]
    for task in waiting:
        check_sources(workspace, task.recipe, task.fold)
    for recipe in {task.recipe for task in waiting}:
        check_weights(recipe)
    if waiting:
        token = workspace.layout.searches / "ray_token"
        with ray_session(address, token, dashboard=False) as cluster:
            _run_tasks(workspace, waiting, tasks, resources, cluster, on_progress, options)
        fetch_runs(workspace, recipes)
    runs = [_assembled(workspace, recipe) for recipe in recipes]
    push(workspace, [workspace.layout.runs / recipe.recipe_id for recipe in recipes])
    return runs


def _assembled(workspace: Workspace, recipe: Recipe) -> RunResult:
    folds = [finished_fold(workspace, recipe, fold) for fold in range(workspace.fold_plan.k)]
    results = [result for result in folds if result is not None]
    losses = tuple(result.val_weighted_log_loss for result in results)
    return RunResult(recipe, assemble_run(workspace, recipe), losses, sum(r.seconds for r in results))


def _run_tasks(
    workspace: Workspace,
    waiting: Sequence[FoldTask],
    tasks: Sequence[FoldTask],
    resources: Resources,
    cluster: Cluster,
    on_progress: Callable[[CrossvalProgress], None] | None,
    options: TrainOptions,
) -> None:
    import ray

    recipes = list(dict.fromkeys(task.recipe for task in waiting))
    grows, note = cluster.joined and can_grow(), logging.getLogger(__name__).warning
    packer = Packer(workspace, resources, workspace.layout.runs, recipes, waiting[0].fold, grows=grows, note=note)
    work, begun = workspace.origin or str(workspace.layout.root.resolve()), trial_files(workspace)
    pending = {}
    for task in waiting:
        checkpoint = begun.get((task.recipe.recipe_id, task.fold))
        pending[_started(packer.request(task.recipe), work, task, options, checkpoint)] = task
    failures: list[str] = []
    last: FoldResult | None = None
    while pending:
        ready, _ = ray.wait(list(pending), timeout=POLL_S)
        for reference in ready:
            task = pending.pop(reference)
            try:
                last = FoldResult(**ray.get(reference))
            except (ray.exceptions.RayError, NothingUsableError) as error:
                failures.append(f"fold {task.fold} of {task.recipe.summary}: {_first_cause(error)}")
        if on_progress is not None:
            on_progress(_progress(workspace, tasks, pending.values(), last))
    if failures:
        raise NothingUsableError(
            f"{len(failures)} of {len(waiting)} folds failed, the first: {failures[0]}. The others are kept; run "
            f"`ichtune train` again to try the failed ones"
        )


def _started(request: dict[str, Any], work: str, task: FoldTask, options: TrainOptions, begun: str | None) -> Any:
    """Hand a task to Ray and return its reference."""
    import ray

    asked = request["resources"]
    remote = ray.remote(
        num_cpus=asked["cpu"],
        num_gpus=asked.get("gpu", 0),
        memory=asked.get("memory"),
        max_retries=MAX_FAILURES,
    )(_train_fold)
    name = f"{task.recipe.recipe_id}|fold_{task.fold}|{task.recipe.summary}"
    return remote.options(name=name).remote(work, task.recipe.to_dict(), task.fold, request, options, begun)


def _train_fold(
    work: str, recipe: dict[str, Any], fold: int, request: dict[str, Any], options: TrainOptions, begun: str | None
) -> dict[str, Any]:
    from dataclasses import asdict

    from ichtune.search.packing import pin_threads
    from ichtune.training.memory import hold_to_share

    pin_threads(int(request["n_threads"]))
    device = device_for(request["wants_gpu"])
    hold_to_share(device, request["resources"].get("gpu", 1.0), gpu_memory_mb=request["gpu_memory_mb"])
    chosen = Recipe.from_dict(recipe)
    workspace = node_workspace(work, None, frozenset({(chosen.image_px, chosen.crop)}))
    files = NodeFolder(work, f"runs/{chosen.recipe_id}/fold_{fold}")
    files.fetch()
    fetch_sources(workspace, chosen, fold)
    path = None if begun is None else fetched_file(work, begun)
    result = train_fold(workspace, chosen, fold, device, on_epoch=lambda _: files.push(), options=options, begun=path)
    files.push(gone=["resume.safetensors"])
    return asdict(result)


def _first_cause(error: Exception) -> str:
    cause = getattr(error, "cause", None) or error
    text = str(cause).strip()
    return text.splitlines()[-1] if text else type(cause).__name__


def _progress(
    workspace: Workspace, tasks: Sequence[FoldTask], pending: Iterable[FoldTask], last: FoldResult | None
) -> CrossvalProgress:
    unfinished = set(pending)
    epochs_done = sum(
        _epochs_so_far(fold_folder(workspace, task.recipe.recipe_id, task.fold))
        if task in unfinished
        else task.recipe.epochs
        for task in tasks
    )
    epochs = sum(task.recipe.epochs for task in tasks)
    return CrossvalProgress(epochs_done, epochs, len(tasks) - len(unfinished), len(tasks), last)


def _epochs_so_far(folder: Path) -> int:
    curve = folder / "curve.json"
    try:
        return curve.read_text(encoding="utf-8").count('"epoch":')
    except FileNotFoundError:
        return 0
