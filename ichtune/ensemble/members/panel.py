"""Members: the out-of-fold and test predictions of finished runs, joined by image_id and checked before any
blend.

Dimension key: M members, N labelled slices, T unlabelled slices, L labels.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from ichtune.ensemble.members.alike import Alike, find_alike
from ichtune.ensemble.members.copies import copied_member
from ichtune.ensemble.members.member_names import Wanted, resolve_members, started_runs
from ichtune.ensemble.members.member_tables import SliceOrder, mean_of_fold_models, out_of_fold, read_member
from ichtune.ensemble.members.run_records import FIRST_LEVEL, is_foreign, level_of
from ichtune.ensemble.members.suspicions import Suspicion, find_suspicions
from ichtune.errors import DataError, NothingUsableError
from ichtune.labels import LABELS, N_LABELS
from ichtune.metrics import slice_losses
from ichtune.workspace import Workspace

#: Beyond this many bytes members are kept as float32: what rounding moves is then below 1e-7 of the loss, and sixty
#: members of the whole competition fit into 8 GiB together with what a blender makes of them.
MAX_FLOAT64_BYTES = 2**30


@dataclass(frozen=True)
class Member:
    """One run that takes part in a blend.

    Attributes:
        recipe_id: of the run.
        name: a short one for people, unique in its panel.
        foreign: whether it is predictions alone, brought by ``ichtune ensemble add``.
        level: 2 where it learnt along series from other runs' predictions, else 1.
    """

    recipe_id: str
    name: str
    foreign: bool = False
    level: int = FIRST_LEVEL


@dataclass(frozen=True)
class Panel:
    """Every member's predictions over the same slices, in the same order.

    Attributes:
        members: the M members, those of the first level before the others, in alphabetical order of recipe_id.
        image_ids: the labelled slices (N,).
        patient_N: their patients.
        series_N: their series.
        fold_N: their folds, int64.
        y_NL: their labels, float64.
        p_MNL: out-of-fold probabilities, float64; float32 where all would take more than ``MAX_FLOAT64_BYTES``.
        test_image_ids: the usable unlabelled slices (T,).
        n_test_patients: their patients, counted.
        p_MTL: probabilities on them, of the same type; the mean of the fold models in log odds.
        fold_plan_hash: the plan that every member was trained on.
        collapsed: recipe_ids whose predictions equal another member's but for rounding, and that member; they take
            no part.
        searches: searches that members are winners of, and how many trials each has; its trials were compared on some
            of these patients.
        unfinished: recipe_ids of runs without out-of-fold predictions; they take no part.
    """

    members: tuple[Member, ...]
    image_ids: np.ndarray
    patient_N: np.ndarray
    series_N: np.ndarray
    fold_N: np.ndarray
    y_NL: np.ndarray
    p_MNL: np.ndarray
    test_image_ids: np.ndarray
    n_test_patients: int
    p_MTL: np.ndarray
    fold_plan_hash: str
    collapsed: dict[str, str]
    searches: dict[str, int]
    unfinished: tuple[str, ...]

    @cached_property
    def member_losses(self) -> np.ndarray:
        """Weighted log loss of each member and slice, float64 (M, N)."""
        return np.stack([slice_losses(self.y_NL, p_NL) for p_NL in self.p_MNL])

    @cached_property
    def suspicions(self) -> tuple[Suspicion, ...]:
        """Members whose scores are too good to be honest; a warning for the user, who alone leaves one out."""
        ids = [member.recipe_id for member in self.members]
        return find_suspicions(ids, self.p_MNL, self.y_NL, self.patient_N, self.fold_N, self.image_ids)

    @cached_property
    def alike(self) -> tuple[Alike, ...]:
        """Pairs of members that say nearly the same of every slice; both take part."""
        return find_alike([member.recipe_id for member in self.members], self.p_MNL)

    @property
    def of_first_level(self) -> np.ndarray | None:
        """Members of the first level, by number; None where they are all or none."""
        rows = np.array([m for m, member in enumerate(self.members) if member.level == FIRST_LEVEL], dtype=np.int64)
        return rows if 0 < len(rows) < len(self.members) else None

    @property
    def warnings(self) -> tuple[str, ...]:
        """A line for people on each suspicion and on each pair that is nearly the same."""
        names = {member.recipe_id: member.name for member in self.members}
        return (*(one.text(names) for one in self.suspicions), *(pair.text(names) for pair in self.alike))


def load_panel(workspace: Workspace, wanted: Sequence[Wanted] | None = None) -> Panel:
    """Read and check the members of a workspace.

    Args:
        workspace: a prepared workspace with runs.
        wanted: the members, as ``resolve_members`` reads them; None takes every complete run.

    Raises:
        ConfigError: a member that is no run of this workspace.
        DataError: predictions that are missing, incomplete, or no probabilities.
        ConflictError: members of different fold plans, or rows predicted by a model that saw their patient.
        NothingUsableError: runs, but none that is complete.
    """
    labelled, unlabelled = workspace.labelled, workspace.unlabelled
    if labelled.empty:
        raise DataError("no labelled slice to blend on: run `ichtune prepare DICOM_DIR --labels CSV` first")
    chosen, unfinished = _choose_runs(workspace, wanted)
    chosen = sorted(chosen, key=lambda run: level_of(workspace.run_about(run)))  # of copies, the first level's is kept
    fold_N = np.asarray(workspace.fold_plan.folds_for(labelled["patient_id"]), dtype=np.int64)
    image_ids, test_ids = labelled["image_id"].to_numpy(object), unlabelled["image_id"].to_numpy(object)
    kept, p_MNL, p_MTL, collapsed = _read_all(workspace, chosen, SliceOrder(image_ids), SliceOrder(test_ids), fold_N)
    return Panel(
        members=_named_members(workspace, kept),
        image_ids=image_ids,
        patient_N=labelled["patient_id"].to_numpy(object),
        series_N=labelled["series_instance_uid"].to_numpy(object),
        fold_N=fold_N,
        y_NL=labelled[list(LABELS)].to_numpy(np.float64),
        p_MNL=p_MNL,
        test_image_ids=test_ids,
        n_test_patients=int(unlabelled["patient_id"].nunique()),
        p_MTL=p_MTL,
        fold_plan_hash=workspace.fold_plan.plan_hash,
        collapsed=collapsed,
        searches=_searches_of(workspace, kept),
        unfinished=unfinished,
    )


def _read_all(
    workspace: Workspace, recipe_ids: list[str], slices: SliceOrder, test_slices: SliceOrder, fold_N: np.ndarray
) -> tuple[list[str], np.ndarray, np.ndarray, dict[str, str]]:
    """Return the distinct members, their (M, N, L) and (M, T, L) probabilities, and the duplicates."""
    plan_hash, folds = workspace.fold_plan.plan_hash, np.unique(fold_N)
    n_values = len(recipe_ids) * (len(slices) + len(test_slices)) * N_LABELS
    dtype = np.float64 if n_values * 8 <= MAX_FLOAT64_BYTES else np.float32
    p_MNL = np.empty((len(recipe_ids), len(slices), N_LABELS), dtype)
    p_MTL = np.empty((len(recipe_ids), len(test_slices), N_LABELS), dtype)
    kept: list[str] = []
    collapsed: dict[str, str] = {}
    for recipe_id in recipe_ids:
        m = len(kept)
        oof = read_member(workspace.layout.oof(recipe_id), recipe_id, plan_hash)
        p_MNL[m] = out_of_fold(oof, recipe_id, slices, fold_N)
        if len(test_slices):
            test = read_member(workspace.layout.test(recipe_id), recipe_id, plan_hash)
            p_MTL[m] = mean_of_fold_models(test, recipe_id, test_slices, folds)
        copied = copied_member(m, p_MNL, p_MTL)
        if copied is None:
            kept.append(recipe_id)
        else:
            collapsed[recipe_id] = kept[copied]
    return kept, p_MNL[: len(kept)], p_MTL[: len(kept)], collapsed


def _choose_runs(workspace: Workspace, wanted: Sequence[Wanted] | None) -> tuple[list[str], tuple[str, ...]]:
    runs, started, complete = workspace.layout.runs, started_runs(workspace), workspace.run_ids()
    if not started:
        raise DataError(f"no run in {runs}: run `ichtune train` first, it writes what a blend is made of")
    if wanted is None:
        if not complete:
            raise NothingUsableError(
                f"none of the {len(started)} runs in {runs} has out-of-fold predictions: run "
                "`ichtune train` again, it continues where it stopped"
            )
        return complete, tuple(run for run in started if run not in complete)
    recipe_ids = resolve_members(workspace, wanted)
    for recipe_id in recipe_ids:
        if recipe_id not in complete:
            raise DataError(f"run {recipe_id} has no out-of-fold predictions yet: run `ichtune train` again")
    return sorted(recipe_ids), ()


def _searches_of(workspace: Workspace, recipe_ids: Sequence[str]) -> dict[str, int]:
    if not workspace.layout.trials.is_file():
        return {}
    trials = workspace.trials
    won = sorted(set(trials.loc[trials["recipe_id"].isin(list(recipe_ids)), "search"]))
    return {search: int((trials["search"] == search).sum()) for search in won}


def _named_members(workspace: Workspace, recipe_ids: Sequence[str]) -> tuple[Member, ...]:
    records = {recipe_id: workspace.run_about(recipe_id) for recipe_id in recipe_ids}
    names = {recipe_id: str(record.get("summary", "")) for recipe_id, record in records.items()}
    shared = {name for name in names.values() if list(names.values()).count(name) > 1}
    return tuple(
        Member(
            recipe_id,
            f"{name}|{recipe_id}" if name in shared or not name else name,
            is_foreign(records[recipe_id]),
            level_of(records[recipe_id]),
        )
        for recipe_id, name in names.items()
    )
