"""Where the folds of a run lie, and the ids of what every run of a workspace is made from."""

from pathlib import Path
from typing import Any

from ichtune.workspace import Workspace

#: What predicts, in the folder of a fold.
WEIGHTS_FILE = "weights.safetensors"


def fold_folder(workspace: Workspace, recipe_id: str, fold: int) -> Path:
    """Return the folder of one fold's run."""
    return workspace.layout.runs / recipe_id / f"fold_{fold}"


def inputs_of(workspace: Workspace) -> dict[str, Any]:
    """Return the ids of what every run of the workspace is made from; runs of other inputs do not mix with them."""
    labels_csv = workspace.about.get("labels_csv") or {}
    return {
        "fold_plan_hash": workspace.fold_plan.plan_hash,
        "cache_id": str(workspace.about["cache_id"]),
        "labels_sha256": labels_csv.get("sha256"),
    }
