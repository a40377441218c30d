"""Cross-validation of one recipe: a model a fold, out-of-fold and test predictions joined by image_id.

The predictions are those of the last epoch. Choosing an epoch by the loss on the very rows that are then predicted
would make the out-of-fold loss look better than it is.
"""

import json
import math
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import torch

from ichtune.data.cache.hu_cache import HuCache
from ichtune.data.dataset import SliceBatches
from ichtune.errors import ConfigError, ConflictError, DataError, NothingUsableError
from ichtune.labels import LABELS
from ichtune.metrics import weighted_log_loss
from ichtune.recipe import Recipe
from ichtune.tables import P_COLUMNS, PREDICTIONS, read_table, write_json, write_table
from ichtune.training.loop import EpochResult, TrainingRun
from ichtune.workspace import Workspace

OnEpoch = Callable[[EpochResult], None]
#: What a finished fold holds; run.json is written last.
_FOLD_FILES = ("oof.parquet", "test.parquet", "weights.safetensors", "run.json")


@dataclass(frozen=True)
class FoldResult:
    """One recipe trained without one fold and judged on it."""

    recipe_id: str
    fold: int
    val_weighted_log_loss: float
    epochs: int
    seconds: float


@dataclass(frozen=True)
class FoldRows:
    """Cache rows of one fold: to learn from, to be judged on, and to predict for the submission."""

    train: np.ndarray
    valid: np.ndarray
    test: np.ndarray


def fold_rows(workspace: Workspace, fold: int) -> FoldRows:
    """Split the workspace's rows for one fold of its plan.

    Raises:
        ConfigError: the plan has no such fold.
    """
    plan = workspace.fold_plan
    if not 0 <= fold < plan.k:
        raise ConfigError(f"fold must be between 0 and {plan.k - 1}, got {fold}; the workspace has {plan.k} folds")
    labelled = workspace.labelled
    held_out = plan.folds_for(labelled["patient_id"]) == fold
    rows = labelled.index.to_numpy()
    return FoldRows(rows[~held_out], rows[held_out], workspace.unlabelled.index.to_numpy())


def cache_to_read(workspace: Workspace, image_px: int, crop: str) -> HuCache:
    """Return the cache that feeds recipes of one input size and crop.

    Raises:
        DataError: this crop was not prepared, or the cache holds native matrices of several sizes.
    """
    cache = workspace.cache_for(image_px, crop)
    if cache.size_px is None:
        shapes = workspace.slices.query("status == 'ok'")[["rows_px", "columns_px"]].drop_duplicates()
        if len(shapes) > 1 or (shapes["rows_px"] != shapes["columns_px"]).any():
            raise DataError(
                f"training needs slices of one square size, got {len(shapes)} sizes in a native cache; run "
                f"`{workspace.prepare_command(image_px, crop)}` and train on that"
            )
    return cache


def open_batches(workspace: Workspace, recipe: Recipe) -> SliceBatches:
    """Open the workspace's slices for a recipe, in the cache with its crop.

    Raises:
        DataError: there is no such cache that could feed it.
    """
    cache = cache_to_read(workspace, recipe.image_px, recipe.crop)
    return SliceBatches(cache, workspace.slices, recipe.image_px, recipe.neighbours)


def fold_folder(workspace: Workspace, recipe: Recipe, fold: int) -> Path:
    """Return the folder of one fold's run."""
    return workspace.layout.runs / recipe.recipe_id / f"fold_{fold}"


def finished_fold(workspace: Workspace, recipe: Recipe, fold: int) -> FoldResult | None:
    """Return the result of a fold that is already trained on this plan, cache and labels, or None.

    Raises:
        ConflictError: it was trained on others; mixing the two would leak or mislead.
        DataError: its run.json cannot be read.
    """
    folder = fold_folder(workspace, recipe, fold)
    path = folder / "run.json"
    if not all((folder / name).is_file() for name in _FOLD_FILES):
        return None
    try:
        about = json.loads(path.read_text(encoding="utf-8"))
        result = FoldResult(**{name: about[name] for name in FoldResult.__dataclass_fields__})
    except (ValueError, LookupError, TypeError) as error:
        raise DataError(f"{path} is no record of a run ({error!r}); remove it to train the fold again") from error
    for key, value in _inputs(workspace, recipe).items():
        if about.get(key) != value:
            raise ConflictError(
                f"{path.parent} was trained with {key} {about.get(key)}, but the workspace now has {value}; move "
                f"{path.parent.parent} away to train it again, or prepare into another workspace"
            )
    return result


def _inputs(workspace: Workspace, recipe: Recipe) -> dict[str, str | None]:
    labels_csv = workspace.about.get("labels_csv") or {}
    return {
        "recipe_id": recipe.recipe_id,
        "fold_plan_hash": workspace.fold_plan.plan_hash,
        "cache_id": str(workspace.about["cache_id"]),
        "labels_sha256": labels_csv.get("sha256"),
    }


def train_fold(
    workspace: Workspace,
    recipe: Recipe,
    fold: int,
    device: torch.device | None = None,
    on_epoch: OnEpoch | None = None,
) -> FoldResult:
    """Train a recipe without one fold, predict that fold and the unlabelled slices, and keep it all.

    A fold that was interrupted goes on after its last whole epoch; one that is finished is not trained again.

    Args:
        workspace: the prepared data.
        recipe: what to do.
        fold: the fold that is held out.
        device: where to compute; ``best_device()`` by default.
        on_epoch: called after every epoch of this call.

    Raises:
        ConfigError: no such fold, or a name in the recipe that no table knows.
        ConflictError: the fold was trained, or begun, on another fold plan, cache or other labels.
        NothingUsableError: training diverged.
    """
    done = finished_fold(workspace, recipe, fold)
    if done is not None:
        return done
    start = time.perf_counter()
    rows = fold_rows(workspace, fold)
    run = TrainingRun(recipe, open_batches(workspace, recipe), rows.train, rows.valid, device)
    folder = fold_folder(workspace, recipe, fold)
    resume = folder / "resume.safetensors"
    if resume.is_file():
        run.load(resume)
    while not run.finished:
        result = run.run_epoch()
        if not math.isfinite(result.val_weighted_log_loss):
            raise NothingUsableError(
                f"recipe {recipe.recipe_id} ({recipe.summary}) diverged in epoch {result.epoch} of fold {fold}: the "
                f"validation loss is {result.val_weighted_log_loss}; lower its lr and train again"
            )
        run.save(resume)
        write_json([asdict(epoch) for epoch in run.history], folder / "curve.json")
        if on_epoch is not None:
            on_epoch(result)
    kept = _keep_fold(workspace, run, fold, rows, time.perf_counter() - start)
    resume.unlink(missing_ok=True)
    return kept


def _keep_fold(workspace: Workspace, run: TrainingRun, fold: int, rows: FoldRows, seconds: float) -> FoldResult:
    recipe, folder = run.recipe, fold_folder(workspace, run.recipe, fold)
    inputs = _inputs(workspace, recipe)
    oof = run.predict(rows.valid)
    image_ids = workspace.slices["image_id"]
    write_table(
        prediction_frame(recipe, fold, image_ids[rows.valid], oof),
        folder / "oof.parquet",
        PREDICTIONS,
        inputs,
    )
    test = prediction_frame(recipe, fold, image_ids[rows.test], run.predict(rows.test))
    write_table(test, folder / "test.parquet", PREDICTIONS, inputs)
    run.save_weights(folder / "weights.safetensors", {"fold": fold, **inputs})
    loss = weighted_log_loss(run.data.labels(rows.valid), oof)
    result = FoldResult(recipe.recipe_id, fold, loss, recipe.epochs, seconds)
    write_json({**inputs, "read_cache_id": run.data.cache.cache_id, **asdict(result)}, folder / "run.json")
    return result


def prediction_frame(recipe: Recipe, fold: int, image_ids: pd.Series, p_NL: np.ndarray) -> pd.DataFrame:
    """Lay out probabilities (N, L) as rows of a Predictions table."""
    frame = pd.DataFrame(p_NL, columns=list(P_COLUMNS))
    frame.insert(0, "image_id", image_ids.to_numpy())
    frame.insert(0, "fold", fold)
    frame.insert(0, "recipe_id", recipe.recipe_id)
    return frame


def assemble_run(workspace: Workspace, recipe: Recipe) -> float:
    """Put the folds of one recipe together to out-of-fold and test Predictions.

    Returns:
        The out-of-fold weighted log loss over all labelled slices.

    Raises:
        ConflictError: a fold was trained on another fold plan, cache or other labels.
        DataError: a fold is missing, or some labelled slice is not predicted exactly once.
    """
    missing = [f for f in range(workspace.fold_plan.k) if finished_fold(workspace, recipe, f) is None]
    if missing:
        raise DataError(f"folds {missing} of recipe {recipe.recipe_id} are not trained yet: run `ichtune train`")
    folders = [fold_folder(workspace, recipe, fold) for fold in range(workspace.fold_plan.k)]
    inputs = _inputs(workspace, recipe)
    oof = pd.concat([read_table(folder / "oof.parquet", PREDICTIONS) for folder in folders], ignore_index=True)
    labelled = workspace.labelled
    if sorted(oof["image_id"]) != sorted(labelled["image_id"]):
        raise DataError(
            f"out-of-fold predictions of {recipe.recipe_id} must cover each of the {len(labelled)} labelled slices "
            f"once, got {len(oof)} rows of {oof['image_id'].nunique()} slices; move {folders[0].parent} away and "
            f"run `ichtune train` again"
        )
    test = pd.concat([read_table(folder / "test.parquet", PREDICTIONS) for folder in folders], ignore_index=True)
    about = {"recipe": recipe.to_dict(), "summary": recipe.summary, **inputs}
    write_json(about, folders[0].parent / "recipe.json")
    write_table(test, workspace.layout.test(recipe.recipe_id), PREDICTIONS, inputs)
    write_table(oof, workspace.layout.oof(recipe.recipe_id), PREDICTIONS, inputs)
    p_NL = oof.set_index("image_id").loc[labelled["image_id"], list(P_COLUMNS)].to_numpy()
    return weighted_log_loss(labelled[list(LABELS)].to_numpy(dtype=np.float32), p_NL)
