"""VIEWS: what a slice is shown as when its prediction is the mean over several views.

Dimension key: B batch, S slices seen, H height, W width.
"""

from collections.abc import Callable
from functools import partial

import torch

from ichtune.errors import ConfigError, nearest
from ichtune.training.device_augment import warp

#: Maps hu_BSHW to hu_BSHW, every slice in the same way.
View = Callable[[torch.Tensor], torch.Tensor]

#: Magnification of the corners, and of the enlarged whole.
ZOOM = 1.1


def identity(hu_BSHW: torch.Tensor) -> torch.Tensor:
    """Return the very tensor."""
    return hu_BSHW


def mirror(hu_BSHW: torch.Tensor) -> torch.Tensor:
    """Exchange left and right."""
    return hu_BSHW.flip(-1)


def transpose(hu_BSHW: torch.Tensor) -> torch.Tensor:
    """Exchange rows and columns."""
    return hu_BSHW.transpose(-1, -2)


def rotate(hu_BSHW: torch.Tensor, degrees: float) -> torch.Tensor:
    """Rotate about the centre, clockwise as the slice is displayed."""
    return _warped(hu_BSHW, degrees=degrees)


def zoom(hu_BSHW: torch.Tensor, scale: float) -> torch.Tensor:
    """Enlarge about the centre; below 1 it shrinks, with air around."""
    return _warped(hu_BSHW, scale=scale)


def corner(hu_BSHW: torch.Tensor, vertical: int, horizontal: int, scale: float = ZOOM) -> torch.Tensor:
    """Enlarge about a corner, which stays where it is.

    Args:
        hu_BSHW: HU.
        vertical: -1 for the top, 1 for the bottom.
        horizontal: -1 for the left, 1 for the right.
        scale: magnification.
    """
    return _warped(hu_BSHW, scale=scale, shift=(-vertical * (scale - 1.0) / 2, -horizontal * (scale - 1.0) / 2))


def _warped(
    hu_BSHW: torch.Tensor, degrees: float = 0.0, scale: float = 1.0, shift: tuple[float, float] = (0.0, 0.0)
) -> torch.Tensor:
    """Every slice under one transform; ``degrees`` clockwise, ``shift`` down and to the right in shares of the side."""
    n = hu_BSHW.shape[0]  # its len() would fix the number of slices in an exported graph
    degrees_M, zoom_M = (torch.full((n,), number, dtype=torch.float64) for number in (-degrees, scale))
    return warp(hu_BSHW.float(), degrees_M, zoom_M, torch.tensor(shift, dtype=torch.float64).expand(n, 2))


def _mirrored(view: View, hu_BSHW: torch.Tensor) -> torch.Tensor:
    return view(mirror(hu_BSHW))


def _and_mirrored(*views: View) -> tuple[View, ...]:
    return tuple(shown for view in views for shown in (view, partial(_mirrored, view)))


_TURNS: tuple[View, ...] = (partial(rotate, degrees=10.0), partial(rotate, degrees=-10.0))
_CORNERS: tuple[View, ...] = tuple(partial(corner, vertical=v, horizontal=h) for v in (-1, 1) for h in (-1, 1))

#: Views by name; the first of each shows the slice as it is.
VIEWS: dict[str, tuple[View, ...]] = {
    "none": (identity,),
    "flip": (identity, mirror),
    "flip_transpose": (identity, mirror, transpose),
    "rotate10": (identity, mirror, *_TURNS),
    "scales": (identity, partial(zoom, scale=0.9), partial(zoom, scale=1.1)),
    "eight": (identity, mirror, *_and_mirrored(partial(zoom, scale=ZOOM), *_TURNS)),
    "corners": (identity, *_and_mirrored(*_CORNERS)),
}


def find_views(name: str) -> tuple[View, ...]:
    """Return the views of a name; ``ConfigError`` with the nearest one otherwise."""
    if name not in VIEWS:
        raise ConfigError(f"unknown tta {name!r}. {nearest(name, VIEWS)}")
    return VIEWS[name]
