"""Predictions of a blend on a new folder of DICOM files: reader, cache, fold models, blend, one CSV.

Dimension key: M members, T new slices, L labels.
"""

import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from ichtune.data.prepare import PrepareSpec, prepare
from ichtune.ensemble.equal_mean_logit import mean_of_logits
from ichtune.ensemble.fitting import FittedBlend, fit_blend
from ichtune.ensemble.members import Panel, load_panel
from ichtune.ensemble.spec import BlendSpec
from ichtune.errors import DataError
from ichtune.recipe import CROPS, Recipe
from ichtune.report.json_files import read_json_object
from ichtune.tables import P_COLUMNS, whole_file
from ichtune.training.crossval import open_batches
from ichtune.training.loop import best_device
from ichtune.training.predict import load_model, predict_rows
from ichtune.workspace import Workspace

#: Columns that precede the six probabilities in the CSV.
ABOUT_COLUMNS = ("image_id", "path", "status", "reason")
OnStep = Callable[[int, int], None]


@dataclass(frozen=True)
class FolderPredictions:
    """What was predicted: ``frame`` has a row a file, probabilities empty where the file could not be read."""

    frame: pd.DataFrame
    n_predicted: int
    n_refused: int
    n_models: int


def predict_folder(
    workspace: Workspace, dicom_dir: Path, size_px: int | None = None, on_step: OnStep | None = None
) -> FolderPredictions:
    """Predict every slice below a folder with the workspace's last blend.

    Args:
        workspace: with trained runs and a blend.
        dicom_dir: DICOM files that need no labels; every one becomes a row of the result.
        size_px: side of the cached slices; by default that of the caches which the models learnt from.
        on_step: called with fold models done and all fold models.

    Raises:
        DataError: no blend yet, missing weights, or no such folder.
    """
    spec, recipe_ids = last_blend(workspace)
    panel = load_panel(workspace, recipe_ids)
    fitted = fit_blend(spec, panel.p_MNL, panel.y_NL)
    recipes = [_recipe(workspace, panel.members[m].recipe_id) for m in fitted.chosen]
    new = _prepared(workspace, dicom_dir, recipes, size_px)
    rows = new.slices.index[new.slices["status"] == "ok"].to_numpy()
    p_MTL = _member_predictions(workspace, new, panel, fitted, rows, on_step)
    frame = new.slices[list(ABOUT_COLUMNS)].copy()
    p_TL = fitted.predict(p_MTL)
    for column, values in zip(P_COLUMNS, p_TL.T, strict=True):
        frame[column] = np.nan
        frame.loc[rows, column] = values
    n_models = len(fitted.chosen) * workspace.fold_plan.k
    return FolderPredictions(frame, len(rows), len(frame) - len(rows), n_models)


def last_blend(workspace: Workspace) -> tuple[BlendSpec, list[str]]:
    """Return how the newest blend of a workspace was made, and the recipe_ids that it was made of.

    Runs that were trained since are no part of it: what predicts is what was scored.

    Raises:
        DataError: there is none.
    """
    paths = sorted(workspace.layout.blends.glob("*/blend.json"), key=lambda path: (path.stat().st_mtime_ns, path))
    if not paths:
        _ = workspace.about
        raise DataError(f"no blend in {workspace.layout.blends}: run `ichtune blend` first")
    about: dict[str, Any] = json.loads(paths[-1].read_text(encoding="utf-8"))
    told = about["spec"]
    members = tuple(told["members"]) if isinstance(told["members"], list) else told["members"]
    recipe_ids = [member["recipe_id"] for member in about["members"]]
    return BlendSpec(**{**told, "members": members}), recipe_ids


def _recipe(workspace: Workspace, recipe_id: str) -> Recipe:
    """The recipe of a run that is trained on every fold."""
    path = workspace.layout.runs / recipe_id / "recipe.json"
    about = read_json_object(path, "train")
    if about is None or "recipe" not in about:
        raise DataError(f"{path} does not hold the run's recipe; run `ichtune train` again")
    return Recipe.from_dict(about["recipe"])


def _prepared(workspace: Workspace, dicom_dir: Path, recipes: Sequence[Recipe], size_px: int | None) -> Workspace:
    """Read the folder into a workspace of its own inside this one, so that a second call reads no file again.

    It gets a cache for each size and crop that the recipes read here.
    """
    name = hashlib.sha256(str(dicom_dir.resolve()).encode()).hexdigest()[:12]
    out = workspace.layout.new / name
    crops_of: dict[int | None, set[str]] = {}
    for recipe in recipes:
        size = size_px or workspace.cache_for(recipe.image_px, recipe.crop).size_px
        crops_of.setdefault(size, set()).add(recipe.crop)
    for size, crops in sorted(crops_of.items(), key=lambda item: CROPS[0] not in item[1]):  # whole slices first
        prepare(PrepareSpec(dicom_dir=dicom_dir, labels=None, out=out, size_px=size, crops=tuple(sorted(crops))))
    return Workspace(out)


def _member_predictions(
    workspace: Workspace,
    new: Workspace,
    panel: Panel,
    fitted: FittedBlend,
    rows: np.ndarray,
    on_step: OnStep | None,
) -> np.ndarray:
    """Return each member's mean over its fold models in log odds (M, T, L); members without a part stay at one half."""
    k = workspace.fold_plan.k
    p_MTL = np.full((len(panel.members), len(rows), len(P_COLUMNS)), 0.5)
    done, device = 0, best_device()
    for m in fitted.chosen:
        folder = workspace.layout.runs / panel.members[m].recipe_id
        p_FTL = []
        for fold in range(k):
            model, recipe = load_model(folder / f"fold_{fold}" / "weights.safetensors", device)
            p_FTL.append(predict_rows(model, recipe, open_batches(new, recipe), rows, device))
            done += 1
            if on_step is not None:
                on_step(done, len(fitted.chosen) * k)
        p_MTL[m] = mean_of_logits(np.stack(p_FTL))
    return p_MTL


def write_predictions(predictions: FolderPredictions, path: Path) -> None:
    """Write the rows as CSV, whole or not at all.

    Raises:
        StorageError: the path may not be written.
    """
    with whole_file(path) as temporary:
        predictions.frame.to_csv(temporary, index=False, float_format="%.8f")
