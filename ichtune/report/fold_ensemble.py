"""FoldEnsemble: the fold models of a blend's members and the fitted blend, wherever their files lie.

A workspace's last blend and a bundle both give one; whatever predicts new slices starts from it.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, TypeVar

from ichtune.data.cache.hu_cache import file_sha256
from ichtune.ensemble.fitting import FittedBlend, restore_blend
from ichtune.ensemble.ladder import BLEND
from ichtune.ensemble.members.run_records import check_have_models, run_title
from ichtune.ensemble.spec import BlendSpec
from ichtune.errors import ConflictError, DataError
from ichtune.recipe import CROPS, Recipe
from ichtune.report.blend_account import BlendAccount, TrainedOn, account_of
from ichtune.report.json_files import read_json, read_json_object
from ichtune.report.stacked_models import StackedModels
from ichtune.second_level.inputs import load_inputs
from ichtune.second_level_recipe import SecondLevelRecipe, recipe_from_dict
from ichtune.training.run_folder import WEIGHTS_FILE, fold_folder
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
    folds: tuple[FoldWeights, ...]


@dataclass(frozen=True)
class NetworkMember(EnsembleMember):
    """A recipe of the first level: networks, which look at slices."""

    recipe: Recipe


@dataclass(frozen=True)
class StackedMember(EnsembleMember):
    """A recipe of the second level, which looks at what networks predict along a series.

    Attributes:
        members: recipe_ids of the first-level runs that it learnt from.
    """

    recipe: SecondLevelRecipe
    members: tuple[str, ...]

    def load(self) -> StackedModels:
        """Return its fold models.

        Raises:
            DataError: see ``StackedModels``; or they learnt from other runs than ``members``.
        """
        models = StackedModels(f"{self.name} ({self.recipe_id})", [weights.path for weights in self.folds])
        if models.members != self.members:
            raise DataError(
                f"the second level {models.name} learnt from {', '.join(models.members)}, expected "
                f"{', '.join(self.members)}; bring the weights of one training"
            )
        return models


AnyMember = NetworkMember | StackedMember


@dataclass(frozen=True)
class FoldEnsemble:
    """Everything that turns new slices into probabilities.

    Attributes:
        members: the members that the blend chose and gave a weight, in its order.
        blend: fitted on them; takes their predictions (M, N, L) in that order.
        caches: what new slices are prepared into, in the order in which to do it; the first is of whole slices.
        fold_plan_hash: the plan that every member was trained on.
        trained_on: what is told of the training data.
        n_left_out: further members that the blend chose, whose weight is zero for every label and which nobody needs.
        unweighted: networks that have no weight in the blend, and are needed by members of the second level.
        account: how the blend came to its loss.
    """

    members: tuple[AnyMember, ...]
    blend: FittedBlend
    caches: tuple[CacheNeed, ...]
    fold_plan_hash: str
    trained_on: TrainedOn
    n_left_out: int = 0
    unweighted: tuple[NetworkMember, ...] = ()
    account: BlendAccount = field(default_factory=BlendAccount)

    @property
    def networks(self) -> tuple[NetworkMember, ...]:
        """The members of the first level, whether or not they have a weight of their own."""
        return (*(member for member in self.members if isinstance(member, NetworkMember)), *self.unweighted)

    @property
    def stacked(self) -> tuple[StackedMember, ...]:
        """The members of the second level."""
        return tuple(member for member in self.members if isinstance(member, StackedMember))

    @property
    def weights(self) -> tuple[FoldWeights, ...]:
        """Every weights file, member by member, networks first."""
        return tuple(fold for member in (*self.networks, *self.stacked) for fold in member.folds)


def ensemble_of(workspace: Workspace) -> FoldEnsemble:
    """Return the last blend of a workspace with its models: what predicts is what was scored.

    Runs that were trained since are no part of it. The networks that a member of the second level learnt from are, also
    where they have no weight of their own.

    Raises:
        DataError: no blend yet, one of an older version, a run without its recipe, or one that has no models since it
            was brought as predictions.
        ConflictError: the folds were dealt again since the blend, or a second level learnt from other predictions than
            its members now make.
    """
    path, about, ladder = _last_blend(workspace)
    try:
        names = {member["recipe_id"]: str(member["name"]) for member in about["members"]}
        chosen = [str(recipe_id) for recipe_id in about["chosen"]]
        plan_hash = str(about["fold_plan_hash"])
        live, blend = restore_live(BlendSpec(**about["spec"]), about["learned"], chosen)
        trained_on, account = _trained_on(workspace, about), account_of(about, ladder)
    except (LookupError, TypeError, ValueError) as error:
        raise DataError(
            f"{path} does not hold the fitted blend ({error!r}): an older ichtune wrote it; run `ichtune blend` again"
        ) from error
    if plan_hash != workspace.fold_plan.plan_hash:
        raise ConflictError(
            f"{path} was blended on fold plan {plan_hash}, but the workspace's plan is "
            f"{workspace.fold_plan.plan_hash}; run `ichtune train` and `ichtune blend` again"
        )
    check_have_models(workspace, live, "predicting new files")
    members = tuple(_member(workspace, recipe_id, names[recipe_id], plan_hash) for recipe_id in live)
    unweighted = _needed_networks(workspace, members, plan_hash)
    networks = [member for member in (*members, *unweighted) if isinstance(member, NetworkMember)]
    return FoldEnsemble(
        members=members,
        blend=blend,
        caches=_caches(workspace, [member.recipe for member in networks]),
        fold_plan_hash=plan_hash,
        trained_on=trained_on,
        n_left_out=n_left_out(chosen, members, unweighted),
        unweighted=unweighted,
        account=account,
    )


def needed_ids(members: Iterable[AnyMember]) -> list[str]:
    """Return the recipe_ids of networks that members of the second level need and that are no members themselves."""
    members = list(members)
    own = {member.recipe_id for member in members}
    needed = (one for member in members if isinstance(member, StackedMember) for one in member.members)
    return [recipe_id for recipe_id in dict.fromkeys(needed) if recipe_id not in own]


def n_left_out(chosen: Sequence[str], members: Sequence[AnyMember], unweighted: Sequence[NetworkMember]) -> int:
    """Count the chosen members whose models do not run."""
    return len(set(chosen) - {member.recipe_id for member in (*members, *unweighted)})


def restore_live(
    spec: BlendSpec, learned: Mapping[str, Any], members: Sequence[_T]
) -> tuple[tuple[_T, ...], FittedBlend]:
    """Return the members that a blend's predictions depend on, and the blend of these alone.

    One whose weight is zero for every label changes no prediction, so that its models need not run; see
    ``Blender.live``.

    Args:
        spec: what was asked for.
        learned: see ``restore_blend``.
        members: those that were chosen, in the blend's order.

    Raises:
        DataError: not what such a blender learns, or of another number of members.
    """
    blend = restore_blend(spec, learned, len(members))
    rows = blend.blender.live()
    if rows is None:
        return tuple(members), blend
    live = rows.tolist()
    of_live = restore_blend(spec, {**learned, "blender": blend.blender.learned_of(live)}, len(live))
    return tuple(members[m] for m in live), of_live


def _last_blend(workspace: Workspace) -> tuple[Path, dict[str, Any], list[Any]]:
    """The blend that the ladder is about, and the ladder's rows.

    Times of files, which copying changes, count only without a ladder.
    """
    ladder = workspace.layout.ladder
    rows = read_json(ladder, "blend")
    rows = rows if isinstance(rows, list) else []
    named = [row.get("blend_id") for row in rows if isinstance(row, dict) and row.get("name") == BLEND]
    if named:
        path = workspace.layout.blends / str(named[0]) / "blend.json"
        about = read_json_object(path, "blend")
        if about is None:
            raise DataError(f"{path} is missing, which {ladder} is about; run `ichtune blend` again")
        return path, about, rows
    paths = sorted(workspace.layout.blends.glob("*/blend.json"), key=lambda path: (path.stat().st_mtime_ns, path))
    if not paths:
        _ = workspace.about
        raise DataError(f"no blend in {workspace.layout.blends}: run `ichtune blend` first")
    return paths[-1], read_json_object(paths[-1], "blend") or {}, []


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


def _member(workspace: Workspace, recipe_id: str, name: str, plan_hash: str) -> AnyMember:
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
    recipe = recipe_from_dict(about["recipe"])
    paths = [fold_folder(workspace, recipe_id, fold) / WEIGHTS_FILE for fold in range(workspace.fold_plan.k)]
    folds = tuple(FoldWeights(fold, path) for fold, path in enumerate(paths))
    if isinstance(recipe, Recipe):
        return NetworkMember(recipe_id, name, folds, recipe)
    member = StackedMember(recipe_id, name, folds, recipe, StackedModels(name, paths).members)
    _check_inputs(workspace, member, about.get("members"))
    return member


def _check_inputs(workspace: Workspace, member: StackedMember, learnt_from: Any) -> None:
    """Refuse a second level whose members now predict something else than it learnt from."""
    now = load_inputs(workspace, replace(member.recipe, embeddings=0)).ids["members"]
    then = learnt_from if isinstance(learnt_from, dict) else {}
    changed = [recipe_id for recipe_id, digest in now.items() if then.get(recipe_id) != digest]
    if changed or set(then) != set(now):
        raise ConflictError(
            f"the second level {member.name} ({member.recipe_id}) learnt from other predictions than "
            f"{', '.join(changed or sorted(now))} now makes; run `ichtune stack` and `ichtune blend` again"
        )


def _needed_networks(workspace: Workspace, members: Sequence[AnyMember], plan_hash: str) -> tuple[NetworkMember, ...]:
    """Networks that have no weight in the blend, and without which a second level sees nothing."""
    found = []
    for recipe_id in needed_ids(members):
        users = [one.name for one in members if isinstance(one, StackedMember) and recipe_id in one.members]
        check_have_models(workspace, [recipe_id], f"the second level {users[0]}")
        network = _member(workspace, recipe_id, run_title(workspace, recipe_id) or recipe_id, plan_hash)
        if not isinstance(network, NetworkMember):
            raise DataError(f"{users[0]} learnt from {recipe_id}, which is itself of the second level; stack it again")
        found.append(network)
    return tuple(found)


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
