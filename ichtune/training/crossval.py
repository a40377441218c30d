"""Cross-validation of one recipe: a model a fold, out-of-fold and test predictions joined by image_id.

The predictions are those of the last epoch. Choosing an epoch by the loss on the very rows that are then predicted
would make the out-of-fold loss look better than it is.
"""

import json
import math
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch

from ichtune.errors import ConflictError, DataError, NothingUsableError
from ichtune.labels import LABELS
from ichtune.metrics import weighted_log_loss
from ichtune.recipe import Recipe
from ichtune.tables import P_COLUMNS, PREDICTIONS, prediction_frame, read_table, write_json, write_table
from ichtune.training.devices import best_device
from ichtune.training.embeddings import write_embeddings
from ichtune.training.fold_keeper import FoldKeeper
from ichtune.training.fold_run import (
    FoldRows,
    FoldRun,
    fold_rows,
    open_batches,
    open_fold,
)
from ichtune.training.loop import TrainingRun
from ichtune.training.predict import extract, load_model
from ichtune.training.results import EpochResult, FoldResult
from ichtune.training.run_folder import fold_folder, inputs_of
from ichtune.workspace import Workspace

OnEpoch = Callable[[EpochResult], None]
#: What a finished fold holds; run.json is written last.
_FOLD_FILES = ("oof.parquet", "test.parquet", "weights.safetensors", "run.json")


def finished_fold(workspace: Workspace, recipe: Recipe, fold: int) -> FoldResult | None:
    """Return the result of a fold that is already trained on this plan, cache and labels, or None.

    Raises:
        ConflictError: it was trained on others; mixing the two would leak or mislead.
        DataError: its run.json cannot be read.
    """
    folder = fold_folder(workspace, recipe.recipe_id, fold)
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


def _inputs(workspace: Workspace, recipe: Recipe) -> dict[str, Any]:
    return {"recipe_id": recipe.recipe_id, **inputs_of(workspace)}


@dataclass(frozen=True)
class TrainOptions:
    """How a fold is trained, as far as it changes nothing of what comes out.

    Attributes:
        checkpoint_s: seconds between two checkpoints within an epoch; one is written after every epoch anyway.
        keep_snapshots: keep the weights of every epoch as ``epoch_<n>.safetensors``; of epochs still to be trained.
        embeddings: also write the pooled features of the held-out and the unlabelled slices, of trained folds too.
    """

    checkpoint_s: float = 600.0
    keep_snapshots: bool = False
    embeddings: bool = False


def train_fold(
    workspace: Workspace,
    recipe: Recipe,
    fold: int,
    device: torch.device | None = None,
    on_epoch: OnEpoch | None = None,
    options: TrainOptions | None = None,
    begun: Path | None = None,
) -> FoldResult:
    """Train a recipe without one fold, predict that fold and the unlabelled slices, and keep it all.

    A fold that was interrupted goes on after its last checkpoint; one that is finished is not trained again.

    Args:
        workspace: the prepared data.
        recipe: what to do.
        fold: the fold that is held out.
        device: where to compute; ``best_device()`` by default.
        on_epoch: called after every epoch of this call.
        options: what else is kept, and how often.
        begun: checkpoint of the same recipe without the same fold, of a trial of a search, whose epochs are not trained
            again; one that was trained on other slices or labels is left out, and the run's notes say so.

    Raises:
        ConfigError: no such fold, or a name in the recipe that no table knows.
        ConflictError: the fold was trained, or begun, on another fold plan, cache or other labels.
        DataError: what the recipe starts from or learns from is not there.
        NothingUsableError: training diverged.
    """
    options = options or TrainOptions()
    done = finished_fold(workspace, recipe, fold)
    if done is not None:
        fold_folder(workspace, recipe.recipe_id, fold).joinpath("resume.safetensors").unlink(missing_ok=True)
        if not is_complete(workspace, recipe, fold, options):
            _add_embeddings(workspace, recipe, fold, device)
        return done
    opened = open_fold(workspace, recipe, fold, device)
    run, folder = opened.run, fold_folder(workspace, recipe.recipe_id, fold)
    keeper = FoldKeeper(
        folder, {"fold": fold, **_inputs(workspace, recipe)}, opened.learnt_from, opened.scored, options.checkpoint_s
    )
    keeper.take_up(run)
    if begun is not None and run.epoch == 0 and run.step_in_epoch == 0:
        keeper.take_over(run, begun)
    while not run.finished:
        result = run.run_epoch(keeper.after_step)
        if not math.isfinite(result.val_weighted_log_loss):
            raise NothingUsableError(
                f"recipe {recipe.recipe_id} ({recipe.summary}) diverged in epoch {result.epoch} of fold {fold}: the "
                f"validation loss is {result.val_weighted_log_loss}; lower its lr and train again"
            )
        keeper.after_epoch(run, options.keep_snapshots)
        if on_epoch is not None:
            on_epoch(result)
    keeper.keep_curve(run)
    kept = _keep_fold(workspace, opened, fold, keeper, options.embeddings)
    keeper.resume.unlink(missing_ok=True)
    return kept


def is_complete(workspace: Workspace, recipe: Recipe, fold: int, options: TrainOptions) -> bool:
    """Return whether a fold is trained and has left all that the options ask for."""
    if finished_fold(workspace, recipe, fold) is None:
        return False
    folder = fold_folder(workspace, recipe.recipe_id, fold)
    return not options.embeddings or all((folder / f"{kind}_embeddings.parquet").is_file() for kind in ("oof", "test"))


def _add_embeddings(workspace: Workspace, recipe: Recipe, fold: int, device: torch.device | None) -> None:
    """Extract the embeddings of a fold that was trained without them, from the weights that it left."""
    folder, rows = fold_folder(workspace, recipe.recipe_id, fold), fold_rows(workspace, fold)
    device = device or best_device()
    model, _ = load_model(folder / "weights.safetensors", device)
    data = open_batches(workspace, recipe)
    for kind, wanted in (("test", rows.test), ("oof", rows.valid)):
        e_MND = extract(model, recipe, data, wanted, device, embeddings=True).e_MND
        _write_embeddings(workspace, recipe, fold, kind, wanted, e_MND)


def _write_embeddings(
    workspace: Workspace, recipe: Recipe, fold: int, kind: str, rows: np.ndarray, e_MND: np.ndarray | None
) -> None:
    if e_MND is not None:
        path = fold_folder(workspace, recipe.recipe_id, fold) / f"{kind}_embeddings.parquet"
        inputs = {"fold": fold, **_inputs(workspace, recipe)}
        write_embeddings(path, workspace.slices["image_id"][rows].tolist(), e_MND, inputs)


def _keep_fold(workspace: Workspace, opened: FoldRun, fold: int, keeper: FoldKeeper, embeddings: bool) -> FoldResult:
    run, rows = opened.run, opened.rows
    recipe, folder = run.recipe, keeper.folder
    inputs = _inputs(workspace, recipe)
    image_ids = workspace.slices["image_id"]
    model = run.model()
    oof = np.empty((0, 0))
    for kind, wanted in (("test", rows.test), ("oof", rows.valid)):
        found = extract(model, recipe, run.data, wanted, run.device, embeddings=embeddings)
        oof = found.p_MNL.mean(axis=0)
        frame = prediction_frame(recipe.recipe_id, fold, image_ids[wanted], oof)
        write_table(frame, folder / f"{kind}.parquet", PREDICTIONS, inputs)
        _write_embeddings(workspace, recipe, fold, kind, wanted, found.e_MND)
    keeper.keep_weights(run)
    loss = weighted_log_loss(run.data.labels(rows.valid), oof)
    result = FoldResult(recipe.recipe_id, fold, loss, recipe.epochs, sum(epoch.seconds for epoch in run.history))
    about = {"read_cache_id": run.data.cache.cache_id, "notes": list(run.notes), "n_pseudo": _n_pseudo(run, rows)}
    write_json({**inputs, **about, **asdict(result)}, folder / "run.json")
    return result


def _n_pseudo(run: TrainingRun, rows: FoldRows) -> int:
    """How many slices were learnt from by labels of another model."""
    return len(run.train_rows) - len(rows.train)


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
    folders = [fold_folder(workspace, recipe.recipe_id, fold) for fold in range(workspace.fold_plan.k)]
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
