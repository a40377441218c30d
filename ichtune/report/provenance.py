"""How a workspace was made, as plain values: versions, ids, seeds, and the commands that make it again."""

import importlib.metadata
import json
import platform
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ichtune.report.commands import nested, redo_commands, search_starts
from ichtune.version import __version__
from ichtune.workspace import Workspace

#: Packages whose version can change a figure.
PACKAGES = (
    "torch",
    "timm",
    "ray",
    "optuna",
    "numpy",
    "pandas",
    "scipy",
    "scikit-learn",
    "pydicom",
    "pyarrow",
)


@dataclass(frozen=True)
class MadeFacts:
    """How it was made.

    Attributes:
        versions: of Python, ichtune and the packages that matter, as installed when the report is written.
        ids: hashes and seeds, by name, in the order to show.
        commands: what to type, in the folder that holds the workspace.
        notes: what the commands leave open.
        spaces: each search's space with every default written out, as JSON.
    """

    versions: dict[str, str]
    ids: dict[str, str]
    commands: tuple[str, ...]
    notes: tuple[str, ...]
    spaces: dict[str, str]


def collect_made(workspace: Workspace) -> MadeFacts:
    """Read what a workspace says about its own making."""
    about = workspace.about
    searches = search_starts(workspace)
    commands, notes = redo_commands(workspace)
    return MadeFacts(
        versions=_versions(),
        ids=_ids(about, searches, workspace.run_ids()),
        commands=tuple(commands),
        notes=tuple(notes),
        spaces={
            name: json.dumps(search["space"], indent=1) for name, search in searches.items() if search.get("space")
        },
    )


def _versions() -> dict[str, str]:
    versions = {"ichtune": __version__, "Python": platform.python_version()}
    for package in PACKAGES:
        try:
            versions[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            versions[package] = "not installed"
    return versions


def _ids(about: Mapping[str, Any], searches: Mapping[str, Mapping[str, Any]], run_ids: list[str]) -> dict[str, str]:
    labels = about.get("labels_csv") or {}
    seeds = {name: nested(search, "space", "search", "seed") for name, search in searches.items()}
    size = about.get("size_px")
    ids = {
        "prepared with ichtune": about.get("ichtune_version"),
        "HU cache": about.get("cache_id"),
        "cached size": "native" if size is None else f"{size} px",
        "fold plan": about.get("fold_plan_hash"),
        "folds": about.get("k"),
        "seed of the folds": about.get("seed"),
        "label CSV": labels.get("name"),
        "label CSV, SHA-256": labels.get("sha256"),
        **{f"seed of search {name}": seed for name, seed in seeds.items()},
        "recipes trained on every fold": ", ".join(run_ids) or None,
    }
    return {name: str(value) for name, value in ids.items() if value is not None}
