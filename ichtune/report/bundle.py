"""A bundle: one folder with all that predicts new slices, and nothing of the data that it was trained on.

``bundle.json`` says what there is, with the fitted blend as numbers; ``weights/<recipe_id>/fold_<n>.safetensors`` are
the fold models of both levels, ``onnx/<recipe_id>/fold_<n>.onnx`` the networks' graphs where they were asked for;
``MODEL_CARD.md`` is for people.
"""

import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from ichtune.ensemble.spec import BlendSpec
from ichtune.errors import ConfigError, DataError
from ichtune.labels import LABELS
from ichtune.report.blend_account import BlendAccount, TrainedOn
from ichtune.report.bundle_members import WrittenMember, read_member, write_member
from ichtune.report.fold_ensemble import (
    AnyMember,
    CacheNeed,
    FoldEnsemble,
    NetworkMember,
    StackedMember,
    n_left_out,
    needed_ids,
    restore_live,
)
from ichtune.report.json_files import read_json_object
from ichtune.report.model_card import model_card
from ichtune.report.onnx_export import ComparedSlices, check_onnx_installed
from ichtune.report.whole_folder import beside, whole_folder
from ichtune.tables import check_writable, write_json
from ichtune.workspace import Workspace

#: Raise when bundles of the last version can no longer be read; 2 is the first with a second level.
BUNDLE_FORMAT = 2
BUNDLE_JSON = "bundle.json"
MODEL_CARD = "MODEL_CARD.md"
#: Every file that a bundle may hold, below its folder.
_FILES = (BUNDLE_JSON, MODEL_CARD, "weights/*/fold_*.safetensors", "onnx/*/fold_*.onnx")


@dataclass(frozen=True)
class BundleSummary:
    """What was written.

    Attributes:
        n_members: recipes of both levels.
        n_models: their fold models.
        n_left_out: members that were not written, since their weight is zero for every label and nobody needs them.
        n_second_level: recipes of the second level.
        n_onnx: networks that were exported as ONNX too.
        onnx_difference: largest difference of a probability between torch and their graphs; None without any.
    """

    path: Path
    n_members: int
    n_models: int
    n_bytes: int
    generated: bool
    n_left_out: int = 0
    n_second_level: int = 0
    n_onnx: int = 0
    onnx_difference: float | None = None


def write_bundle(
    ensemble: FoldEnsemble,
    out: Path,
    licence: str = "",
    *,
    replace_old: bool = False,
    onnx_on: Workspace | None = None,
) -> BundleSummary:
    """Write a bundle, whole or not at all.

    Args:
        ensemble: a workspace's models and blend.
        out: the folder to make.
        licence: under which terms its maker passes it on; in the maker's words.
        replace_old: let a bundle that lies there go.
        onnx_on: also export every network as ONNX, and compare it with torch on slices of this workspace.

    Raises:
        ConfigError: ``out`` exists, and is not to be replaced, is no bundle or holds other files too; or ONNX is asked
            for, and its packages are missing or a network has no such form.
        DataError: weights that are missing or are none, or an ONNX graph that differs from torch.
        StorageError: the disk is full, or ``out`` may not be written; a bundle that lay there still does.
    """
    check_bundle_path(out, replace_old=replace_old)
    if onnx_on is not None:
        check_onnx_installed()
    for weights in ensemble.weights:
        weights.check()
    slices = None if onnx_on is None else ComparedSlices(onnx_on)
    with whole_folder(out, "bundle") as folder:
        members = [write_member(member, folder, slices) for member in ensemble.members]
        unweighted = [write_member(member, folder, slices) for member in ensemble.unweighted]
        write_json(_about(ensemble, members, unweighted, licence), folder / BUNDLE_JSON)
        (folder / MODEL_CARD).write_text(model_card(ensemble, licence), encoding="utf-8")
    differences = [difference for one in (*members, *unweighted) for difference in one.onnx_differences]
    return BundleSummary(
        path=out,
        n_members=len(members) + len(unweighted),
        n_models=len(ensemble.weights),
        n_bytes=sum(path.stat().st_size for path in out.rglob("*") if path.is_file()),
        generated=ensemble.trained_on.generated,
        n_left_out=ensemble.n_left_out,
        n_second_level=len(ensemble.stacked),
        n_onnx=len(differences),
        onnx_difference=max(differences, default=None),
    )


def check_bundle_path(out: Path, *, replace_old: bool) -> None:
    """Make sure that a bundle may be written there, before the work that leads to it; see ``write_bundle``.

    Raises:
        ConfigError: ``out`` exists, and is not to be replaced, is no bundle or holds other files too.
        StorageError: ``out`` may not be written.
    """
    exists = os.path.exists(out)  # False where it cannot be known, which ``check_writable`` then explains
    if exists:
        _check_old(out, replace_old)
    check_writable(beside(out, "new") if exists else out)


def _check_old(out: Path, replace_old: bool) -> None:
    if not (out / BUNDLE_JSON).is_file():
        raise ConfigError(f"{out} exists and is no bundle; name another folder with --out")
    if not replace_old:
        raise ConfigError(f"{out} exists; add --replace to write the bundle in its place, or name another --out")
    foreign = [path for path in sorted(out.rglob("*")) if not _belongs(path, out)]
    if foreign:
        raise ConfigError(
            f"{out} holds {foreign[0].relative_to(out)}, which is no part of a bundle and would be lost; move it "
            "elsewhere, or name another folder with --out"
        )


def _belongs(path: Path, out: Path) -> bool:
    """Say whether a bundle may hold this, judged by its place; folders say nothing by themselves."""
    if path.is_dir() and not path.is_symlink():
        return True
    place = path.relative_to(out)
    return any(len(place.parts) == name.count("/") + 1 and place.match(name) for name in _FILES)


def _about(
    ensemble: FoldEnsemble, members: Sequence[WrittenMember], unweighted: Sequence[WrittenMember], licence: str
) -> dict[str, Any]:
    blend = ensemble.blend
    spec = blend.spec.to_dict()
    if isinstance(spec["members"], list):  # which may be paths of recipes
        spec["members"] = [member.recipe_id for member in ensemble.members]
    return {
        "bundle_format": BUNDLE_FORMAT,
        "labels": list(LABELS),
        "members": [one.told for one in members],
        "unweighted": [one.told for one in unweighted],
        "blend": {"spec": spec, "learned": blend.learned()},
        "caches": [asdict(need) for need in ensemble.caches],
        "n_left_out": ensemble.n_left_out,
        "fold_plan_hash": ensemble.fold_plan_hash,
        "generated": ensemble.trained_on.generated,
        "trained_on": asdict(ensemble.trained_on),
        "account": asdict(ensemble.account),
        "licence": licence,
    }


def read_bundle(path: Path) -> FoldEnsemble:
    """Read a bundle; its weights files are checked when they are used.

    Raises:
        DataError: no bundle, one of another format or label order, or a damaged one.
    """
    file = path / BUNDLE_JSON
    about = read_json_object(file, "bundle")
    if about is None:
        what = f"holds no {BUNDLE_JSON}" if path.is_dir() else "does not exist"
        raise DataError(f"bundle {path} {what}; name a folder that `ichtune bundle` wrote")
    if about.get("bundle_format") != BUNDLE_FORMAT:
        raise DataError(
            f"{file} has bundle_format {about.get('bundle_format')!r}, expected {BUNDLE_FORMAT}: ichtune "
            f"{about.get('ichtune_version')} wrote it; use that version, or make the bundle again with this one"
        )
    if about.get("labels") != list(LABELS):
        raise DataError(f"{file} has labels {about.get('labels')}, expected {list(LABELS)}; make the bundle again")
    try:
        return _ensemble(path, about)
    except (LookupError, TypeError, ValueError, ConfigError) as error:
        raise DataError(f"{file} is damaged or of another version: {error}; make the bundle again") from error


def _ensemble(path: Path, about: Mapping[str, Any]) -> FoldEnsemble:
    bundled = tuple(read_member(path, member) for member in about["members"])
    all_members = (*bundled, *(read_member(path, member) for member in about["unweighted"]))
    members, blend = restore_live(BlendSpec(**about["blend"]["spec"]), about["blend"]["learned"], bundled)
    unweighted = _networks(all_members, needed_ids(members))
    _check_together((*members, *unweighted))
    return FoldEnsemble(
        members=members,
        blend=blend,
        caches=tuple(CacheNeed(**need) for need in about["caches"]),
        fold_plan_hash=str(about["fold_plan_hash"]),
        trained_on=TrainedOn(**about["trained_on"]),
        n_left_out=int(about["n_left_out"]) + n_left_out([one.recipe_id for one in bundled], members, unweighted),
        unweighted=unweighted,
        account=BlendAccount.from_plain(about["account"]),
    )


def _networks(members: Sequence[AnyMember], recipe_ids: Sequence[str]) -> tuple[NetworkMember, ...]:
    held = {member.recipe_id: member for member in members if isinstance(member, NetworkMember)}
    missing = [recipe_id for recipe_id in recipe_ids if recipe_id not in held]
    if missing:
        raise ValueError(f"a second level needs the networks of {', '.join(missing)}, which it does not hold")
    return tuple(held[recipe_id] for recipe_id in recipe_ids)


def _check_together(members: Sequence[AnyMember]) -> None:
    """Refuse members of different numbers of folds, and second levels that learnt from each other."""
    counts = {len(member.folds) for member in members}
    if len(counts) > 1:
        raise ValueError(f"every member must have a model of each fold, got {sorted(counts)} models")
    stacked = {member.recipe_id for member in members if isinstance(member, StackedMember)}
    for member in members:
        if isinstance(member, StackedMember) and stacked & set(member.members):
            raise ValueError(f"{member.recipe_id} must learn from networks alone, got {list(member.members)}")
