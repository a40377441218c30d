"""Cross-validation as Ray tasks: every recipe on every fold, as many at a time as the cluster holds."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ichtune.errors import NothingUsableError
from ichtune.recipe import Recipe
from ichtune.search.cluster import Cluster, ray_session
from ichtune.search.study import MAX_FAILURES, check_data, n_concurrent, trial_resources, wants_gpu
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
    check_data(workspace, [(recipe.image_px, recipe.crop) for recipe in recipes])
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
    return [_assembled(workspace, recipe) for recipe in recipes]


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

    asked = trial_resources(resources, cluster.n_gpus)
    n_concurrent(asked, cluster)
    n_threads = max(1, int(asked["cpu"]))
    remote = ray.remote(num_cpus=asked["cpu"], num_gpus=asked.get("gpu", 0), max_retries=MAX_FAILURES)(_train_fold)
    work = str(workspace.layout.root.resolve())
    pending = {
        remote.options(name=f"{task.recipe.recipe_id}|fold_{task.fold}|{task.recipe.summary}").remote(
            work, task.recipe.to_dict(), task.fold, n_threads, wants_gpu(asked), options
        ): task
        for task in waiting
    }
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


def _train_fold(
    work: str, recipe: dict[str, Any], fold: int, n_threads: int, on_gpu: bool, options: TrainOptions
) -> dict[str, Any]:
    from dataclasses import asdict

    import torch

    torch.set_num_threads(n_threads)
    chosen = Recipe.from_dict(recipe)
    return asdict(train_fold(Workspace(work), chosen, fold, device_for(on_gpu), options=options))


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
