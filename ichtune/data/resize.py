"""One slice in HU to the square matrix of the cache."""

import cv2
import numpy as np

#: Air. What lies below it is padding from outside the field of view, and must not bleed into anatomy.
AIR_HU = -1024


def fit_hu(hu: np.ndarray, size_px: int) -> np.ndarray:
    """Resize a slice to a square matrix without distorting it.

    Padding below air is lifted to air, a non-square matrix is padded to a centred square with air, then the
    square is shrunk by area averaging or enlarged bilinearly, and rounded to the nearest integer.

    Args:
        hu: int16 (H, W), HU.
        size_px: side of the result.

    Returns:
        int16 (size_px, size_px), HU.
    """
    square = pad_to_square(np.maximum(hu, np.int16(AIR_HU)))
    side = square.shape[0]
    if side == size_px:
        return square
    method = cv2.INTER_AREA if size_px < side else cv2.INTER_LINEAR
    # int16 in, int16 out: cv2 sums in float32 and rounds, at half the cost of converting first
    return np.asarray(cv2.resize(square, (size_px, size_px), interpolation=method), dtype=np.int16)


def pad_to_square(hu: np.ndarray) -> np.ndarray:
    """Return (S, S), S the longer side: the slice in the middle of air; a square one is returned as it is."""
    height, width = hu.shape
    if height == width:
        return hu
    side = max(height, width)
    square = np.full((side, side), AIR_HU, dtype=hu.dtype)
    top, left = (side - height) // 2, (side - width) // 2
    square[top : top + height, left : left + width] = hu
    return square
