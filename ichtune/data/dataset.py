"""Batches of raw Hounsfield units with their neighbouring slices, straight from the HU cache.

Dimension key: B batch, C neighbouring slices in series order, H height, W width, L labels.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import cv2
import numpy as np
import pandas as pd

from ichtune.data.augment import augment_batch
from ichtune.data.cache.hu_cache import HuCache
from ichtune.data.cache.resize import AIR_HU
from ichtune.data.neighbours import neighbour_rows
from ichtune.labels import LABELS


@dataclass(frozen=True)
class Batch:
    """One batch: ``hu_BCHW`` float32 in HU, ``y_BL`` float32 labels (NaN where unlabelled), ``rows`` of the cache."""

    hu_BCHW: np.ndarray
    y_BL: np.ndarray
    rows: np.ndarray


class SliceBatches:
    """Makes batches of chosen rows; order and augmentation depend on the seed and the epoch only.

    Args:
        cache: the HU cache; all its slices must have one size.
        slices: SliceTable of the same workspace.
        image_px: side of the square images that come out; the cache is resized by area where it differs.
        neighbours: slices on each side that become channels.
    """

    def __init__(self, cache: HuCache, slices: pd.DataFrame, image_px: int, neighbours: int) -> None:
        self.cache = cache
        self.image_px = image_px
        self._neighbour_rows = neighbour_rows(slices, neighbours)
        self._y_NL = slices[list(LABELS)].to_numpy(dtype=np.float32)

    def batch(self, rows: np.ndarray) -> Batch:
        """Read the given cache rows, unaugmented, in the given order."""
        wanted = self._neighbour_rows[rows]
        hu = self.cache.gather(wanted.reshape(-1))
        if hu.shape[1:] != (self.image_px, self.image_px):
            hu = _resized(hu, self.image_px)
        hu = np.maximum(hu.astype(np.float32), AIR_HU)
        return Batch(hu.reshape(*wanted.shape, self.image_px, self.image_px), self._y_NL[rows], rows)

    def labels(self, rows: np.ndarray) -> np.ndarray:
        """Return labels (n, L) float32 of cache rows, NaN where unlabelled."""
        return self._y_NL[rows]

    def training(self, rows: np.ndarray, batch_size: int, augmentation: str, seed: int, epoch: int) -> Iterator[Batch]:
        """Yield shuffled, augmented batches of one epoch; every slice comes exactly once."""
        order = np.random.default_rng([seed, epoch]).permutation(rows)
        for step, chosen in enumerate(batch_rows(order, batch_size)):
            batch = self.batch(chosen)
            batch_seed = int(np.random.default_rng([seed, epoch, step]).integers(2**31))
            yield Batch(augment_batch(batch.hu_BCHW, augmentation, batch_seed), batch.y_BL, batch.rows)

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


def _resized(hu_NHW: np.ndarray, image_px: int) -> np.ndarray:
    larger = image_px > max(hu_NHW.shape[1:])
    how = cv2.INTER_LINEAR if larger else cv2.INTER_AREA
    return np.stack([cv2.resize(hu.astype(np.float32), (image_px, image_px), interpolation=how) for hu in hu_NHW])
