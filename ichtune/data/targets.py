"""What is to be learnt of every slice, and how much each of it counts.

Dimension key: N rows of the SliceTable, n pseudo-labelled ones, L labels, T targets (the slice, and the two beside it
where they count), K = T * L.
"""

from dataclasses import dataclass

import numpy as np
import pandas as pd

from ichtune.data.neighbours import neighbour_rows
from ichtune.errors import DataError
from ichtune.labels import LABELS
from ichtune.recipe import Recipe
from ichtune.tables import P_COLUMNS


@dataclass(frozen=True)
class Targets:
    """Targets of every row of a SliceTable.

    Attributes:
        y_NK: float32 in [0, 1]; 0 where nothing is known.
        weight_NK: float32, at least 0; 0 where nothing is known. Of a labelled slice, the weights of its own labels
            sum to 1 before ``positive_weights``.
    """

    y_NK: np.ndarray
    weight_NK: np.ndarray


def make_targets(slices: pd.DataFrame, recipe: Recipe, pseudo: pd.DataFrame | None = None) -> Targets:
    """Turn labels into targets, as the recipe's keys of the loss say.

    The columns are the slice's own labels and, with ``neighbour_targets``, those of the slice below and of the slice
    above, which count nothing where there is no such slice.

    Args:
        slices: a SliceTable.
        recipe: its loss_weights, boundary_softness, label_smoothing, positive_weights, neighbour_targets and keys of
            pseudo-labels count.
        pseudo: probabilities of unlabelled slices, image_id and ``P_COLUMNS``, to be learnt like labels; one row a
            slice.

    Raises:
        DataError: a pseudo-label of an unknown or a labelled slice, a second one of a slice, or no probability.
    """
    y_NL = np.nan_to_num(slices[list(LABELS)].to_numpy(dtype=np.float64), nan=0.0)
    is_labelled = slices["is_labelled"].to_numpy(bool)
    beside_N2 = _beside(slices)
    share_L = np.array(recipe.loss_weights) / sum(recipe.loss_weights)
    weight_NL = np.where(is_labelled[:, None], share_L, 0.0)
    if recipe.boundary_softness > 0:
        y_NL = _softened(y_NL, is_labelled, beside_N2, recipe.boundary_softness)
    if pseudo is not None:
        rows = _pseudo_rows(slices, pseudo)
        p_nL = pseudo[list(P_COLUMNS)].to_numpy(dtype=np.float64)
        y_NL[rows] = p_nL > recipe.pseudo_threshold if recipe.pseudo_threshold > 0 else p_nL
        weight_NL[rows] = recipe.pseudo_weight * share_L
    y_NL = y_NL * (1.0 - recipe.label_smoothing) + recipe.label_smoothing / 2
    # of a soft label the positive part alone counts more: then the fitted odds are exactly the weight times the true
    positive_NL = y_NL * np.array(recipe.positive_weights)
    factor_NL = positive_NL + 1.0 - y_NL
    y_NL, weight_NL = positive_NL / factor_NL, weight_NL * factor_NL
    y_NL[weight_NL.sum(axis=1) == 0] = 0.0
    return _with_neighbours(y_NL, weight_NL, beside_N2, recipe.neighbour_targets)


def _beside(slices: pd.DataFrame) -> np.ndarray:
    """Rows of the slices below and above each one, int64 (N, 2); -1 where the series ends."""
    beside_N2 = neighbour_rows(slices, (-1, 1))
    beside_N2[beside_N2 == np.arange(len(slices))[:, None]] = -1
    return beside_N2


def _softened(y_NL: np.ndarray, is_labelled: np.ndarray, beside_N2: np.ndarray, softness: float) -> np.ndarray:
    """Labels at the first and last slice of each bleed, and just outside it, moved towards each other."""
    is_boundary = np.zeros(y_NL.shape, dtype=bool)
    for beside in beside_N2.T:
        are_known = (beside >= 0) & is_labelled & is_labelled[beside]
        is_boundary |= are_known[:, None] & (y_NL != y_NL[beside])
    return np.where(is_boundary, np.abs(y_NL - softness), y_NL)


def _pseudo_rows(slices: pd.DataFrame, pseudo: pd.DataFrame) -> np.ndarray:
    """Row of each pseudo-label, once it is checked."""
    ids = pd.Index(slices["image_id"].astype(object))
    wanted = pseudo["image_id"].astype(object)
    rows = ids.get_indexer(pd.Index(wanted))
    p_nL = pseudo[list(P_COLUMNS)].to_numpy(dtype=np.float64)
    is_labelled = slices["is_labelled"].to_numpy(bool)
    for is_wrong, what in (
        (rows < 0, "of a slice that the workspace does not have; use predictions for this workspace"),
        (is_labelled[rows], "of a labelled slice; only slices without labels may be taught by another model"),
        (wanted.duplicated().to_numpy(), "given twice; average over folds first"),
        (~((p_nL >= 0) & (p_nL <= 1)).all(axis=1), "that is no probability between 0 and 1"),
    ):
        if is_wrong.any():
            raise DataError(f"pseudo-label of image_id {wanted.iloc[int(np.argmax(is_wrong))]!r} is one {what}")
    return rows


def _with_neighbours(y_NL: np.ndarray, weight_NL: np.ndarray, beside_N2: np.ndarray, share: float) -> Targets:
    """Targets of each slice and, where they count, of the two beside it."""
    y, weight = [y_NL], [weight_NL]
    for beside in beside_N2.T if share > 0 else ():
        is_there = (beside >= 0)[:, None]
        y.append(np.where(is_there, y_NL[beside], 0.0))
        weight.append(np.where(is_there, share * weight_NL[beside], 0.0))
    return Targets(*(np.concatenate(blocks, axis=1, dtype=np.float32) for blocks in (y, weight)))
