"""Members: the out-of-fold and test predictions of finished runs, joined by image_id and checked before any
blend.

Dimension key: M members, N labelled slices, T unlabelled slices, F fold models, L labels.
"""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from ichtune.ensemble.equal_mean_logit import mean_of_logits
from ichtune.errors import ConfigError, ConflictError, DataError, NothingUsableError, nearest
from ichtune.labels import LABELS
from ichtune.tables import P_COLUMNS, PREDICTIONS, read_table, table_about
from ichtune.workspace import Workspace


@dataclass(frozen=True)
class Member:
    """One run that takes part in a blend: its recipe_id, and a short name for people, unique in its panel."""

    recipe_id: str
    name: str


@dataclass(frozen=True)
class Panel:
    """Every member's predictions over the same slices, in the same order.

    Attributes:
        members: the M members, in alphabetical order of recipe_id.
        image_ids: the labelled slices (N,).
        patient_N: their patients.
        fold_N: their folds, int64.
        y_NL: their labels, float64.
        p_MNL: out-of-fold probabilities, float64.
        test_image_ids: the usable unlabelled slices (T,).
        n_test_patients: their patients, counted.
        p_MTL: probabilities on them, float64; the mean of the fold models in log odds.
        fold_plan_hash: the plan that every member was trained on.
        collapsed: recipe_ids whose predictions equal another member's bit for bit, and that member; they take
            no part.
        unfinished: recipe_ids of runs without out-of-fold predictions; they take no part.
    """

    members: tuple[Member, ...]
    image_ids: np.ndarray
    patient_N: np.ndarray
    fold_N: np.ndarray
    y_NL: np.ndarray
    p_MNL: np.ndarray
    test_image_ids: np.ndarray
    n_test_patients: int
    p_MTL: np.ndarray
    fold_plan_hash: str
    collapsed: dict[str, str]
    unfinished: tuple[str, ...]


def load_panel(workspace: Workspace, recipe_ids: Sequence[str] | None = None) -> Panel:
    """Read and check the members of a workspace.

    Args:
        workspace: a prepared workspace with trained runs.
        recipe_ids: the members; None takes every complete run.

    Raises:
        ConfigError: a recipe_id that is no run of this workspace.
        DataError: predictions that are missing, incomplete, or no probabilities.
        ConflictError: members of different fold plans, or rows predicted by a model that saw their patient.
        NothingUsableError: runs, but none that is complete.
    """
    labelled, unlabelled = workspace.labelled, workspace.unlabelled
    if labelled.empty:
        raise DataError("no labelled slice to blend on: run `ichtune prepare DICOM_DIR --labels CSV` first")
    chosen, unfinished = _choose_runs(workspace, recipe_ids)
    fold_N = np.asarray(workspace.fold_plan.folds_for(labelled["patient_id"]), dtype=np.int64)
    image_ids, test_ids = labelled["image_id"].to_numpy(object), unlabelled["image_id"].to_numpy(object)
    kept, p_MNL, p_MTL, collapsed = _read_all(workspace, chosen, pd.Index(image_ids), pd.Index(test_ids), fold_N)
    return Panel(
        members=_named_members(workspace, kept),
        image_ids=image_ids,
        patient_N=labelled["patient_id"].to_numpy(object),
        fold_N=fold_N,
        y_NL=labelled[list(LABELS)].to_numpy(np.float64),
        p_MNL=p_MNL,
        test_image_ids=test_ids,
        n_test_patients=int(unlabelled["patient_id"].nunique()),
        p_MTL=p_MTL,
        fold_plan_hash=workspace.fold_plan.plan_hash,
        collapsed=collapsed,
        unfinished=unfinished,
    )


def _read_all(
    workspace: Workspace, recipe_ids: list[str], slices: pd.Index, test_slices: pd.Index, fold_N: np.ndarray
) -> tuple[list[str], np.ndarray, np.ndarray, dict[str, str]]:
    """Return the distinct members, their (M, N, L) and (M, T, L) probabilities, and the duplicates."""
    plan_hash, folds = workspace.fold_plan.plan_hash, np.unique(fold_N)
    p_MNL = np.empty((len(recipe_ids), len(slices), len(LABELS)))
    p_MTL = np.empty((len(recipe_ids), len(test_slices), len(LABELS)))
    first_of: dict[bytes, str] = {}
    collapsed: dict[str, str] = {}
    for recipe_id in recipe_ids:
        m = len(first_of)
        oof = _read_member(workspace.layout.oof(recipe_id), recipe_id, plan_hash)
        p_MNL[m] = _out_of_fold(oof, recipe_id, slices, fold_N)
        if len(test_slices):
            test = _read_member(workspace.layout.test(recipe_id), recipe_id, plan_hash)
            p_MTL[m] = _mean_of_fold_models(test, recipe_id, test_slices, folds)
        digest = hashlib.blake2b(p_MNL[m].data)
        digest.update(p_MTL[m].data)
        first = first_of.setdefault(digest.digest(), recipe_id)
        if first != recipe_id:
            collapsed[recipe_id] = first
    n_kept = len(first_of)
    return list(first_of.values()), p_MNL[:n_kept], p_MTL[:n_kept], collapsed


def _choose_runs(workspace: Workspace, recipe_ids: Sequence[str] | None) -> tuple[list[str], tuple[str, ...]]:
    runs = workspace.layout.runs
    started = sorted(path.name for path in runs.iterdir() if path.is_dir()) if runs.is_dir() else []
    if not started:
        raise DataError(f"no run in {runs}: run `ichtune train` first, it writes what a blend is made of")
    complete = workspace.run_ids()
    if recipe_ids is None:
        if not complete:
            raise NothingUsableError(
                f"none of the {len(started)} runs in {runs} has out-of-fold predictions: run "
                "`ichtune train` again, it continues where it stopped"
            )
        return complete, tuple(run for run in started if run not in complete)
    for recipe_id in recipe_ids:
        if recipe_id not in started:
            raise ConfigError(f"no run has recipe_id {recipe_id!r} in {runs}. {nearest(recipe_id, started)}")
        if recipe_id not in complete:
            raise DataError(f"run {recipe_id} has no out-of-fold predictions yet: run `ichtune train` again")
    return sorted(recipe_ids), ()


def _read_member(path: Path, recipe_id: str, plan_hash: str) -> pd.DataFrame:
    table = read_table(path, PREDICTIONS)
    got = table_about(path).get("inputs", {}).get("fold_plan_hash")
    if got != plan_hash:
        raise ConflictError(
            f"{path} comes from fold plan {got!r}, but the workspace's plan is {plan_hash!r}: members of "
            "different plans cannot be blended, since one's training patients are another's held-out ones; "
            "run `ichtune train` again, or leave this run out under `members`"
        )
    foreign = table["recipe_id"] != recipe_id
    if foreign.any():
        raise ConflictError(
            f"{path} must hold recipe_id {recipe_id!r} only, got {table['recipe_id'][foreign].iloc[0]!r} in "
            f"{int(foreign.sum())} rows; run `ichtune train` again"
        )
    p_NL = table[list(P_COLUMNS)].to_numpy()
    bad = np.argwhere(~((p_NL >= 0.0) & (p_NL <= 1.0)))
    if len(bad):
        row, label = bad[0]
        raise DataError(
            f"{path}: predictions must be probabilities in [0, 1], got {p_NL[row, label]} for member "
            f"{recipe_id}, slice {table['image_id'].iloc[row]!r}, label {LABELS[label]!r} ({len(bad)} such)"
        )
    return table


def _out_of_fold(table: pd.DataFrame, recipe_id: str, slices: pd.Index, fold_N: np.ndarray) -> np.ndarray:
    """Return probabilities (N, L) in the order of ``slices``, each once, by the model of its own fold."""
    position = _positions(table, f"out-of-fold predictions of {recipe_id}", slices)
    _check_once(position, table, f"out-of-fold predictions of {recipe_id}", slices)
    leaked = np.flatnonzero(table["fold"].to_numpy() != fold_N[position])
    if len(leaked):
        row = table.iloc[leaked[0]]
        raise ConflictError(
            f"leaked rows: member {recipe_id} predicts {len(leaked)} slices with a model that saw their "
            f"patient, the first is {row['image_id']!r}: predicted by the model of fold {row['fold']}, its "
            f"patient lies in fold {fold_N[position[leaked[0]]]}; run `ichtune train` again"
        )
    p_NL = np.empty((len(slices), len(LABELS)))
    p_NL[position] = table[list(P_COLUMNS)].to_numpy()
    return p_NL


def _mean_of_fold_models(table: pd.DataFrame, recipe_id: str, slices: pd.Index, folds: np.ndarray) -> np.ndarray:
    """Return the mean over fold models in log odds, (T, L); each slice exactly once a fold model."""
    by_fold = {int(f): table[table["fold"] == f] for f in np.unique(table["fold"].to_numpy())}
    if sorted(by_fold) != folds.tolist():
        raise DataError(
            f"test predictions of {recipe_id} must come from the models of folds {folds.tolist()}, got "
            f"{sorted(by_fold)}; run `ichtune train` again"
        )
    p_FTL = np.empty((len(by_fold), len(slices), len(LABELS)))
    for f, (fold, rows) in enumerate(by_fold.items()):
        what = f"test predictions of {recipe_id}, fold model {fold}"
        position = _positions(rows, what, slices)
        _check_once(position, rows, what, slices)
        p_FTL[f, position] = rows[list(P_COLUMNS)].to_numpy()
    return mean_of_logits(p_FTL)


def _positions(table: pd.DataFrame, what: str, slices: pd.Index) -> np.ndarray:
    ids = pd.Index(table["image_id"].to_numpy(object))
    position = slices.get_indexer(ids)
    unknown = np.flatnonzero(position < 0)
    if len(unknown):
        raise DataError(
            f"{what} hold {len(unknown)} slices that do not belong there, the first is {ids[unknown[0]]!r}; "
            "was `ichtune prepare` run again? Then run `ichtune train` again"
        )
    return position


def _check_once(position: np.ndarray, table: pd.DataFrame, what: str, slices: pd.Index) -> None:
    times = np.bincount(position, minlength=len(slices))
    if (times > 1).any():
        raise ConflictError(
            f"{what} must hold each slice once, got {slices[int(times.argmax())]!r} {times.max()} times"
        )
    if (times == 0).any():
        missing = np.flatnonzero(times == 0)
        raise DataError(
            f"{what} must cover every slice, {len(missing)} of {len(slices)} are missing, the first is "
            f"{slices[missing[0]]!r}; run `ichtune train` again"
        )


def _named_members(workspace: Workspace, recipe_ids: Sequence[str]) -> tuple[Member, ...]:
    names = {recipe_id: run_title(workspace, recipe_id) for recipe_id in recipe_ids}
    shared = {name for name in names.values() if list(names.values()).count(name) > 1}
    return tuple(
        Member(recipe_id, f"{name}|{recipe_id}" if name in shared or not name else name)
        for recipe_id, name in names.items()
    )


def run_title(workspace: Workspace, recipe_id: str) -> str:
    """Return the short line that a run's recipe.json gives of itself; empty where it is not kept.

    Raises:
        DataError: the file is no JSON, or holds no mapping.
    """
    path = workspace.layout.runs / recipe_id / "recipe.json"
    if not path.is_file():
        return ""
    try:
        about = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise DataError(f"{path} is no readable JSON ({error}); run `ichtune train` again") from error
    if not isinstance(about, dict):
        raise DataError(f"{path} must hold a JSON object, got {str(about)[:60]!r}; run `ichtune train` again")
    return str(about.get("summary", ""))
