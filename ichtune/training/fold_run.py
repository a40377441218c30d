"""One fold of a recipe, ready to be trained: its rows, its pseudo-labels and the weights that it starts from.

What comes from another model is taken from that model's run on the same fold, which has not seen the slices that will
be scored; anything else is refused here, for trials of a search as for cross-validation.
"""

import hashlib
import re
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pandas as pd
import torch

from ichtune.data.cache.hu_cache import HuCache
from ichtune.data.dataset import SliceBatches
from ichtune.data.targets import make_targets
from ichtune.errors import ConfigError, ConflictError, DataError
from ichtune.recipe import ID_DIGITS, Recipe
from ichtune.shipped import shipped_files
from ichtune.tables import PREDICTIONS, read_table, table_about
from ichtune.training.loop import TrainingRun
from ichtune.training.provenance import learnt_from, patient_marks
from ichtune.training.run_folder import WEIGHTS_FILE, fold_folder
from ichtune.workspace import Workspace


@dataclass(frozen=True)
class FoldRows:
    """Cache rows of one fold: to learn from, to be judged on, and to predict for the submission."""

    train: np.ndarray
    valid: np.ndarray
    test: np.ndarray


@dataclass(frozen=True)
class FoldRun:
    """A run of one fold, its rows, and marks of patients: whom its weights will know, and whom they are scored on."""

    run: TrainingRun
    rows: FoldRows
    learnt_from: frozenset[str]
    scored: frozenset[str]


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
    return SliceBatches(cache_to_read(workspace, recipe.image_px, recipe.crop), workspace.slices, recipe)


def in_share(patients: pd.Series, share: float) -> np.ndarray:
    """Say which rows belong to a fixed share of the patients: (n,) bool; at least one patient, and nested.

    Patients are taken in the order of a hash of their id, so that a subset depends on nothing else.
    """
    order = sorted(patients.unique(), key=lambda patient: hashlib.sha256(str(patient).encode()).digest())
    chosen = order[: max(1, round(share * len(order)))]
    return patients.isin(chosen).to_numpy()


def open_fold(
    workspace: Workspace, recipe: Recipe, fold: int, device: torch.device | None = None, share: float = 1.0
) -> FoldRun:
    """Make ready one fold of a recipe.

    Args:
        workspace: the prepared data.
        recipe: what to do.
        fold: the fold that is held out, always whole.
        device: where to compute; ``best_device()`` by default.
        share: of the training patients that are learnt from; a smaller share is a subset of a larger one.

    Raises:
        ConfigError: no such fold, or a name in the recipe that no table knows.
        ConflictError: the weights to start from, or the model whose pseudo-labels teach, have seen slices that would be
            scored, or come from another fold plan.
        DataError: a run that the recipe names is not trained yet; the message names the command.
    """
    rows = fold_rows(workspace, fold)
    data = open_batches(workspace, recipe)
    patients = workspace.slices["patient_id"]
    if share < 1.0:
        rows = replace(rows, train=rows.train[in_share(patients[rows.train], share)])
    scored = patient_marks(patients[rows.valid])
    seen = patient_marks(patients[rows.train])
    train_rows, start = rows.train, None
    if recipe.warm_start:
        start, known = _source(workspace, recipe.warm_start, fold, scored, "warm_start")
        seen |= known
    if recipe.pseudo_labels:
        pseudo, taught = pseudo_table(workspace, recipe, fold, scored)
        data.set_targets(make_targets(workspace.slices, recipe, pseudo))
        train_rows = np.concatenate([rows.train, _rows_of(workspace, pseudo)])
        seen |= taught | patient_marks(patients[train_rows])
    run = TrainingRun(recipe, data, train_rows, rows.valid, device, start)
    enlarged = enlargement(workspace, recipe)
    run.notes.extend([enlarged] if enlarged else [])
    return FoldRun(run, rows, seen, scored)


def enlargement(workspace: Workspace, recipe: Recipe) -> str | None:
    """Say so where a recipe's images are enlarged from a smaller cache, which shows the network nothing new."""
    size_px = cache_to_read(workspace, recipe.image_px, recipe.crop).size_px
    if size_px is None or size_px >= recipe.image_px:
        return None
    return (
        f"slices of {size_px} px are enlarged to image_px {recipe.image_px}; for real ones run "
        f"`{workspace.prepare_command(recipe.image_px, recipe.crop)}`"
    )


def check_sources(workspace: Workspace, recipe: Recipe, fold: int) -> None:
    """Raise now what ``open_fold`` would raise about the runs that a recipe starts from or is taught by."""
    scored = patient_marks(workspace.slices["patient_id"][fold_rows(workspace, fold).valid])
    if recipe.warm_start:
        _source(workspace, recipe.warm_start, fold, scored, "warm_start")
    if recipe.pseudo_labels:
        pseudo_table(workspace, recipe, fold, scored)


def _rows_of(workspace: Workspace, pseudo: pd.DataFrame) -> np.ndarray:
    return np.flatnonzero(workspace.slices["image_id"].isin(set(pseudo["image_id"])))


def pseudo_table(
    workspace: Workspace, recipe: Recipe, fold: int, scored_marks: frozenset[str]
) -> tuple[pd.DataFrame, frozenset[str]]:
    """Return the predictions that teach the unlabelled slices in one fold, and whom their model has learnt from.

    They come from the named run's model of the same fold, never from another fold's: that one has learnt from the
    slices that are scored here. Slices of patients of the scored fold are left out as well, of unlabelled patients
    too: those of one fold may share pixels.

    Args:
        workspace: with the named run.
        recipe: ``pseudo_labels`` is a recipe_id, or the path of the Predictions table that a fold of a run left, on
            this fold plan, with its weights beside it.
        fold: the fold that is held out.
        scored_marks: ``patient_marks`` of the held-out patients.

    Raises:
        ConflictError: the table is of another fold plan, or its model has seen patients that would be scored.
        DataError: the run is not trained yet, or has no prediction of an unlabelled slice for this fold.
    """
    source = recipe.pseudo_labels
    if source.endswith(".parquet"):
        path = Path(source)
        weights = path.with_name(WEIGHTS_FILE)
        if not weights.is_file():
            raise ConflictError(
                f"pseudo_labels: beside {path} there are no {WEIGHTS_FILE} that say whom they have learnt from; name "
                f"a run's own test.parquet, in its fold's folder, or the run's recipe_id"
            )
        taught, _ = learnt_from(weights, scored_marks, "pseudo_labels")
    else:
        weights, taught = _source(workspace, source, fold, scored_marks, "pseudo_labels")
        path = weights.with_name("test.parquet")
    table = read_table(path, PREDICTIONS)
    plan_hash = (table_about(path).get("inputs") or {}).get("fold_plan_hash")
    if plan_hash != workspace.fold_plan.plan_hash:
        raise ConflictError(
            f"pseudo_labels: {path} was predicted on fold plan {plan_hash}, but the workspace has "
            f"{workspace.fold_plan.plan_hash}; its models may have learnt from slices that are scored here"
        )
    if table["recipe_id"].nunique() > 1:
        raise ConfigError(f"pseudo_labels: {path} holds {table['recipe_id'].nunique()} recipes; name a table of one")
    unlabelled = workspace.unlabelled
    held_out = workspace.fold_plan.folds_for(unlabelled["patient_id"]) == fold
    usable = set(unlabelled["image_id"][~held_out])
    table = table[(table["fold"] == fold) & table["image_id"].isin(usable)]
    if table.empty:
        raise DataError(
            f"pseudo_labels: {path} has no prediction by fold {fold} of an unlabelled slice whose patient is not "
            f"scored; prepare unlabelled files, or leave pseudo_labels out"
        )
    return table, taught


def _source(
    workspace: Workspace, source: str, fold: int, scored_marks: frozenset[str], key: str
) -> tuple[Path, frozenset[str]]:
    """Return the weights that a recipe key names, and whom they have learnt from: none of the scored patients."""
    path = _weights_of(workspace, source, fold, key)
    known, about = learnt_from(path, scored_marks, key)
    told = about.get("recipe_id")
    if not source.endswith(".safetensors") and told != source:
        raise ConflictError(f"{key}: {path} is of recipe {told}, not of {source}; move its folder away and train again")
    return path, known


def _weights_of(workspace: Workspace, source: str, fold: int, key: str) -> Path:
    """Return the weights that a recipe key names: a file, or the named run's of the same fold."""
    if source.endswith(".safetensors"):
        if not Path(source).is_file():
            raise DataError(f"{key}: {source} does not exist; name weights that `ichtune train` wrote")
        return Path(source)
    if not re.fullmatch(rf"[0-9a-f]{{{ID_DIGITS}}}", source):
        raise ConfigError(f"{key} must be a recipe_id of {ID_DIGITS} digits or a .safetensors file, got {source!r}")
    path = fold_folder(workspace, source, fold) / WEIGHTS_FILE
    if not path.is_file():
        raise DataError(
            f"{key}: recipe {source} is not trained on fold {fold} in {workspace.layout.runs}; train it first: "
            f"`ichtune train --recipe {_shipped_name(source) or 'ITS_FILE'} --work {workspace.layout.root}`"
        )
    return path


def _shipped_name(recipe_id: str) -> str | None:
    """The name of the shipped recipe with this id, for a message."""
    from ichtune.recipe_file import read_any_recipe

    return next((name for name in shipped_files("recipes") if read_any_recipe(name).recipe_id == recipe_id), None)
