"""A bundle: one folder with all that predicts new slices, and nothing of the data that it was trained on.

``bundle.json`` says what there is, with the fitted blend as numbers; ``weights/<recipe_id>/fold_<n>.safetensors`` are
the fold models; ``MODEL_CARD.md`` is for people.
"""

import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any

from ichtune.data.cache.hu_cache import file_sha256
from ichtune.ensemble.spec import BlendSpec
from ichtune.errors import ConfigError, DataError, StorageError
from ichtune.labels import LABELS
from ichtune.recipe import Recipe
from ichtune.report.fold_ensemble import (
    CacheNeed,
    EnsembleMember,
    FoldEnsemble,
    FoldWeights,
    TrainedOn,
    restore_live,
)
from ichtune.report.json_files import read_json_object
from ichtune.report.model_card import model_card
from ichtune.tables import check_writable, write_json
from ichtune.training.checkpoint import load_checkpoint, save_checkpoint

#: Raise when bundles of the last version can no longer be read.
BUNDLE_FORMAT = 1
BUNDLE_JSON = "bundle.json"
MODEL_CARD = "MODEL_CARD.md"
#: Every file that a bundle may hold, below its folder.
_FILES = (BUNDLE_JSON, MODEL_CARD, "weights/*/fold_*.safetensors")
#: What a bundled weights file says of itself beside its recipe; whatever else a run noted stays behind.
_KEPT = ("kind", "n_networks", "fold", "recipe_id", "fold_plan_hash", "schema_version", "ichtune_version")


@dataclass(frozen=True)
class BundleSummary:
    """What was written; ``n_left_out`` members were not, since their weight is zero for every label."""

    path: Path
    n_members: int
    n_models: int
    n_bytes: int
    generated: bool
    n_left_out: int = 0


def write_bundle(ensemble: FoldEnsemble, out: Path, licence: str = "", *, replace_old: bool = False) -> BundleSummary:
    """Write a bundle, whole or not at all.

    Args:
        ensemble: a workspace's models and blend.
        out: the folder to make.
        licence: under which terms its maker passes it on; in the maker's words.
        replace_old: let a bundle that lies there go.

    Raises:
        ConfigError: ``out`` exists, and is not to be replaced, is no bundle or holds other files too.
        DataError: weights that are missing or are none.
        StorageError: the disk is full, or ``out`` may not be written; a bundle that lay there still does.
    """
    check_bundle_path(out, replace_old=replace_old)
    for weights in ensemble.weights:
        weights.check()
    with _whole_folder(out) as folder:
        members = [_write_member(member, folder) for member in ensemble.members]
        write_json(_about(ensemble, members, licence), folder / BUNDLE_JSON)
        (folder / MODEL_CARD).write_text(model_card(ensemble, licence), encoding="utf-8")
    n_bytes = sum(path.stat().st_size for path in out.rglob("*") if path.is_file())
    return BundleSummary(
        path=out,
        n_members=len(ensemble.members),
        n_models=len(ensemble.weights),
        n_bytes=n_bytes,
        generated=ensemble.trained_on.generated,
        n_left_out=ensemble.n_left_out,
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
    check_writable(_beside(out, "new") if exists else out)


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


def _beside(out: Path, what: str) -> Path:
    """Return a name beside the folder itself, which ``out`` may only link to, so that renaming moves no data."""
    out = out.resolve()
    return out.with_name(f".{out.name}.{os.getpid()}.{what}")


@contextmanager
def _whole_folder(out: Path) -> Iterator[Path]:
    """Give a folder beside ``out`` to write into, which takes its name when the block ends well and goes otherwise.

    What lay at ``out`` goes only after the new folder has taken its place.
    """
    new, old, out = _beside(out, "new"), _beside(out, "old"), out.resolve()
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        new.mkdir()
        yield new
        if out.exists():
            out.rename(old)
        new.rename(out)
    except OSError as error:
        raise StorageError(f"cannot write the bundle {out}: {error.strerror or error}") from error
    finally:
        shutil.rmtree(new, ignore_errors=True)
        if out.exists():
            shutil.rmtree(old, ignore_errors=True)
        elif old.exists():
            _put_back(old, out)


def _put_back(old: Path, out: Path) -> None:
    try:
        old.rename(out)
    except OSError as error:
        raise StorageError(
            f"cannot write the bundle {out}, nor put back the one that lay there: {error.strerror or error}; it is "
            f"whole and lies in {old}"
        ) from error


def _write_member(member: EnsembleMember, folder: Path) -> dict[str, Any]:
    """Write the weights of a member's models, and return what ``bundle.json`` says of it."""
    recipe = _without_folders(member.recipe).to_dict()
    folds = []
    for weights in member.folds:
        tensors, about = load_checkpoint(weights.path, "weights")
        file = PurePosixPath("weights", member.recipe_id, f"fold_{weights.fold}.safetensors")
        path = folder / file
        save_checkpoint(path, tensors, {key: about[key] for key in _KEPT if key in about} | {"recipe": recipe})
        folds.append({"fold": weights.fold, "file": str(file), "sha256": file_sha256(path)})
    return {"recipe_id": member.recipe_id, "name": member.name, "recipe": recipe, "folds": folds}


def _without_folders(recipe: Recipe) -> Recipe:
    """Return the recipe with names in place of paths: where its maker's files lay is nobody else's business."""
    own = recipe.pretrained
    return replace(
        recipe,
        pretrained=_last_part(own) if isinstance(own, str) else own,
        warm_start=_last_part(recipe.warm_start),
        pseudo_labels=_last_part(recipe.pseudo_labels),
    )


def _last_part(text: str) -> str:
    return PureWindowsPath(text).name  # knows both kinds of slashes


def _about(ensemble: FoldEnsemble, members: list[dict[str, Any]], licence: str) -> dict[str, Any]:
    blend = ensemble.blend
    return {
        "bundle_format": BUNDLE_FORMAT,
        "labels": list(LABELS),
        "members": members,
        "blend": {"spec": blend.spec.to_dict(), "learned": blend.blender.learned()},
        "caches": [asdict(need) for need in ensemble.caches],
        "n_left_out": ensemble.n_left_out,
        "fold_plan_hash": ensemble.fold_plan_hash,
        "generated": ensemble.trained_on.generated,
        "trained_on": asdict(ensemble.trained_on),
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
    bundled = tuple(
        EnsembleMember(
            recipe_id=str(member["recipe_id"]),
            name=str(member["name"]),
            recipe=Recipe.from_dict(member["recipe"]),
            folds=tuple(_fold_weights(path, fold) for fold in member["folds"]),
        )
        for member in about["members"]
    )
    members, blend = restore_live(BlendSpec(**about["blend"]["spec"]), about["blend"]["learned"], bundled)
    return FoldEnsemble(
        members=members,
        blend=blend,
        caches=tuple(CacheNeed(**need) for need in about["caches"]),
        fold_plan_hash=str(about["fold_plan_hash"]),
        trained_on=TrainedOn(**about["trained_on"]),
        n_left_out=int(about.get("n_left_out", 0)) + len(bundled) - len(members),
    )


def _fold_weights(path: Path, told: Mapping[str, Any]) -> FoldWeights:
    file = PurePosixPath(told["file"])
    if file.is_absolute() or ".." in file.parts:
        raise ValueError(f"weights file {str(file)!r} does not lie in the bundle")
    return FoldWeights(int(told["fold"]), path / file, str(told["sha256"]))
