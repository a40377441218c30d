"""Series in batches: which slices of each are shown, in what order, and which series share a batch.

Dimension key: B series of a batch, T slices of the longest, S slices of all.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ichtune.second_level.views import SeriesView
from ichtune.second_level_recipe import SecondLevelRecipe

#: How far, in slices, the lengths of series of one batch may be mixed up at random.
_JITTER = 3.0


@dataclass(frozen=True)
class SeriesBatch:
    """Some series, padded at their ends to the length of the longest.

    Attributes:
        rows_S: rows of their slices in the view, series after series, in the order in which they are shown.
        lengths_B: slices of each series, at least 1.
    """

    rows_S: np.ndarray
    lengths_B: np.ndarray

    @property
    def mask(self) -> np.ndarray:
        """Whether each place (B, T) holds a slice; the others are padding."""
        return np.arange(self.lengths_B.max()) < self.lengths_B[:, None]

    def padded(self, values_SF: np.ndarray) -> np.ndarray:
        """Return values of the slices as (B, T, F), zero in the padding."""
        mask_BT = self.mask
        values_BTF = np.zeros((*mask_BT.shape, *values_SF.shape[1:]), dtype=values_SF.dtype)
        values_BTF[mask_BT] = values_SF
        return values_BTF


def training_batches(view: SeriesView, recipe: SecondLevelRecipe, epoch: int) -> list[SeriesBatch]:
    """Return the batches of an epoch in random order, of series of about one length.

    With probability ``subsample`` a series is shown with every second slice only, with ``reverse`` upside down. All of
    it is drawn from the recipe's seed and the epoch's number.
    """
    rng = np.random.default_rng((recipe.seed, epoch))
    n_series = len(view.lengths)
    is_sparse, is_reversed = rng.random(n_series) < recipe.subsample, rng.random(n_series) < recipe.reverse
    phases = rng.integers(2, size=n_series)
    shown = [
        _shown(np.arange(start, start + length), sparse, phase, upside_down)
        for start, length, sparse, phase, upside_down in zip(
            view.starts, view.lengths, is_sparse, phases, is_reversed, strict=True
        )
    ]
    lengths = np.array([len(rows) for rows in shown])
    by_length = np.argsort(lengths + _JITTER * rng.random(n_series), kind="stable")
    batches = _batches(shown, by_length, recipe.batch_size)
    return [batches[number] for number in rng.permutation(len(batches))]


def batches_in_order(view: SeriesView, batch_size: int, upside_down: bool = False) -> list[SeriesBatch]:
    """Return every series whole, once, the short ones first."""
    step = -1 if upside_down else 1
    whole = [np.arange(start, start + length)[::step] for start, length in zip(view.starts, view.lengths, strict=True)]
    return _batches(whole, np.argsort(view.lengths, kind="stable"), batch_size)


def n_training_batches(view: SeriesView, recipe: SecondLevelRecipe) -> int:
    """Return how many batches every epoch has."""
    return -(-len(view.lengths) // recipe.batch_size)


def _shown(rows: np.ndarray, is_sparse: bool, phase: int, upside_down: bool) -> np.ndarray:
    if is_sparse and len(rows) > 1:
        rows = rows[phase::2]
    return rows[::-1] if upside_down else rows


def _batches(shown: Sequence[np.ndarray], order: np.ndarray, batch_size: int) -> list[SeriesBatch]:
    groups = [order[start : start + batch_size] for start in range(0, len(order), batch_size)]
    return [
        SeriesBatch(
            rows_S=np.concatenate([shown[number] for number in group]),
            lengths_B=np.array([len(shown[number]) for number in group]),
        )
        for group in groups
    ]
