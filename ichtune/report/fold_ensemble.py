"""FoldEnsemble: the fold models of a blend's members and the fitted blend, wherever their files lie.

A workspace's last blend and a bundle both give one; whatever predicts new slices starts from it.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from ichtune.data.cache.hu_cache import file_sha256
from ichtune.ensemble.fitting import FittedBlend, restore_blend
from ichtune.ensemble.ladder import BLEND
from ichtune.ensemble.spec import BlendSpec
from ichtune.errors import ConflictError, DataError
from ichtune.recipe import CROPS, Recipe
from ichtune.report.json_files import read_json, read_json_object
from ichtune.training.fold_run import WEIGHTS_FILE, fold_folder
from ichtune.workspace import Workspace

_T = TypeVar("_T")


@dataclass(frozen=True)
class CacheNeed:
    """A cache that new slices must be prepared into: side in pixels (None for native), and crop."""

    size_px: int | None
    crop: str


@dataclass(frozen=True)
class FoldWeights:
    """The weights of one fold's model, and their SHA-256 where it was recorded."""

    fold: int
    path: Path
    sha256: str | None = None

    def check(self) -> None:
        """Raise ``DataError``, naming the file, where it is missing or has changed."""
        if not self.path.is_file():
            raise DataError(f"weights file {self.path} is missing: bring the whole folder again, or make it again")
        if self.sha256 is None:
            return
        found = file_sha256(self.path)
        if found != self.sha256:
            raise DataError(
                f"weights file {self.path} has changed since it was written: SHA-256 {found}, expected {self.sha256}; "
                "bring it again, or make the bundle again with `ichtune bundle`"
            )


@dataclass(frozen=True)
class EnsembleMember:
    """One recipe that takes part, with the model of each of its folds in order."""

    recipe_id: str
    name: str
    recipe: Recipe
    folds: tuple[FoldWeights, ...]


@dataclass(frozen=True)
class TrainedOn:
    """What is told of the training data: counts, and the blend's cross-fitted loss on it with its interval."""

    generated: bool
    n_patients: int
    n_slices: int
    crossfit_loss: float
    crossfit_low: float
    crossfit_high: float
    level: float


@dataclass(frozen=True)
class FoldEnsemble:
    """Everything that turns new slices into probabilities.

    Attributes:
        members: the members that the blend chose and gave a weight, in its order.
        blend: fitted on them; takes their predictions (M, N, L) in that order.
        caches: what new slices are prepared into, in the order in which to do it; the first is of whole slices.
        fold_plan_hash: the plan that every member was trained on.
        trained_on: what is told of the training data.
        n_left_out: further members that the blend chose, whose weight is zero for every label.
    """

    members: tuple[EnsembleMember, ...]
    blend: FittedBlend
    caches: tuple[CacheNeed, ...]
    fold_plan_hash: str
    trained_on: TrainedOn
    n_left_out: int = 0

    @property
    def weights(self) -> tuple[FoldWeights, ...]:
        """Every weights file, member by member."""
        return tuple(fold for member in self.members for fold in member.folds)


def ensemble_of(workspace: Workspace) -> FoldEnsemble:
    """Return the last blend of a workspace with its models: what predicts is what was scored.

    Runs that were trained since are no part of it.

    Raises:
        DataError: no blend yet, one of an older version, or a run without its recipe.
        ConflictError: the folds were dealt again since the blend.
    """
    path, about = _last_blend(workspace)
    try:
        names = {member["recipe_id"]: str(member["name"]) for member in about["members"]}
        chosen = [str(recipe_id) for recipe_id in about["chosen"]]
        plan_hash = str(about["fold_plan_hash"])
        live, blend = restore_live(BlendSpec(**about["spec"]), about["learned"], chosen)
        trained_on = _trained_on(workspace, about)
    except (LookupError, TypeError) as error:
        raise DataError(
            f"{path} does not hold the fitted blend ({error!r}): an older ichtune wrote it; run `ichtune blend` again"
        ) from error
    if plan_hash != workspace.fold_plan.plan_hash:
        raise ConflictError(
            f"{path} was blended on fold plan {plan_hash}, but the workspace's plan is "
            f"{workspace.fold_plan.plan_hash}; run `ichtune train` and `ichtune blend` again"
        )
    members = tuple(_member(workspace, recipe_id, names[recipe_id], plan_hash) for recipe_id in live)
    caches = _caches(workspace, [member.recipe for member in members])
    return FoldEnsemble(members, blend, caches, plan_hash, trained_on, len(chosen) - len(live))


def restore_live(
    spec: BlendSpec, learned: Mapping[str, Any], members: Sequence[_T]
) -> tuple[tuple[_T, ...], FittedBlend]:
    """Return the members that a blend's predictions depend on, and the blend of these alone.

    One whose weight is zero for every label changes no prediction, so that its models need not run. What a blender
    does that has no weights, or learnt more than them, is not known here: all its members stay.

    Args:
        spec: what was asked for.
        learned: see ``restore_blend``.
        members: those that were chosen, in the blend's order.

    Raises:
        DataError: not what such a blender learns, or of another number of members.
    """
    blend = restore_blend(spec, learned, len(members))
    weights_ML = blend.blender.weights_
    if weights_ML is None or learned.keys() != {"weights_"}:
        return tuple(members), blend
    live = np.flatnonzero(weights_ML.any(axis=1)).tolist()
    of_live = restore_blend(spec, {"weights_": weights_ML[live].tolist()}, len(live))
    return tuple(members[m] for m in live), of_live


def _last_blend(workspace: Workspace) -> tuple[Path, dict[str, Any]]:
    """The blend that the ladder is about; times of files, which copying changes, count only without a ladder."""
    ladder = workspace.layout.ladder
    rows = read_json(ladder, "blend")
    rows = rows if isinstance(rows, list) else []
    named = [row.get("blend_id") for row in rows if isinstance(row, dict) and row.get("name") == BLEND]
    if named:
        path = workspace.layout.blends / str(named[0]) / "blend.json"
        about = read_json_object(path, "blend")
        if about is None:
            raise DataError(f"{path} is missing, which {ladder} is about; run `ichtune blend` again")
        return path, about
    paths = sorted(workspace.layout.blends.glob("*/blend.json"), key=lambda path: (path.stat().st_mtime_ns, path))
    if not paths:
        _ = workspace.about
        raise DataError(f"no blend in {workspace.layout.blends}: run `ichtune blend` first")
    return paths[-1], read_json_object(paths[-1], "blend") or {}


def _trained_on(workspace: Workspace, about: dict[str, Any]) -> TrainedOn:
    loss = about["loss"]
    return TrainedOn(
        generated=bool(workspace.about.get("generated")),
        n_patients=int(workspace.labelled["patient_id"].nunique()),
        n_slices=len(workspace.labelled),
        crossfit_loss=float(loss["crossfit_loss"]),
        crossfit_low=float(loss["crossfit_low"]),
        crossfit_high=float(loss["crossfit_high"]),
        level=float(about["interval"]["level"]),
    )


def _member(workspace: Workspace, recipe_id: str, name: str, plan_hash: str) -> EnsembleMember:
    """A run that is trained on every fold of the plan."""
    folder = workspace.layout.runs / recipe_id
    about = read_json_object(folder / "recipe.json", "train")
    if about is None or "recipe" not in about:
        raise DataError(f"{folder / 'recipe.json'} does not hold the run's recipe; run `ichtune train` again")
    if about.get("fold_plan_hash") != plan_hash:
        raise ConflictError(
            f"run {folder} was trained on fold plan {about.get('fold_plan_hash')}, but the blend is of {plan_hash}; "
            "run `ichtune train` and `ichtune blend` again"
        )
    paths = [fold_folder(workspace, recipe_id, fold) / WEIGHTS_FILE for fold in range(workspace.fold_plan.k)]
    folds = tuple(FoldWeights(fold, path) for fold, path in enumerate(paths))
    return EnsembleMember(recipe_id, name, Recipe.from_dict(about["recipe"]), folds)


def _caches(workspace: Workspace, recipes: Iterable[Recipe]) -> tuple[CacheNeed, ...]:
    """The caches that the recipes read here.

    Crops are found in the workspace's base cache and depend a little on its size, so it comes first where there are
    crops.
    """
    whole = CROPS[0]
    found = {CacheNeed(workspace.cache_for(r.image_px, r.crop).size_px, r.crop) for r in recipes}
    base = CacheNeed(workspace.about.get("size_px"), whole)
    if any(need.crop != whole for need in found):
        found.add(base)
    return tuple(sorted(found, key=lambda need: (need != base, need.crop != whole, need.size_px or 0, need.crop)))
