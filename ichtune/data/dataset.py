"""Batches of raw Hounsfield units with their neighbouring slices, straight from the HU cache.

Dimension key: B batch, S slices seen in series order, H height, W width, L labels, T targets, K = T * L.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cached_property

import cv2
import numpy as np
import pandas as pd

from ichtune.data.augment import augment_batch
from ichtune.data.cache.hu_cache import HuCache
from ichtune.data.cache.resize import AIR_HU
from ichtune.data.neighbours import neighbour_rows
from ichtune.data.sampling import epoch_rows
from ichtune.data.targets import Targets, make_targets
from ichtune.errors import DataError
from ichtune.labels import LABELS
from ichtune.recipe import Recipe


@dataclass(frozen=True)
class Batch:
    """One batch.

    Attributes:
        hu_BSHW: float32, HU; nothing below air.
        y_BK: float32, what is to be learnt: the slice's own labels, then those of its neighbours where they count.
        weight_BK: float32, what each of them counts; 0 where nothing is known.
        own_B2: float32, centre and width of the window that each slice's file asks for, HU; NaN where it has none.
        rows: int64 (B,), rows of the cache.
    """

    hu_BSHW: np.ndarray
    y_BK: np.ndarray
    weight_BK: np.ndarray
    own_B2: np.ndarray
    rows: np.ndarray


class SliceBatches:
    """Makes batches of chosen rows; order and augmentation depend on the recipe's seed and the epoch only.

    Args:
        cache: the HU cache; all its slices must have one size.
        slices: SliceTable of the same workspace.
        recipe: says which slices are seen, at what size, and what is to be learnt.
    """

    def __init__(self, cache: HuCache, slices: pd.DataFrame, recipe: Recipe) -> None:
        self.cache = cache
        self.slices = slices
        self.image_px = recipe.image_px
        self._recipe = recipe
        self._neighbour_rows = neighbour_rows(slices, recipe.offsets)
        self._y_NL = slices[list(LABELS)].to_numpy(dtype=np.float32)
        self._own_N2 = slices[["window_center_hu", "window_width_hu"]].to_numpy(dtype=np.float32)

    @cached_property
    def targets(self) -> Targets:
        """What is to be learnt of every row: the recipe's labels, unless ``set_targets`` set others."""
        return make_targets(self.slices, self._recipe)

    def set_targets(self, targets: Targets) -> None:
        """Learn these instead of the labels: those of ``make_targets`` with pseudo-labels, for one.

        Raises:
            DataError: they are not those of this SliceTable.
        """
        if len(targets.y_NK) != len(self._y_NL):
            raise DataError(f"targets must be given for each of {len(self._y_NL)} rows, got {len(targets.y_NK)}")
        self.targets = targets

    def batch(self, rows: np.ndarray) -> Batch:
        """Read the given cache rows, unaugmented, in the given order."""
        wanted = self._neighbour_rows[rows]
        hu = self.cache.gather(wanted.reshape(-1))
        np.maximum(hu, AIR_HU, out=hu)  # before resizing, which would mix padding into what is beside it
        hu_BSHW = resized(hu.astype(np.float32), self.image_px).reshape(*wanted.shape, self.image_px, self.image_px)
        return Batch(hu_BSHW, self.targets.y_NK[rows], self.targets.weight_NK[rows], self._own_N2[rows], rows)

    def labels(self, rows: np.ndarray) -> np.ndarray:
        """Return labels (n, L) float32 of cache rows as they were given, NaN where unlabelled."""
        return self._y_NL[rows]

    def training(self, rows: np.ndarray, recipe: Recipe, epoch: int, start_step: int = 0) -> Iterator[Batch]:
        """Yield the shuffled, augmented batches of one epoch.

        Each batch depends on the recipe's seed, the epoch and its step alone: an epoch that is taken up at a later
        step goes on with the batches that it would have had.

        Args:
            rows: rows that may be learnt from; ``epoch_rows`` says which of them this epoch takes.
            recipe: of which batch size, sampling, augmentation and seed count.
            epoch: from 0.
            start_step: steps of the epoch that are left out.
        """
        order = epoch_rows(rows, self.slices, recipe, epoch)
        for step, chosen in enumerate(batch_rows(order, recipe.batch_size)):
            if step < start_step:
                continue
            batch = self.batch(chosen)
            seed = int(np.random.default_rng([recipe.seed, epoch, step]).integers(2**31))
            yield replace(batch, hu_BSHW=augment_batch(batch.hu_BSHW, recipe.augmentation, seed))

    def in_order(self, rows: np.ndarray, batch_size: int) -> Iterator[Batch]:
        """Yield unaugmented batches in the given order: for validation and prediction."""
        for start in range(0, len(rows), batch_size):
            yield self.batch(rows[start : start + batch_size])


def batch_rows(order: np.ndarray, batch_size: int) -> list[np.ndarray]:
    """Cut rows into batches; a lone last slice joins the batch before it, since batch norm needs two."""
    starts = list(range(0, len(order), batch_size))
    if len(starts) > 1 and len(order) - starts[-1] == 1:
        starts.pop()
    return np.split(order, starts[1:]) if starts else []


def n_steps(n_rows: int, batch_size: int) -> int:
    """Return the optimizer steps of one epoch over ``n_rows`` slices."""
    return len(batch_rows(np.arange(n_rows), batch_size))


def resized(hu_NHW: np.ndarray, image_px: int) -> np.ndarray:
    """Resize slices, shrinking by area and enlarging bilinearly.

    Args:
        hu_NHW: float32 (N, H, W), HU.
        image_px: side of the result.

    Returns:
        float32 (N, image_px, image_px), HU; ``hu_NHW`` itself where it has that size.
    """
    n_slices, height, width = hu_NHW.shape
    if height == width == image_px:
        return hu_NHW
    if min(height, width) >= image_px and n_slices:
        # one above the other: a cell of the area is of one slice only, as H rows become image_px in each
        stacked = cv2.resize(
            hu_NHW.reshape(n_slices * height, width), (image_px, n_slices * image_px), interpolation=cv2.INTER_AREA
        )
        return np.asarray(stacked).reshape(n_slices, image_px, image_px)
    how = cv2.INTER_LINEAR if image_px > max(height, width) else cv2.INTER_AREA
    out_NHW = np.empty((n_slices, image_px, image_px), dtype=np.float32)
    for hu_HW, out_HW in zip(hu_NHW, out_NHW, strict=True):
        cv2.resize(hu_HW, (image_px, image_px), dst=out_HW, interpolation=how)
    return out_NHW
