"""Predictions from elsewhere become a run of the workspace: checked, joined to its slices, and blended like any other.

Such a run has no models: it is ``oof.parquet``, ``test.parquet`` and a ``recipe.json`` that says so.

Dimension key: N labelled slices, T unlabelled slices, R rows, L labels.
"""

import hashlib
import re
import shutil
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from ichtune.ensemble.members.foreign_plan import Vouched, check_recorded_plan, own_folds, vouched_plan
from ichtune.ensemble.members.foreign_rows import place_labelled, place_unlabelled
from ichtune.ensemble.members.foreign_tables import ForeignTable, read_foreign
from ichtune.ensemble.members.member_names import foreign_names, started_runs
from ichtune.ensemble.members.member_tables import NO_FOLD_MODEL, SliceOrder, out_of_fold, read_member
from ichtune.ensemble.members.run_records import FOREIGN, RECORD, is_foreign
from ichtune.errors import ConfigError, ConflictError, DataError, StorageError, nearest
from ichtune.labels import LABELS
from ichtune.metrics import weighted_log_loss
from ichtune.recipe import ID_DIGITS
from ichtune.shipped import shipped_files
from ichtune.tables import P_COLUMNS, PREDICTIONS, write_json, write_table
from ichtune.workspace import Workspace

_NAME = re.compile(r"\w[\w.+@-]{0,63}")
_ID = re.compile(rf"[0-9a-f]{{{ID_DIGITS}}}")


@dataclass(frozen=True)
class Added:
    """What became of added predictions.

    Attributes:
        recipe_id: of the run.
        name: that it goes by.
        path: its folder.
        oof_loss: weighted log loss over the labelled slices.
        n_slices: labelled slices.
        n_test_slices: unlabelled slices.
        is_new: False where exactly this had been added before.
        notes: what was ignored.
    """

    recipe_id: str
    name: str
    path: Path
    oof_loss: float
    n_slices: int
    n_test_slices: int
    is_new: bool
    notes: tuple[str, ...] = field(default=())


def add_predictions(workspace: Workspace, file: Path, name: str, fold_plan: str, test: Path | None = None) -> Added:
    """Write predictions that were made elsewhere as a run of the workspace.

    Args:
        workspace: prepared, with labels.
        file: out-of-fold predictions of every labelled slice; ``foreign_tables`` says in which forms.
        name: what to call them; unique in the workspace.
        fold_plan: on which folds they were made: the plan's hash, ``this``, or a table of patients and folds.
        test: predictions of every unlabelled slice, of each fold's model or one for all; needed where there are such
            slices.

    Raises:
        ConfigError: a name that cannot be used, or no such plan.
        DataError: files that cannot be read, or do not hold a probability for each slice and label.
        ConflictError: another fold plan, slices that are given twice, or a name that is taken.
    """
    _check_name(workspace, name)
    labelled, unlabelled = workspace.labelled, workspace.unlabelled
    if labelled.empty:
        raise DataError("no labelled slice to blend on: run `ichtune prepare DICOM_DIR --labels CSV` first")
    vouched = vouched_plan(workspace, fold_plan)
    oof_table = read_foreign(file)
    check_recorded_plan(workspace, oof_table)
    oof = place_labelled(workspace, oof_table)
    fold_N = workspace.fold_plan.folds_for(labelled["patient_id"])
    if oof_table.fold_R is not None:
        own_fold = own_folds(oof.kept, fold_N[oof.position_R], vouched)
        vouched = Vouched(vouched.how, own_fold, vouched.note)
    p_NL = oof.in_order(len(labelled))
    test_frame, test_table, test_notes = _test_frame(workspace, test, vouched, np.unique(fold_N))
    oof_frame = _frame(labelled["image_id"], fold_N, p_NL)
    recipe_id = _id_of(name, workspace.fold_plan.plan_hash, oof_frame, test_frame)
    taken = foreign_names(workspace).get(name)
    if taken not in (None, recipe_id):
        raise ConflictError(
            f"{name!r} is taken by run {taken}, with other predictions; choose another --name, or "
            f"`ichtune ensemble remove {name}` first"
        )
    folder = workspace.layout.runs / recipe_id
    files = {"oof": oof_table} | ({"test": test_table} if test_table else {})
    _write(workspace, recipe_id, name, vouched.how, files, oof_frame, test_frame)
    return Added(
        recipe_id=recipe_id,
        name=name,
        path=folder,
        oof_loss=weighted_log_loss(labelled[list(LABELS)].to_numpy(np.float64), p_NL),
        n_slices=len(labelled),
        n_test_slices=len(unlabelled),
        is_new=taken is None,
        notes=tuple(filter(None, (vouched.note, *oof.notes, *test_notes))),
    )


def remove_predictions(workspace: Workspace, named: str) -> str:
    """Remove added predictions; runs that were trained here are never touched.

    Args:
        workspace: that holds them.
        named: what they were called, or the recipe_id.

    Returns:
        The recipe_id.

    Raises:
        ConfigError: nothing was added under that name.
        StorageError: the folder may not be removed.
    """
    foreign = foreign_names(workspace)
    recipe_id = foreign.get(named, named)
    if recipe_id not in foreign.values():
        if recipe_id in started_runs(workspace):
            raise ConfigError(f"run {recipe_id} was trained here; only what `ichtune ensemble add` brought is removed")
        known = nearest(named, foreign) if foreign else "Nothing was added here."
        raise ConfigError(f"no predictions were added as {named!r} in {workspace.layout.runs}. {known}")
    try:
        workspace.layout.oof(recipe_id).unlink(missing_ok=True)  # from here on it is no complete run
        shutil.rmtree(workspace.layout.runs / recipe_id)
    except OSError as error:
        raise StorageError(f"cannot remove {workspace.layout.runs / recipe_id}: {error.strerror or error}") from error
    return recipe_id


def member_rows(workspace: Workspace) -> list[dict[str, Any]]:
    """Return ``recipe_id, name, foreign, oof_loss`` of every complete run, best first.

    Raises:
        DataError, ConflictError: predictions that are not of the workspace's labelled slices and folds.
    """
    labelled = workspace.labelled
    y_NL = labelled[list(LABELS)].to_numpy(np.float64)
    fold_N = workspace.fold_plan.folds_for(labelled["patient_id"])
    slices, plan_hash = SliceOrder(labelled["image_id"].to_numpy(object)), workspace.fold_plan.plan_hash
    rows = []
    for recipe_id in workspace.run_ids():
        record = workspace.run_about(recipe_id)
        p_NL = out_of_fold(
            read_member(workspace.layout.oof(recipe_id), recipe_id, plan_hash), recipe_id, slices, fold_N
        )
        loss = weighted_log_loss(y_NL, p_NL)
        name = str(record.get("summary", ""))
        rows.append({"recipe_id": recipe_id, "name": name, "foreign": is_foreign(record), "oof_loss": loss})
    return sorted(rows, key=lambda row: (row["oof_loss"], row["recipe_id"]))


def _check_name(workspace: Workspace, name: str) -> None:
    if not _NAME.fullmatch(name):
        raise ConfigError(
            f"--name must be up to 64 letters, digits and . _ - + @, beginning with a letter or digit; got {name!r}"
        )
    if _ID.fullmatch(name) or (name in started_runs(workspace) and not is_foreign(workspace.run_about(name))):
        raise ConfigError(f"--name {name} would be taken for a recipe_id; choose another name")
    if name in shipped_files("recipes"):
        raise ConfigError(f"--name {name} is the name of a shipped recipe; choose another name")


def _test_frame(
    workspace: Workspace, path: Path | None, vouched: Vouched, folds: np.ndarray
) -> tuple[pd.DataFrame, ForeignTable | None, tuple[str, ...]]:
    """Return test predictions as a Predictions table without recipe_id, their source, and what was ignored."""
    unlabelled = workspace.unlabelled
    if path is None:
        if len(unlabelled):
            raise DataError(
                f"the workspace has {len(unlabelled)} slices without labels, which a submission predicts: give the "
                "member's predictions of them with --test"
            )
        return _frame([], NO_FOLD_MODEL, np.empty((0, len(LABELS)))), None, ()
    if unlabelled.empty:
        raise DataError(f"the workspace has no slices without labels; leave --test {path} out")
    table = read_foreign(path)
    check_recorded_plan(workspace, table)
    placed = place_unlabelled(workspace, table)
    fold_R = _fold_models(placed.kept, vouched, folds)
    placed.check_once(fold_R, len(unlabelled))
    image_ids = unlabelled["image_id"].to_numpy(object)[placed.position_R]
    frame = _frame(image_ids, fold_R, placed.kept.p_RL)
    return frame.iloc[np.lexsort((placed.position_R, fold_R))].reset_index(drop=True), table, placed.notes


def _fold_models(table: ForeignTable, vouched: Vouched, folds: np.ndarray) -> np.ndarray:
    """Return the workspace's number of the fold model of each row; one for all where there is no more than one."""
    names = np.unique(table.fold_R.astype(str)).tolist() if table.fold_R is not None else []
    if len(names) <= 1:
        return np.full(len(table.ids), NO_FOLD_MODEL)
    # Where numbers are not known any order does: test predictions of the fold models are averaged.
    known = {name: fold for name, fold in (vouched.own_fold or {}).items() if fold in folds}
    own_fold = known or dict(zip(names, folds.tolist(), strict=False))
    if set(names) != set(own_fold) or len(names) != len(folds):
        raise DataError(
            f"{table.path} must hold predictions of the {len(folds)} fold models "
            f"({', '.join(known or map(str, folds))}) or one table without a column 'fold', got folds "
            f"{', '.join(names)}"
        )
    return pd.Series(table.fold_R).map(own_fold).to_numpy(np.int64)


def _frame(image_ids: object, fold: np.ndarray | int, p: np.ndarray) -> pd.DataFrame:
    frame = pd.DataFrame(p, columns=list(P_COLUMNS))
    frame.insert(0, "image_id", np.asarray(image_ids, dtype=object))
    frame.insert(0, "fold", fold)
    return frame


def _id_of(name: str, plan_hash: str, oof: pd.DataFrame, test: pd.DataFrame) -> str:
    """Hash what the run is, whatever the order of rows in its files."""
    digest = hashlib.sha256(f"{name}\0{plan_hash}\0".encode())
    for frame in (oof, test):
        digest.update("\n".join(frame["image_id"]).encode())
        digest.update(frame["fold"].to_numpy("<i8").tobytes())
        digest.update(np.ascontiguousarray(frame[list(P_COLUMNS)].to_numpy("<f8")).tobytes())
    return digest.hexdigest()[:ID_DIGITS]


def _write(
    workspace: Workspace,
    recipe_id: str,
    name: str,
    how: str,
    files: dict[str, ForeignTable],
    oof: pd.DataFrame,
    test: pd.DataFrame,
) -> None:
    plan_hash = workspace.fold_plan.plan_hash
    inputs = {"fold_plan_hash": plan_hash, "recipe_id": recipe_id}
    record = {
        FOREIGN: True,
        "name": name,
        "summary": name,
        "vouched": how,
        "files": {kind: {"name": table.path.name, "sha256": table.sha256} for kind, table in files.items()},
        **inputs,
    }
    write_json(record, workspace.layout.runs / recipe_id / RECORD)
    write_table(test.assign(recipe_id=recipe_id), workspace.layout.test(recipe_id), PREDICTIONS, inputs)
    write_table(oof.assign(recipe_id=recipe_id), workspace.layout.oof(recipe_id), PREDICTIONS, inputs)
