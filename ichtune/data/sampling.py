"""Which slices an epoch takes, and in what order."""

import numpy as np
import pandas as pd

from ichtune.labels import ANY
from ichtune.recipe import Recipe

_COLUMNS = ("series_instance_uid", "is_labelled", ANY)


def epoch_rows(rows: np.ndarray, slices: pd.DataFrame, recipe: Recipe, epoch: int) -> np.ndarray:
    """Return the rows of one epoch, shuffled; the same for the same seed and epoch.

    With ``negative_share``, labelled slices without a bleed are drawn anew each epoch; those with one and those that
    have no label, whose pseudo-labels may be either, are all taken. With ``slices_per_series``, at most so many of
    each series are drawn. Every epoch has the same number of rows.

    Args:
        rows: N rows of the SliceTable that may be learnt from.
        slices: the SliceTable.
        recipe: its seed, negative_share and slices_per_series count.
        epoch: from 0.

    Returns:
        int64 (n,), n at most N.
    """
    rng = np.random.default_rng([recipe.seed, epoch])
    if recipe.negative_share >= 1 and recipe.slices_per_series == 0:
        return rng.permutation(rows)
    chosen = slices[list(_COLUMNS)].iloc[rows]
    is_negative = chosen["is_labelled"].to_numpy(bool) & (chosen[ANY].to_numpy(float) == 0)
    group = np.zeros(len(rows), dtype=np.int64)
    if recipe.slices_per_series:  # the share is taken within each series then, or the number of rows would vary
        group = pd.factorize(chosen["series_instance_uid"].to_numpy())[0]
    n_groups = int(group.max(initial=0)) + 1
    n_negative = np.bincount(group[is_negative], minlength=n_groups)
    # rounded over all groups, not in each: of many short series something is left
    n_drawn = np.diff(np.round(recipe.negative_share * np.r_[0, np.cumsum(n_negative)])).astype(np.int64)
    is_taken = ~is_negative | _drawn(rng, is_negative, group, n_drawn)
    if recipe.slices_per_series:
        is_taken = _drawn(rng, is_taken, group, np.full(n_groups, recipe.slices_per_series))
    return rng.permutation(rows[is_taken])


def n_epoch_rows(rows: np.ndarray, slices: pd.DataFrame, recipe: Recipe) -> int:
    """Return the number of rows that each epoch has, as ``epoch_rows`` draws them."""
    return len(epoch_rows(rows, slices, recipe, 0))


def _drawn(rng: np.random.Generator, may_be_drawn: np.ndarray, group: np.ndarray, n_drawn: np.ndarray) -> np.ndarray:
    """Draw places at random: up to ``n_drawn[g]`` of group g among those that may be drawn; bool, one a place."""
    members = np.flatnonzero(may_be_drawn)
    members = members[np.lexsort((rng.random(len(members)), group[members]))]
    n_members = np.bincount(group[members], minlength=len(n_drawn))
    number = np.arange(len(members)) - (np.cumsum(n_members) - n_members)[group[members]]
    is_drawn = np.zeros(len(group), dtype=bool)
    is_drawn[members[number < n_drawn[group[members]]]] = True
    return is_drawn
