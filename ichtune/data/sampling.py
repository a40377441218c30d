"""Which slices an epoch takes, and in what order."""

import numpy as np
import pandas as pd

from ichtune.labels import ANY
from ichtune.recipe import Recipe


def epoch_rows(rows: np.ndarray, slices: pd.DataFrame, recipe: Recipe, epoch: int) -> np.ndarray:
    """Return the rows of one epoch, shuffled; the same for the same seed and epoch.

    With ``negative_share``, labelled slices without a bleed are drawn anew each epoch, and all others taken. With
    ``slices_per_series``, at most so many of each series are drawn. A recipe has one of the two at most. Every epoch
    has the same number of rows.

    Args:
        rows: N rows of the SliceTable that may be learnt from.
        slices: the SliceTable.
        recipe: its seed, negative_share and slices_per_series count.
        epoch: from 0.

    Returns:
        int64 (n,), n at most N.
    """
    rng = np.random.default_rng([recipe.seed, epoch])
    if recipe.slices_per_series:
        group = pd.factorize(slices["series_instance_uid"].to_numpy()[rows])[0]
        rows = rows[_drawn(rng, group, recipe.slices_per_series)]
    elif recipe.negative_share < 1:
        chosen = slices[["is_labelled", ANY]].iloc[rows]
        is_negative = chosen["is_labelled"].to_numpy(bool) & (chosen[ANY].to_numpy(float) == 0)
        negatives = np.flatnonzero(is_negative)
        left_out = rng.permutation(negatives)[round(recipe.negative_share * len(negatives)) :]
        rows = np.delete(rows, left_out)
    return rng.permutation(rows)


def n_epoch_rows(rows: np.ndarray, slices: pd.DataFrame, recipe: Recipe) -> int:
    """Return the number of rows that each epoch has, as ``epoch_rows`` draws them."""
    return len(epoch_rows(rows, slices, recipe, 0))


def _drawn(rng: np.random.Generator, group: np.ndarray, n_drawn: int) -> np.ndarray:
    """Draw up to ``n_drawn`` places of each group at random; integers, ascending."""
    order = np.lexsort((rng.random(len(group)), group))
    n_members = np.bincount(group)
    number = np.arange(len(group)) - (np.cumsum(n_members) - n_members)[group[order]]
    return np.sort(order[number < n_drawn])
