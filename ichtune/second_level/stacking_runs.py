"""Runs of the second level: a model a fold, out-of-fold and test predictions, laid out as every run's.

Nothing is trained twice: a finished fold is kept as long as it was made from what the workspace holds now, and one that
was interrupted goes on after its last epoch.

Dimension key: R labelled slices, L labels.
"""

import json
import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from ichtune.errors import ConflictError, DataError, NothingUsableError
from ichtune.metrics import weighted_log_loss
from ichtune.second_level.fold_run import SecondLevelRun
from ichtune.second_level.inputs import LevelInputs, load_inputs
from ichtune.second_level_recipe import SecondLevelRecipe
from ichtune.tables import (
    P_COLUMNS,
    PREDICTIONS,
    prediction_frame,
    read_table,
    remove_leftovers,
    write_json,
    write_table,
)
from ichtune.training.results import EpochResult, FoldResult
from ichtune.training.run_folder import WEIGHTS_FILE, fold_folder
from ichtune.workspace import Workspace

#: Called after each epoch of a fold, and once for a fold that was finished before.
OnEpoch = Callable[[int, EpochResult | FoldResult], None]
#: Returns the checkpoint that a trial of a search left of a recipe_id without a fold, or None; asked only for folds
#: that are to be trained from the start.
Begun = Callable[[str, int], Path | None]
#: What a finished fold holds; run.json is written last.
_FOLD_FILES = ("oof.parquet", "test.parquet", WEIGHTS_FILE, "run.json")
_RESUME = "resume.safetensors"


@dataclass(frozen=True)
class StackedRun:
    """A second-level recipe trained on every fold.

    Attributes:
        inputs: what it learnt from; its recipe with the members named.
        folds: the result of each fold.
        p_oof_RL: out-of-fold predictions of ``inputs.labelled``.
        notes: what a user should know of how it was done.
    """

    inputs: LevelInputs
    folds: tuple[FoldResult, ...]
    p_oof_RL: np.ndarray
    notes: tuple[str, ...]

    @property
    def recipe(self) -> SecondLevelRecipe:
        """What was done, with the members named."""
        return self.inputs.recipe

    @property
    def oof_loss(self) -> float:
        """Weighted log loss of the out-of-fold predictions, nats."""
        return weighted_log_loss(self.inputs.y_RL, self.p_oof_RL)

    @property
    def seconds(self) -> float:
        """Training time of all folds."""
        return sum(fold.seconds for fold in self.folds)


def stack(
    workspace: Workspace, recipe: SecondLevelRecipe, on_epoch: OnEpoch | None = None, begun: Begun | None = None
) -> StackedRun:
    """Train a second-level recipe on every fold and put its predictions together as a run.

    Args:
        workspace: with complete runs of the first level.
        recipe: what to do; ``members: all`` means the runs that are complete now.
        on_epoch: called after each epoch.
        begun: finds what trials of searches have trained already.

    Raises:
        ConfigError, DataError, ConflictError: see ``load_inputs``.
        NothingUsableError: training diverged.
    """
    inputs = load_inputs(workspace, recipe)
    notes: list[str] = []
    folds = [
        train_second_level_fold(workspace, inputs, fold, on_epoch, notes.append, begun)
        for fold in range(workspace.fold_plan.k)
    ]
    p_oof_RL = assemble(workspace, inputs)
    return StackedRun(inputs, tuple(folds), p_oof_RL, tuple(dict.fromkeys(notes)))


def finished_second_level_fold(workspace: Workspace, inputs: LevelInputs, fold: int) -> FoldResult | None:
    """Return the result of a fold that is trained on what the workspace holds now, or None.

    Raises:
        DataError: its run.json cannot be read.
    """
    about = _kept(workspace, inputs, fold)
    if about is None or _changes(about, inputs):
        return None
    return FoldResult(**{field.name: about[field.name] for field in fields(FoldResult)})


def train_second_level_fold(
    workspace: Workspace,
    inputs: LevelInputs,
    fold: int,
    on_epoch: OnEpoch | None = None,
    say: Callable[[str], None] = lambda _: None,
    begun: Begun | None = None,
) -> FoldResult:
    """Train one fold, predict its slices and the unlabelled ones, and keep it all.

    A finished fold is not trained again, unless it learnt from what is no longer there: a member that was trained
    again, other folds, other labels. That is said, and the fold is trained anew.

    Args:
        workspace: where the run lies.
        inputs: what is learnt from.
        fold: the fold that is held out.
        on_epoch: called after each epoch.
        say: told what a user should know.
        begun: finds the checkpoint of a trial, whose epochs are not trained again; one of other inputs is left out,
            and that is said.

    Raises:
        NothingUsableError: training diverged.
    """
    done = finished_second_level_fold(workspace, inputs, fold)
    recipe, folder = inputs.recipe, fold_folder(workspace, inputs.recipe.recipe_id, fold)
    if done is not None:
        folder.joinpath(_RESUME).unlink(missing_ok=True)
        if on_epoch is not None:
            on_epoch(fold, done)
        return done
    stale = _changes(_kept(workspace, inputs, fold), inputs)
    run = SecondLevelRun(inputs, fold)
    _take_up(run, folder, begun)
    if stale:
        run.notes.append(f"trained again, since {' and '.join(stale)}")
    while not run.finished:
        result = run.run_epoch()
        if not math.isfinite(result.val_weighted_log_loss):
            raise NothingUsableError(
                f"recipe {recipe.recipe_id} ({recipe.summary}) diverged in epoch {result.epoch} of fold {fold}: the "
                f"loss is {result.val_weighted_log_loss}; lower its lr and stack again"
            )
        run.save(folder / _RESUME)
        if on_epoch is not None:
            on_epoch(fold, result)
    for note in run.notes:
        say(f"{recipe.recipe_id}: {note}")
    return _keep_fold(run, folder)


def _take_up(run: SecondLevelRun, folder: Path, begun: Begun | None) -> None:
    """Go on after the last epoch of an interrupted run, or else of a trial, unless it was of something else."""
    if folder.is_dir():
        remove_leftovers(folder)
    if (folder / _RESUME).is_file():
        try:
            run.load(folder / _RESUME)
        except (ConflictError, DataError) as error:
            run.notes.append(f"an interrupted training was begun anew: {error}")
        else:
            return
    trial = begun(run.recipe.recipe_id, run.fold) if begun is not None else None
    if trial is None:
        return
    try:
        run.load(trial)
    except (ConflictError, DataError) as error:
        run.notes.append(f"trained anew, not from the trial's checkpoint: {error}")
    else:
        run.notes.append(f"{run.epoch} of {run.n_epochs} epochs are those of a trial of a search: {trial.parent}")


def _keep_fold(run: SecondLevelRun, folder: Path) -> FoldResult:
    """Write what a finished fold leaves, run.json last."""
    recipe_id, fold, inputs = run.recipe.recipe_id, run.fold, _written(run.inputs)
    labelled, test = run.inputs.labelled, run.inputs.unlabelled[0]
    p_oof = run.predict_held_out()
    image_ids = labelled.image_ids[run.held_out_rows]
    test_frame = prediction_frame(recipe_id, fold, test.image_ids, run.predict_test())
    write_table(test_frame, folder / "test.parquet", PREDICTIONS, inputs)
    write_table(prediction_frame(recipe_id, fold, image_ids, p_oof), folder / "oof.parquet", PREDICTIONS, inputs)
    run.save_weights(folder / WEIGHTS_FILE)
    write_json([asdict(result) for result in run.history], folder / "curve.json")
    loss = weighted_log_loss(run.inputs.y_RL[run.held_out_rows], p_oof)
    result = FoldResult(recipe_id, fold, loss, run.epoch, sum(epoch.seconds for epoch in run.history))
    write_json({**inputs, "notes": list(run.notes), **asdict(result)}, folder / "run.json")
    folder.joinpath(_RESUME).unlink(missing_ok=True)
    return result


def assemble(workspace: Workspace, inputs: LevelInputs) -> np.ndarray:
    """Put the folds of a recipe together to out-of-fold and test Predictions.

    Returns:
        The out-of-fold predictions of ``inputs.labelled``, float64 (R, L).

    Raises:
        DataError: a fold is missing, or some labelled slice is not predicted exactly once.
    """
    recipe, folds = inputs.recipe, range(workspace.fold_plan.k)
    missing = [fold for fold in folds if finished_second_level_fold(workspace, inputs, fold) is None]
    if missing:
        raise DataError(f"folds {missing} of recipe {recipe.recipe_id} are not trained yet: run `ichtune stack`")
    folders = [fold_folder(workspace, recipe.recipe_id, fold) for fold in folds]
    oof, test = (_together(folders, f"{kind}.parquet") for kind in ("oof", "test"))
    places = pd.Index(oof["image_id"].to_numpy(object)).get_indexer(pd.Index(inputs.labelled.image_ids))
    if len(oof) != len(places) or (places < 0).any():
        raise DataError(
            f"out-of-fold predictions of {recipe.recipe_id} must cover each of the {len(places)} labelled slices once, "
            f"got {len(oof)} rows; remove {folders[0].parent} and run `ichtune stack` again"
        )
    written = _written(inputs)
    about = {"recipe": recipe.to_dict(), "summary": recipe.summary, **written}
    write_json(about, folders[0].parent / "recipe.json")
    write_table(test, workspace.layout.test(recipe.recipe_id), PREDICTIONS, written)
    write_table(oof, workspace.layout.oof(recipe.recipe_id), PREDICTIONS, written)
    return np.asarray(oof[list(P_COLUMNS)].to_numpy()[places])


def _together(folders: Sequence[Path], name: str) -> pd.DataFrame:
    return pd.concat([read_table(folder / name, PREDICTIONS) for folder in folders], ignore_index=True)


def _written(inputs: LevelInputs) -> dict[str, Any]:
    return {"recipe_id": inputs.recipe.recipe_id, **inputs.ids}


def _kept(workspace: Workspace, inputs: LevelInputs, fold: int) -> dict[str, Any] | None:
    """Return what a finished fold says of itself; None where it is not finished."""
    folder = fold_folder(workspace, inputs.recipe.recipe_id, fold)
    if not all((folder / name).is_file() for name in _FOLD_FILES):
        return None
    path = folder / "run.json"
    try:
        about = dict(json.loads(path.read_text(encoding="utf-8")))
        FoldResult(**{field.name: about[field.name] for field in fields(FoldResult)})
    except (ValueError, LookupError, TypeError) as error:
        raise DataError(f"{path} is no record of a run ({error!r}); remove it to train the fold again") from error
    return about


def _changes(about: dict[str, Any] | None, inputs: LevelInputs) -> list[str]:
    """Say what a finished fold learnt from that is not so any more."""
    if about is None:
        return []
    then = about.get("members")
    then = then if isinstance(then, dict) else {}
    changed = [member for member, told in inputs.ids["members"].items() if then.get(member) != told]
    said = [f"what {', '.join(changed)} predicts has changed"] if changed else []
    others = {"fold_plan_hash": "folds", "cache_id": "caches", "labels_sha256": "labels", "rows_id": "slices"}
    different = [what for key, what in others.items() if about.get(key) != inputs.ids[key]]
    return [*said, *([f"it was made from other {' and '.join(different)}"] if different else [])]
