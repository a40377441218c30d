"""Embeddings of the members' networks as a view holds them: read from their runs, in one system, principal components.

Dimension key: K folds, M networks of a fold, T unlabelled slices, R slices, D embedding, C components.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ichtune.errors import DataError
from ichtune.second_level.embedding_space import EmbeddingSpace, fit_space
from ichtune.training.embeddings import read_embeddings
from ichtune.training.run_folder import fold_folder
from ichtune.workspace import Workspace

#: Unlabelled slices that a space is fitted on, at most; evenly taken from all of them.
N_FITTED = 8192


@dataclass(frozen=True)
class EmbeddingPart:
    """What brings the embeddings of one member's fold networks into one system.

    Attributes:
        recipe_id: the member.
        folders: of its folds.
        space: fitted on unlabelled slices.
    """

    recipe_id: str
    folders: tuple[Path, ...]
    space: EmbeddingSpace

    def components(self, kind: str, image_ids: np.ndarray, fold_R: np.ndarray | int) -> np.ndarray:
        """Return the components of slices, each by the network of its fold: float32 (R, C).

        Args:
            kind: ``oof`` (each slice by the network that has not seen its patient) or ``test``.
            image_ids: the slices.
            fold_R: the fold of each, or of all.

        Raises:
            DataError: a fold's embeddings are missing, or lack a slice.
        """
        fold_R = np.broadcast_to(fold_R, len(image_ids))
        rows_of = [np.flatnonzero(fold_R == fold) for fold in np.unique(fold_R)]
        parts = [
            self.space.project(int(fold), _read(self.folders[fold], kind, image_ids[rows]))
            for fold, rows in zip(np.unique(fold_R), rows_of, strict=True)
        ]
        return np.concatenate(parts)[np.argsort(np.concatenate(rows_of))]


def embedding_parts(
    workspace: Workspace, recipe_ids: Sequence[str], n_components: int, test_ids: np.ndarray
) -> tuple[EmbeddingPart, ...]:
    """Fit one space for each member that has networks of its own; foreign members are seen by probabilities only.

    Args:
        workspace: with the members' runs.
        recipe_ids: the members.
        n_components: of each; with 0 nothing is read.
        test_ids: the unlabelled slices, in an order that does not change.

    Raises:
        DataError: a run was trained without ``--embeddings``, too few unlabelled slices, or no member has any.
    """
    if n_components == 0:
        return ()
    own = [recipe_id for recipe_id in recipe_ids if not workspace.run_about(recipe_id).get("foreign")]
    if not own:
        raise DataError("no member has embeddings: they are all foreign tables; write `embeddings: 0` into the recipe")
    return tuple(_part(workspace, recipe_id, n_components, test_ids) for recipe_id in own)


def _part(workspace: Workspace, recipe_id: str, n_components: int, test_ids: np.ndarray) -> EmbeddingPart:
    folders = tuple(fold_folder(workspace, recipe_id, fold) for fold in range(workspace.fold_plan.k))
    some = test_ids[np.linspace(0, len(test_ids) - 1, min(N_FITTED, len(test_ids))).astype(int)]
    e_KMTD = [_read(folder, "test", some) for folder in folders]
    return EmbeddingPart(recipe_id, folders, fit_space(e_KMTD, n_components))


def _read(folder: Path, kind: str, image_ids: np.ndarray) -> np.ndarray:
    """Return embeddings of slices by each network of a fold (M, R, D)."""
    return read_embeddings(folder / f"{kind}_embeddings.parquet", list(image_ids))
