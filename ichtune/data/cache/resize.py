"""One slice in HU to the square matrix of the cache: the whole slice, or a square box of it."""

from collections.abc import Sequence

import cv2
import numpy as np

#: Air. What lies below it is padding from outside the field of view, and must not bleed into anatomy.
AIR_HU = -1024
#: A box as top, left and side in fractions of the padded square; this one is the whole of it.
WHOLE_BOX = (0.0, 0.0, 1.0)


def fit_hu(hu: np.ndarray, size_px: int, box: Sequence[float] | np.ndarray | None = None) -> np.ndarray:
    """Resize a slice, or a square box of it, to a square matrix without distorting it.

    A non-square matrix counts as a square with air on both sides. The box is cut from that square at the full
    resolution, rounded to whole pixels; what of it lies outside is air. Padding below air is lifted to air, and
    the square is shrunk by area averaging or enlarged bilinearly, and rounded to the nearest integer.

    Args:
        hu: int16 (H, W), HU; never changed.
        size_px: side of the result.
        box: top, left and side in fractions of the padded square, side above 0; None for the whole of it.

    Returns:
        int16 (size_px, size_px), HU. It may be ``hu`` itself, or share its memory, where nothing had to change.
    """
    return fit_lifted(lift_padding(hu), size_px, box)


def lift_padding(hu: np.ndarray) -> np.ndarray:
    """Return a slice, int16 (H, W) in HU, whose values below air are air; itself where it has none."""
    # looking for padding costs a fifth of lifting it, and many slices hold none
    return np.maximum(hu, _air_row(hu)) if int(hu.min()) < AIR_HU else hu


def fit_lifted(hu: np.ndarray, size_px: int, box: Sequence[float] | np.ndarray | None = None) -> np.ndarray:
    """Do what ``fit_hu`` does to a slice that went through ``lift_padding`` already."""
    square = _cut(hu, *_box_px(hu.shape, box))
    side = square.shape[0]
    if side == size_px:
        return square
    method = cv2.INTER_AREA if size_px < side else cv2.INTER_LINEAR
    # int16 in, int16 out: cv2 sums in float32 and rounds, at half the cost of converting first
    return np.asarray(cv2.resize(square, (size_px, size_px), interpolation=method), dtype=np.int16)


def _box_px(shape: Sequence[int], box: Sequence[float] | np.ndarray | None) -> tuple[int, int, int]:
    """Top, left and side of a box in pixels of the slice itself; negative where it sticks out."""
    height, width = shape
    longer = max(height, width)
    top, left, side = (0, 0, longer) if box is None else (round(float(part) * longer) for part in box)
    return top - (longer - height) // 2, left - (longer - width) // 2, max(side, 1)


def _air_row(hu: np.ndarray) -> np.ndarray:
    """One row of air: numpy is four times faster with it than with the number."""
    return np.full(hu.shape[1], AIR_HU, dtype=hu.dtype)


def _cut(hu: np.ndarray, top: int, left: int, side: int) -> np.ndarray:
    """Return (side, side): a view where the box lies inside the slice, else a copy with air around."""
    height, width = hu.shape
    first_row, last_row = min(max(top, 0), height), max(min(top + side, height), 0)
    first_column, last_column = min(max(left, 0), width), max(min(left + side, width), 0)
    inside = hu[first_row:last_row, first_column:last_column]
    if inside.shape == (side, side):
        return inside
    square = np.full((side, side), AIR_HU, dtype=hu.dtype)
    square[first_row - top : last_row - top, first_column - left : last_column - left] = inside
    return square
