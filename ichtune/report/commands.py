"""The commands that make a workspace again, read from what it says about itself."""

import json
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from ichtune.data.phantom.folder import MANIFEST, find_phantom
from ichtune.ensemble.ladder import BLEND
from ichtune.ensemble.members.run_records import is_foreign
from ichtune.ensemble.spec import read_spec
from ichtune.errors import DataError
from ichtune.recipe_file import read_any_recipe
from ichtune.report.identities import identities_of
from ichtune.report.json_files import read_json, read_json_object
from ichtune.second_level.inputs import is_second_level
from ichtune.second_level_recipe import SecondLevelRecipe, recipe_from_dict
from ichtune.shipped import shipped_files
from ichtune.workspace import Workspace


def redo_commands(workspace: Workspace) -> tuple[list[str], list[str]]:
    """Return what to type in the folder that holds the workspace, and notes on what is left open.

    Paths inside that folder are written relative to it; identities in other paths are blanked out.
    """
    blend_spec = _blend_spec(workspace)
    root = workspace.layout.root.resolve()
    work = shlex.quote(root.name)
    commands, notes = _prepare_commands(workspace, root)
    for name, search in search_starts(workspace).items():
        space = str(nested(search, "space", "name") or name)
        named = "" if space == name else f" --name {shlex.quote(name)}"
        options = f"{named}{_trials(workspace, name, search)}"
        commands.append(f"ichtune search --space {shlex.quote(space)}{options} --work {work}")
    commands += _train_commands(workspace, work)
    if blend_spec is not None:
        ensemble = _ensemble_name(blend_spec)
        commands.append(f"ichtune blend --ensemble {ensemble or 'ENSEMBLE.yaml'} --work {work}")
        if ensemble is None:
            notes.append(f"ENSEMBLE.yaml is {json.dumps(dict(blend_spec), sort_keys=True)}")
    if any(row.get("test_loss") is not None for row in _ladder(workspace)):
        submission = shlex.quote(f"{root.name}/{workspace.layout.submission.name}")
        is_phantom = workspace.about.get("generated")
        truth = shlex.quote(str(_shown(workspace, _phantom(workspace)) / "truth.csv")) if is_phantom else "TRUTH.csv"
        commands.append(f"ichtune score {submission} --truth {truth} --ladder --work {work}")
    return [*commands, f"ichtune report --work {work}"], notes


def _train_commands(workspace: Workspace, work: str) -> list[str]:
    """The winners of a search by number, any other run by its recipe; added ones; then those that learnt from them."""
    second = [run_id for run_id in workspace.run_ids() if is_second_level(workspace, run_id)]
    added = [run_id for run_id in workspace.run_ids() if is_foreign(workspace.run_about(run_id))]
    run_ids = [run_id for run_id in workspace.run_ids() if run_id not in (*second, *added)]
    tried = set(workspace.trials["recipe_id"]) if workspace.layout.trials.is_file() else set()
    winners = [run_id for run_id in run_ids if run_id in tried]
    others = [run_id for run_id in run_ids if run_id not in tried]
    commands = [f"ichtune train --top {len(winners)} --work {work}"] if winners else []
    commands += [f"ichtune train --recipe RECIPE.yaml --work {work}  # {run_id}" for run_id in others]
    commands += [_add_command(workspace, run_id, work) for run_id in added]
    return commands + [_stack_command(workspace, run_id, work) for run_id in second]


def _add_command(workspace: Workspace, run_id: str, work: str) -> str:
    """How predictions from elsewhere were brought; only the names of their files are kept, not where they lay."""
    record, hide = workspace.run_about(run_id), identities_of(workspace).hide
    names = {kind: nested(record, "files", kind, "name") for kind in ("oof", "test")}
    oof, test = (None if name is None else shlex.quote(hide(str(name))) for name in names.values())
    name = shlex.quote(hide(str(record.get("name", run_id))))
    return (
        f"ichtune ensemble add {oof or 'FILE'} --name {name} --fold-plan this{f' --test {test}' if test else ''} "
        f"--work {work}"
    )


def _stack_command(workspace: Workspace, run_id: str, work: str) -> str:
    recipe = recipe_from_dict(workspace.run_about(run_id)["recipe"])
    if isinstance(recipe, SecondLevelRecipe):
        for name in shipped_files("recipes"):
            shipped = read_any_recipe(name)
            if isinstance(shipped, SecondLevelRecipe) and replace(recipe, members=shipped.members) == shipped:
                return f"ichtune stack --recipe {name} --work {work}"
    return f"ichtune stack --recipe RECIPE.yaml --work {work}  # {run_id}"


def _prepare_commands(workspace: Workspace, root: Path) -> tuple[list[str], list[str]]:
    about, phantom = workspace.about, _phantom(workspace)
    folder = shlex.quote(str(_shown(workspace, _source(workspace))))
    shown = _shown(workspace, phantom)
    commands, notes = [], []
    if about.get("generated"):
        spec = (read_json_object(phantom / MANIFEST, "phantom") or {}).get("spec")
        options = _phantom_options(spec or {})
        commands.append(f"ichtune phantom {shlex.quote(str(shown))}{options}")
        if not spec:
            notes.append("The phantom's own settings are not known here: its folder is gone.")
    k, seed = about.get("k"), about.get("seed")
    folds = (f" --folds {k}" if k else "") + (f" --seed {seed}" if seed is not None else "")
    read = f"ichtune prepare {folder}{_labels_option(about, shown)} --out {shlex.quote(root.name)}"
    return commands + [f"{read}{caches}{folds}" for caches in _cache_options(workspace.caches)], notes


def _cache_options(caches: Sequence[Mapping[str, Any]]) -> list[str]:
    """Size and crops of each ``ichtune prepare``, one command a size."""
    crops_of: dict[Any, list[str]] = {}
    for cache in caches:
        crops_of.setdefault(cache["size_px"], []).append(cache["crop"])
    return [
        f" --size {'native' if size is None else size}" + ("" if crops == ["none"] else f" --crop {','.join(crops)}")
        for size, crops in crops_of.items()
    ]


def _source(workspace: Workspace) -> Path:
    return Path(str(workspace.about.get("source_dir") or "DICOM_DIR"))


def _phantom(workspace: Workspace) -> Path:
    """The phantom that the source folder is or lies in; the source itself where the phantom is gone."""
    source = _source(workspace)
    return find_phantom(source) or source


def _shown(workspace: Workspace, folder: Path) -> Path:
    """A folder as it is written on the page."""
    beside = workspace.layout.root.resolve().parent
    relative = folder.relative_to(beside) if folder.is_relative_to(beside) else folder
    return Path(identities_of(workspace).hide(str(relative)))


def _labels_option(about: Mapping[str, Any], shown: Path) -> str:
    name = (about.get("labels_csv") or {}).get("name")
    if not name:
        return ""
    return f" --labels {shlex.quote(str(shown / name) if about.get('generated') else name)}"


def _phantom_options(spec: Mapping[str, Any]) -> str:
    flags = {
        "n_patients": "--patients",
        "size_px": "--size",
        "difficulty": "--difficulty",
        "seed": "--seed",
        "test_fraction": "--test-fraction",
    }
    return "".join(f" {flag} {spec[key]}" for key, flag in flags.items() if key in spec)


def _trials(workspace: Workspace, name: str, search: Mapping[str, Any]) -> str:
    """Name the number of trials where it is not the space's own."""
    if not workspace.layout.trials.is_file():
        return ""
    n_trials = int((workspace.trials["search"] == name).sum())
    return "" if n_trials == nested(search, "space", "search", "trials") else f" --trials {n_trials}"


def _ensemble_name(spec: Mapping[str, Any]) -> str | None:
    """Return the shipped ensemble that says the same; None where none does."""
    wanted = _canonical(spec)
    shipped = shipped_files("ensembles").items()
    return next((name for name, path in shipped if _canonical(read_spec(path).to_dict()) == wanted), None)


def _canonical(spec: Mapping[str, Any]) -> str:
    return json.dumps(dict(spec), sort_keys=True, default=str)


def search_starts(workspace: Workspace) -> dict[str, dict[str, Any]]:
    """Return what each search was started with: the first line of its ledger."""
    found = {}
    for path in sorted(workspace.layout.searches.glob("*/ledger.jsonl")):
        with path.open(encoding="utf-8") as file:
            line = file.readline()
        try:
            found[path.parent.name] = dict(json.loads(line))
        except ValueError as error:
            raise DataError(f"{path}:1 is damaged ({error}); restore the file from a copy") from error
    return found


def _blend_spec(workspace: Workspace) -> dict[str, Any] | None:
    blend_id = next((row.get("blend_id") for row in _ladder(workspace) if row.get("name") == BLEND), None)
    about = read_json_object(workspace.layout.blends / str(blend_id) / "blend.json", "blend") or {}
    return about.get("spec")


def _ladder(workspace: Workspace) -> list[dict[str, Any]]:
    return list(read_json(workspace.layout.ladder, "blend") or [])


def nested(value: Mapping[str, Any], *keys: str) -> Any:
    """Return what lies under nested keys; None where one is absent."""
    found: Any = value
    for key in keys:
        found = found.get(key) if isinstance(found, Mapping) else None
    return found
