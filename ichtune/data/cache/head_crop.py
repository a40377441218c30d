"""Where the head lies: square boxes for the crops that a cache may hold, found in a cache that is not cropped."""

from collections.abc import Callable

import cv2
import numpy as np
import pandas as pd

from ichtune.data.cache.hu_cache import HuCache
from ichtune.data.cache.resize import WHOLE_BOX, fit_hu
from ichtune.errors import ConfigError, nearest
from ichtune.recipe import CROPS

#: Raise when the same cache would give other boxes.
BOX_VERSION = 1
#: Skin, brain and bone lie above, as does the shell of a headrest; air, foam and most cushions below.
BODY_HU = -300
#: Side at which the head is looked for. Thin lines fade at it, and a head still spans more than 30 pixels.
_LOOK_PX = 128
#: What a disc of this width does not fit into is no head: 12 mm of the usual 230 mm field of view.
_OPENING_PX = 7
#: A part that fills less of its own box is a shell around something. A head with open sinuses fills half.
_LEAST_FILLED = 0.3
#: Air around the head of a series, in shares of the box: a pixel of ``_LOOK_PX``, and the ears that opening cuts off.
_MARGIN = 0.03
#: A part with less area than this share of the series' median says nothing about where the head lies.
_LEAST_AREA = 0.25
#: A part belongs to the head if this share of its box lies in the series' median box; the table lies below it.
_LEAST_OVERLAP = 0.5
#: A smaller box than this share of the square is not around a head: 90 mm of a field of view of 450 mm.
_LEAST_SIDE = 0.2
#: Lower edge of the window 40/80: what the seed's crop took for black.
_BLACK_HU = 0
_TELL_ROWS = 1000

Box = tuple[float, float, float]
#: Top, bottom, left and right edge in fractions of the padded square, and the area as a share of it.
_PART = 5


def series_boxes(
    cache: HuCache, slices: pd.DataFrame, kind: str, on_rows: Callable[[int, int], None] | None = None
) -> np.ndarray:
    """Find the box of every row of a cache of whole slices.

    ``head`` is one box for the whole series, so that neighbouring slices stay registered: around the largest
    part of the body in all its slices, without the headrest, with a small margin. A slice whose largest part
    lies elsewhere, as where the table is all there is, has no say. ``tight`` is a box for each slice around what
    is brighter than the lower edge of the window 40/80, the crop of the published seed experiments; it is kept
    square, which theirs was not, and it is found at the resolution of the cache.

    Args:
        cache: its slices must not be cropped.
        slices: its SliceTable.
        kind: ``head`` or ``tight``.
        on_rows: called now and then with rows done and all rows, first with none done.

    Returns:
        float64 (n_rows, 3): top, left and side in fractions of the padded square; a box may stick out of it. The
        whole square where a row has no pixels or nothing was found.

    Raises:
        ConfigError: no such kind, or the cache is cropped itself.
    """
    if kind not in CROPS[1:]:
        raise ConfigError(f"unknown crop {kind!r}. {nearest(kind, CROPS[1:])}")
    if cache.crop != CROPS[0]:
        raise ConfigError(f"boxes are found in whole slices, but HU cache {cache.cache_id} is cropped: {cache.crop}")
    boxes = np.tile(np.array(WHOLE_BOX), (cache.n_rows, 1))
    parts = np.full((cache.n_rows, _PART), np.nan)
    for row in range(cache.n_rows):  # in the order in which they lie on disk
        if on_rows is not None and row % _TELL_ROWS == 0:
            on_rows(row, cache.n_rows)
        if cache.shape(row) is not None:
            hu = cache.read(row)
            if kind == "tight":
                boxes[row] = tight_box(hu)
            else:
                parts[row] = body_part(hu) or np.nan
    if on_rows is not None:
        on_rows(cache.n_rows, cache.n_rows)
    if kind == "tight":
        return boxes
    has_pixels = np.flatnonzero([cache.shape(row) is not None for row in range(cache.n_rows)])
    series = pd.factorize(slices["series_instance_uid"].to_numpy(object)[has_pixels])[0]
    order = np.argsort(series, kind="stable")
    for members in np.split(has_pixels[order], np.flatnonzero(np.diff(series[order])) + 1):
        boxes[members] = _series_box(parts[members])
    return boxes


def head_box(hu: np.ndarray) -> Box | None:
    """Return the box of the head in one slice, int16 (H, W) in HU; None where there is none.

    Returns:
        Top, left and side of a square around it with a margin, in fractions of the padded square.
    """
    found = body_part(hu)
    return None if found is None else _square(np.array(found[:4]), _MARGIN)


def tight_box(hu: np.ndarray) -> Box:
    """Return the square box of what is not black in the window 40/80 in one slice, int16 (H, W) in HU."""
    side = max(hu.shape)
    is_bright = fit_hu(hu, side) > _BLACK_HU
    rows, columns = (np.flatnonzero(is_bright.any(axis=axis)) for axis in (1, 0))
    if not len(rows):
        return WHOLE_BOX
    return _square(np.array([rows[0], rows[-1] + 1, columns[0], columns[-1] + 1]) / side, 0.0)


def body_part(hu: np.ndarray) -> tuple[float, ...] | None:
    """Return the largest part of the body in one slice, int16 (H, W) in HU; None where there is none.

    Returns:
        Top, bottom, left and right edge in fractions of the padded square, and its area as a share of it.
    """
    small = fit_hu(hu, min(_LOOK_PX, max(hu.shape)))
    side = small.shape[0]
    width = max(round(_OPENING_PX * side / _LOOK_PX), 1)
    disc = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (width, width))
    # beyond the edge is air: opening would else keep a headrest that runs out of the field of view
    is_body = cv2.copyMakeBorder((small > BODY_HU).astype(np.uint8), width, width, width, width, cv2.BORDER_CONSTANT)
    opened = cv2.morphologyEx(is_body, cv2.MORPH_OPEN, disc)[width:-width, width:-width]
    stats = cv2.connectedComponentsWithStats(np.ascontiguousarray(opened))[2][1:]  # the first is the background
    left, top, columns, rows, area = stats.T
    size = np.where(area >= _LEAST_FILLED * columns * rows, area, 0)
    if not size.any():
        return None
    n = int(np.argmax(size))
    edges = (top[n], top[n] + rows[n], left[n], left[n] + columns[n])
    return (*(float(edge) / side for edge in edges), float(area[n]) / side**2)


def _series_box(parts: np.ndarray) -> Box:
    """One box around the parts (n, 5) of a series that belong to its head; NaN where a slice has none."""
    parts = parts[~np.isnan(parts[:, 0])]
    if not len(parts):
        return WHOLE_BOX
    edges, areas = parts[:, :4], parts[:, 4]
    middle = np.median(edges[areas >= _LEAST_AREA * np.median(areas)], axis=0)
    heights, widths = (
        np.minimum(edges[:, last], middle[last]) - np.maximum(edges[:, first], middle[first])
        for first, last in ((0, 1), (2, 3))
    )
    inside = np.maximum(heights, 0) * np.maximum(widths, 0)
    own = (edges[:, 1] - edges[:, 0]) * (edges[:, 3] - edges[:, 2])
    is_head = inside >= _LEAST_OVERLAP * own
    kept = edges[is_head] if is_head.any() else edges
    box = _square(np.r_[kept[:, 0].min(), kept[:, 1].max(), kept[:, 2].min(), kept[:, 3].max()], _MARGIN)
    return box if box[2] >= _LEAST_SIDE else WHOLE_BOX


def _square(edges: np.ndarray, margin: float) -> Box:
    """The square around edges, with a margin in shares of its side; the whole where it would be no smaller."""
    top, bottom, left, right = (float(edge) for edge in edges)
    side = max(bottom - top, right - left) * (1 + 2 * margin)
    if side >= 1:
        return WHOLE_BOX
    return ((top + bottom - side) / 2, (left + right - side) / 2, side)
