"""What the second level learns from and predicts: the members' predictions of a workspace, slices in series order.

Every prediction of a labelled slice is out-of-fold; of an unlabelled slice each fold model of the first level has one.

Dimension key: M members, R labelled slices, T unlabelled slices, F fold models of the first level, L labels, D
embedding components.
"""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from ichtune.ensemble.members.member_tables import NO_FOLD_MODEL
from ichtune.ensemble.members.panel import Member, load_panel
from ichtune.ensemble.members.run_records import SECOND_LEVEL, level_of
from ichtune.errors import ConfigError, DataError
from ichtune.labels import N_LABELS
from ichtune.second_level.embeddings import EmbeddingPart, embedding_parts
from ichtune.second_level.views import SeriesView, in_series_order, view_of
from ichtune.second_level_recipe import ALL, SecondLevelRecipe
from ichtune.tables import P_COLUMNS, PREDICTIONS, read_table
from ichtune.training.run_folder import inputs_of
from ichtune.workspace import Workspace

#: Hexadecimal digits of the hashes of what is learnt from.
HASH_DIGITS = 16


@dataclass(frozen=True)
class LevelInputs:
    """Labelled and unlabelled slices as the members see them.

    Attributes:
        recipe: with its members named.
        members: whose predictions the views hold, in their order; of members that predict the same, the first.
        labelled: the labelled slices with out-of-fold predictions.
        fold_R: the fold of each labelled slice, int64.
        y_RL: their labels, float64.
        parts: what brought the members' embeddings into one system, side by side; none where they are not asked for.
        ids: what all of it was made from; equal for equal views.
    """

    recipe: SecondLevelRecipe
    members: tuple[Member, ...]
    labelled: SeriesView
    fold_R: np.ndarray
    y_RL: np.ndarray
    unlabelled: tuple[SeriesView, ...]
    parts: tuple[EmbeddingPart, ...]
    ids: Mapping[str, Any]

    @property
    def folds(self) -> list[int]:
        """The folds that hold labelled slices, ascending."""
        return [int(fold) for fold in np.unique(self.fold_R)]

    def test_view(self, fold: int) -> SeriesView:
        """Return the unlabelled slices as the members' models of one fold see them."""
        return self.unlabelled[fold]


def is_second_level(workspace: Workspace, recipe_id: str) -> bool:
    """Say whether a run itself learnt from other runs' predictions."""
    return level_of(workspace.run_about(recipe_id)) == SECOND_LEVEL


def first_level_ids(workspace: Workspace) -> list[str]:
    """Return the complete runs that a second level may learn from, foreign ones too, in alphabetical order."""
    return [recipe_id for recipe_id in workspace.run_ids() if not is_second_level(workspace, recipe_id)]


def with_members(workspace: Workspace, recipe: SecondLevelRecipe) -> SecondLevelRecipe:
    """Return the recipe with the runs that ``members: all`` means here, each by its recipe_id.

    Raises:
        DataError: there is no complete run of the first level.
        ConfigError: a member is itself a run of the second level.
    """
    if recipe.members == ALL:
        found = first_level_ids(workspace)
        if not found:
            raise DataError(
                f"no complete run of the first level in {workspace.layout.runs}, which a second level could learn "
                "from: run `ichtune train` first"
            )
        return replace(recipe, members=tuple(found))
    second = [member for member in recipe.members if is_second_level(workspace, member)]
    if second:
        raise ConfigError(
            f"recipe key 'members' must name runs of the first level, got {second[0]!r}, which is of the second; "
            f"name some of {', '.join(first_level_ids(workspace))}"
        )
    return recipe


def load_inputs(workspace: Workspace, recipe: SecondLevelRecipe) -> LevelInputs:
    """Read and check the members' predictions, and put the slices into series order.

    Raises:
        ConfigError: a member that is no run of the first level.
        DataError: no such run, predictions that are missing, incomplete or no probabilities, or embeddings that are
            asked for and not there.
        ConflictError: members of different fold plans, or rows predicted by a model that saw their patient.
    """
    recipe = with_members(workspace, recipe)
    panel = load_panel(workspace, recipe.members)
    labelled = _sorted(workspace.labelled)
    of_labelled = _places(panel.image_ids, labelled)
    fold_R = panel.fold_N[of_labelled]
    unlabelled = _sorted(workspace.unlabelled)
    recipe_ids = [member.recipe_id for member in panel.members]
    p_FMTL = _test_predictions(workspace, recipe_ids, unlabelled)
    parts = embedding_parts(workspace, recipe_ids, recipe.embeddings, unlabelled["image_id"].to_numpy(object))
    view = view_of(labelled, panel.p_MNL[:, of_labelled], _side_by_side(parts, "oof", labelled, fold_R))
    any_view = view_of(unlabelled, p_FMTL[0])
    test_views = tuple(
        any_view.with_predictions(p_MTL, _side_by_side(parts, "test", unlabelled, fold))
        for fold, p_MTL in enumerate(p_FMTL)
    )
    y_RL = panel.y_NL[of_labelled]
    ids = {**inputs_of(workspace), "rows_id": _rows_id(view, fold_R, y_RL, test_views)}
    hashes = {
        recipe_id: _digest(view.p_MRL[m], *(test.p_MRL[m] for test in test_views))
        for m, recipe_id in enumerate(recipe_ids)
    }
    return LevelInputs(recipe, panel.members, view, fold_R, y_RL, test_views, parts, {**ids, "members": hashes})


def _sorted(slices: pd.DataFrame) -> pd.DataFrame:
    return slices.iloc[in_series_order(slices)]


def _places(image_ids: np.ndarray, slices: pd.DataFrame) -> np.ndarray:
    """Return where each slice stands in ``image_ids``, which hold the same ones in another order."""
    return np.asarray(pd.Index(image_ids).get_indexer(pd.Index(slices["image_id"].to_numpy(object))))


def _test_predictions(workspace: Workspace, recipe_ids: list[str], slices: pd.DataFrame) -> np.ndarray:
    """Return what each fold model of each member predicts of the unlabelled slices: (F, M, T, L).

    One table for all folds, the mean of models that ran elsewhere, stands for each of them.
    """
    k = workspace.fold_plan.k
    p_FMTL = np.empty((k, len(recipe_ids), len(slices), N_LABELS))
    if not len(slices):
        return p_FMTL
    for m, recipe_id in enumerate(recipe_ids):
        path = workspace.layout.test(recipe_id)
        table = read_table(path, PREDICTIONS)
        fold_N = table["fold"].to_numpy()
        is_one = bool((fold_N == NO_FOLD_MODEL).all())
        for fold in range(k):
            p_FMTL[fold, m] = _joined(table[fold_N == (NO_FOLD_MODEL if is_one else fold)], slices, path, fold)
    return p_FMTL


def _joined(table: pd.DataFrame, slices: pd.DataFrame, path: Path, fold: int) -> np.ndarray:
    places = _places(table["image_id"].to_numpy(object), slices)
    if (places < 0).any():
        raise DataError(
            f"{path} must hold a prediction of each of the {len(slices)} unlabelled slices by the model of fold "
            f"{fold}; run `ichtune train` again"
        )
    return np.asarray(table[list(P_COLUMNS)].to_numpy()[places])


def _side_by_side(
    parts: tuple[EmbeddingPart, ...], kind: str, slices: pd.DataFrame, fold: np.ndarray | int
) -> np.ndarray | None:
    """Return the members' components of some slices, each by the network of its fold: float32 (R, D)."""
    image_ids = slices["image_id"].to_numpy(object)
    return np.concatenate([part.components(kind, image_ids, fold) for part in parts], axis=1) if parts else None


def _rows_id(view: SeriesView, fold_R: np.ndarray, y_RL: np.ndarray, test_views: tuple[SeriesView, ...]) -> str:
    """Hash of all that is learnt from or predicted beside the members' probabilities."""
    views = (view, *test_views)
    ids = "\n".join("\t".join(map(str, one.image_ids)) for one in views)
    arrays = [
        array
        for one in views
        for array in (one.series_R, one.z_mm_R, one.metadata_RC, *(() if one.e_RD is None else (one.e_RD,)))
    ]
    return _digest(np.frombuffer(ids.encode(), dtype=np.uint8), fold_R, y_RL, *arrays)


def _digest(*arrays: np.ndarray) -> str:
    digest = hashlib.sha256()
    for array in arrays:
        digest.update(f"{array.shape}{array.dtype}".encode())
        digest.update(np.ascontiguousarray(array).data if array.size else b"")
    return digest.hexdigest()[:HASH_DIGITS]
