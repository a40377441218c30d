"""Fingerprints of a slice, taken from its own matrix so that no cache size or crop changes them.

They are of slices whose padding below air was lifted to air (``cache.resize.lift_padding``): what a site writes outside
the field of view makes one picture no other one.
"""

from functools import lru_cache
from typing import NamedTuple

import cv2
import numpy as np
import xxhash

#: A slice whose values span no more than this inside the brain window shows no anatomy.
BLANK_RANGE_HU = 60
#: Centre 40, width 80: where brain and blood differ.
BRAIN_WINDOW_HU = (0, 80)
_LOW, _HIGH = (np.array(end, "<i2") for end in BRAIN_WINDOW_HU)
_GRID_ROWS, _GRID_COLUMNS = 8, 9
#: Where the grid lies, as shares of height and width: the middle of the field of view, where every head is.
_GRID_TOP, _GRID_BOTTOM, _GRID_LEFT, _GRID_RIGHT = 0.15, 0.85, 0.2, 0.8
#: Pixels on each side of one cell of the grid that are looked at, whatever the size of the matrix.
_PER_CELL = 8


class Fingerprint(NamedTuple):
    """What tells slices apart: equal content, nearly equal content, nothing to see."""

    content_hash: str
    near_hash: str
    is_blank: bool


def fingerprint(hu: np.ndarray) -> Fingerprint:
    """Return both hashes of a slice and whether it is blank, sampling its pixels once.

    Args:
        hu: int16 (H, W), HU.
    """
    hu = np.ascontiguousarray(hu, dtype="<i2")
    content = content_hash(hu)  # first: it draws the slice into the processor's cache, where the sample is cheap
    sample = _brain_sample(hu)
    # The sample's range can only be smaller than the slice's: nearly every head is told from it alone.
    blank = int(sample.max()) - int(sample.min()) <= BLANK_RANGE_HU and is_blank(hu)
    return Fingerprint(content, _difference_bits(sample), blank)


def content_hash(hu: np.ndarray) -> str:
    """Return a hash that two slices share if and only if shape and every value are equal.

    Args:
        hu: int16 (H, W), HU.

    Returns:
        32 hexadecimal digits; a chance collision among a million slices has a probability below 1e-26.
    """
    digest = xxhash.xxh3_128(np.array(hu.shape, "<i8").data)
    digest.update(np.ascontiguousarray(hu, dtype="<i2").data)
    return digest.hexdigest()


def near_hash(hu: np.ndarray) -> str:
    """Return a hash of which copies of one slice share most bits, though resized, recompressed or shifted by few HU.

    The middle of the slice is sampled on a fixed grid, clipped to the brain window and averaged into 8 x 9 cells; each
    bit says whether a cell is brighter than its left neighbour. Air and bone clip to the window's ends, so that
    padding and what lies outside the head tell nothing.

    Args:
        hu: int16 (H, W), HU.

    Returns:
        16 hexadecimal digits, 64 bits.

    Source: difference hash, after N. Krawetz, "Kind of like that" (2013).
    """
    return _difference_bits(_brain_sample(np.ascontiguousarray(hu, dtype="<i2")))


def is_blank(hu: np.ndarray) -> bool:
    """Whether a slice shows nothing in the brain window: its range there is at most ``BLANK_RANGE_HU``."""
    low, high = (min(max(int(value), BRAIN_WINDOW_HU[0]), BRAIN_WINDOW_HU[1]) for value in (hu.min(), hu.max()))
    return high - low <= BLANK_RANGE_HU


def _brain_sample(hu: np.ndarray) -> np.ndarray:
    """Evenly spaced pixels inside the brain window: int16 (64, 72), HU."""
    chosen = hu.reshape(-1).take(_places(*hu.shape))
    np.minimum(np.maximum(chosen, _LOW, out=chosen), _HIGH, out=chosen)  # half the time of clip on so few values
    return chosen.reshape(_GRID_ROWS * _PER_CELL, _GRID_COLUMNS * _PER_CELL)


def _difference_bits(sample: np.ndarray) -> str:
    cells = cv2.resize(sample.astype(np.float32), (_GRID_COLUMNS, _GRID_ROWS), interpolation=cv2.INTER_AREA)
    return np.packbits(cells[:, 1:] > cells[:, :-1]).tobytes().hex()


@lru_cache(maxsize=64)
def _places(height: int, width: int) -> np.ndarray:
    """Flat positions of the sample in a matrix: the middles of equal parts of the grid's sides."""
    rows, columns = (
        ((start + (end - start) * (np.arange(n) + 0.5) / n) * size).astype(np.int64)
        for size, n, start, end in (
            (height, _GRID_ROWS * _PER_CELL, _GRID_TOP, _GRID_BOTTOM),
            (width, _GRID_COLUMNS * _PER_CELL, _GRID_LEFT, _GRID_RIGHT),
        )
    )
    return (rows[:, None] * width + columns).ravel()
