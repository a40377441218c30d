"""The members of a bundle: their weights, without what only training needs to know, and what ``bundle.json`` says."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any

from ichtune.data.cache.hu_cache import file_sha256
from ichtune.recipe import Recipe
from ichtune.report.fold_ensemble import AnyMember, FoldWeights, NetworkMember, StackedMember
from ichtune.report.onnx_export import ComparedSlices, export_fold
from ichtune.second_level.state_file import load_state, save_state
from ichtune.second_level_recipe import recipe_from_dict
from ichtune.training.checkpoint import load_checkpoint, save_checkpoint

#: What a bundled weights file says of itself beside its recipe; whatever else a run noted stays behind.
_KEPT = ("kind", "n_networks", "fold", "recipe_id", "fold_plan_hash", "schema_version", "ichtune_version")
_KEPT_STACKED = ("kind", "fold", "recipe_id", "members", "embedded", "model")


@dataclass(frozen=True)
class WrittenMember:
    """A member in a bundle.

    Attributes:
        told: what ``bundle.json`` says of it.
        onnx_differences: between torch and each graph that was exported, in probability.
    """

    told: dict[str, Any]
    onnx_differences: tuple[float, ...] = ()


def write_member(member: AnyMember, folder: Path, onnx_on: ComparedSlices | None = None) -> WrittenMember:
    """Write the weights of a member's models below ``folder``, and of a network's its graphs where they are asked for.

    Raises:
        DataError: weights that are missing or are none; or see ``export_fold``.
        ConfigError: see ``export_fold``.
        StorageError: the disk is full, or the folder may not be written.
    """
    write = _write_network if isinstance(member, NetworkMember) else _write_stacked
    about: dict[str, Any] = {"recipe_id": member.recipe_id, "name": member.name, "recipe": _recipe(member)}
    if isinstance(member, StackedMember):
        about["members"] = list(member.members)
    folds, differences = [], []
    for weights in member.folds:
        file = _place("weights", member, weights, ".safetensors")
        write(weights, folder / file, about["recipe"])
        told: dict[str, Any] = {"fold": weights.fold, **_file(folder, file)}
        if onnx_on is not None and isinstance(member, NetworkMember):
            graph = _place("onnx", member, weights, ".onnx")
            exported = export_fold(folder / file, folder / graph, onnx_on)
            differences.append(exported.difference)
            about_graph = {"inputs": list(exported.inputs), "largest_difference": exported.difference}
            told["onnx"] = {**_file(folder, graph), **about_graph}
        folds.append(told)
    return WrittenMember({**about, "folds": folds}, tuple(differences))


def _place(kind: str, member: AnyMember, weights: FoldWeights, suffix: str) -> PurePosixPath:
    return PurePosixPath(kind, member.recipe_id, f"fold_{weights.fold}{suffix}")


def _file(folder: Path, file: PurePosixPath) -> dict[str, str]:
    return {"file": str(file), "sha256": file_sha256(folder / file)}


def _write_network(weights: FoldWeights, path: Path, recipe: dict[str, Any]) -> None:
    tensors, about = load_checkpoint(weights.path, "weights")
    save_checkpoint(path, tensors, {key: about[key] for key in _KEPT if key in about} | {"recipe": recipe})


def _write_stacked(weights: FoldWeights, path: Path, recipe: dict[str, Any]) -> None:
    arrays, about = load_state(weights.path, "weights")
    save_state(path, arrays, {key: about[key] for key in _KEPT_STACKED if key in about} | {"recipe": recipe})


def _recipe(member: AnyMember) -> dict[str, Any]:
    """The recipe with names in place of paths: where its maker's files lay is nobody else's business."""
    recipe = member.recipe
    return (_without_folders(recipe) if isinstance(recipe, Recipe) else recipe).to_dict()


def _without_folders(recipe: Recipe) -> Recipe:
    own = recipe.pretrained
    return replace(
        recipe,
        pretrained=_last_part(own) if isinstance(own, str) else own,
        warm_start=_last_part(recipe.warm_start),
        pseudo_labels=_last_part(recipe.pseudo_labels),
    )


def _last_part(text: str) -> str:
    return PureWindowsPath(text).name  # knows both kinds of slashes


def read_member(bundle: Path, told: Mapping[str, Any]) -> AnyMember:
    """Return a member from what ``bundle.json`` says of it; its weights are checked when they are used.

    Raises:
        LookupError, TypeError, ValueError, ConfigError: it says something else, or names files out of the bundle.
    """
    recipe = recipe_from_dict(told["recipe"])
    recipe_id, name = str(told["recipe_id"]), str(told["name"])
    folds = tuple(_fold_weights(bundle, fold) for fold in told["folds"])
    if [weights.fold for weights in folds] != list(range(len(folds))) or not folds:
        raise ValueError(f"{recipe_id} must have the models of folds 0, 1, ..., got {[w.fold for w in folds]}")
    if isinstance(recipe, Recipe):
        return NetworkMember(recipe_id, name, folds, recipe)
    return StackedMember(recipe_id, name, folds, recipe, tuple(str(one) for one in told["members"]))


def _fold_weights(bundle: Path, told: Mapping[str, Any]) -> FoldWeights:
    file = PurePosixPath(told["file"])
    if file.is_absolute() or ".." in file.parts:
        raise ValueError(f"weights file {str(file)!r} does not lie in the bundle")
    return FoldWeights(int(told["fold"]), bundle / file, str(told["sha256"]))
