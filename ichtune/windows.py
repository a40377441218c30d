"""Display windows: the only code that turns Hounsfield units into network input.

Dimension key: B batch, C channels of Hounsfield units (neighbouring slices), N windows, H height, W width.
"""

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from ichtune.errors import ConfigError, nearest

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True, order=True)
class Window:
    """A linear display window: ``center_hu - width_hu / 2`` becomes 0, ``center_hu + width_hu / 2`` becomes 1.

    Source: DICOM PS3.3 C.11.2.1.3.2 (LINEAR_EXACT).
    """

    center_hu: float
    width_hu: float

    def __post_init__(self) -> None:
        numbers = _is_finite_number(self.center_hu) and _is_finite_number(self.width_hu)
        if not (numbers and self.width_hu > 0):
            raise ConfigError(
                f"window width must be a positive number of HU and the centre finite, got centre "
                f"{self.center_hu!r} and width {self.width_hu!r}; write [centre, width], as in [40, 80]"
            )
        # Equal windows must hash and print alike: 40 is 40.0, and minus zero is zero.
        object.__setattr__(self, "center_hu", float(self.center_hu) + 0.0)
        object.__setattr__(self, "width_hu", float(self.width_hu) + 0.0)

    @property
    def low_hu(self) -> float:
        """The value in HU that becomes 0."""
        return self.center_hu - self.width_hu / 2

    @property
    def high_hu(self) -> float:
        """The value in HU that becomes 1."""
        return self.center_hu + self.width_hu / 2


def _is_finite_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) <= sys.float_info.max


def _windows(*pairs: tuple[float, float]) -> tuple[Window, ...]:
    return tuple(Window(center, width) for center, width in pairs)


#: Named window sets. A set's name is only a shorthand: recipes are compared by the windows themselves.
WINDOW_SETS: dict[str, tuple[Window, ...]] = {
    "brain": _windows((40, 80)),
    "subdural": _windows((80, 200)),
    "soft_tissue": _windows((40, 380)),
    "bone": _windows((600, 2800)),
    "brain_subdural_bone": _windows((40, 80), (80, 200), (600, 2800)),
    "brain_subdural_soft": _windows((40, 80), (80, 200), (40, 380)),
    "brain_subdural_blood": _windows((40, 80), (80, 200), (200, 450)),
    "brain_stroke_bone": _windows((40, 80), (50, 175), (500, 3000)),
    "hu_ranges": _windows((50, 200), (200, 200), (350, 200)),
}


def resolve_windows(value: Any) -> tuple[Window, ...]:
    """Read a window set written by name or as ``[[centre, width], ...]``.

    Args:
        value: a key of ``WINDOW_SETS``, a sequence of pairs in HU, or a sequence of ``Window``.

    Returns:
        The windows, in channel order.

    Raises:
        ConfigError: unknown name, empty set, or an entry that is no pair of numbers.
    """
    if isinstance(value, str):
        if value not in WINDOW_SETS:
            raise ConfigError(f"unknown window set {value!r}. {nearest(value, WINDOW_SETS)}")
        return WINDOW_SETS[value]
    if not isinstance(value, Sequence) or len(value) == 0:
        raise ConfigError(f"windows must be a set's name or a list of [centre, width], got {value!r}")
    return tuple(_resolve_window(entry, value) for entry in value)


def _resolve_window(entry: Any, whole: Any) -> Window:
    if isinstance(entry, Window):
        return entry
    numbers = isinstance(entry, Sequence) and all(isinstance(v, int | float) and not isinstance(v, bool) for v in entry)
    if not numbers or isinstance(entry, str) or len(entry) != 2:
        raise ConfigError(f"a window must be [centre, width] in HU, got {entry!r} in {whole!r}")
    return Window(entry[0], entry[1])


def window_set_name(windows: Sequence[Window]) -> str:
    """Return the set's name, or ``40/80+80/200`` style text for a set without one."""
    for name, known in WINDOW_SETS.items():
        if tuple(windows) == known:
            return name
    return "+".join(f"{w.center_hu:g}/{w.width_hu:g}" for w in windows)


def apply_windows(hu_BCHW: "torch.Tensor", windows: Sequence[Window]) -> "torch.Tensor":
    """Turn Hounsfield units into network input, on whatever device the batch lies.

    Args:
        hu_BCHW: float tensor (B, C, H, W) in HU; C is 1 or the neighbouring slices in series order.
        windows: N windows.

    Returns:
        Float tensor (B, C * N, H, W) in [-1, 1]; channel ``c * N + n`` is slice c under window n.
    """
    import torch

    n_windows = len(windows)
    batch, slices, height, width = hu_BCHW.shape
    out = hu_BCHW.new_empty((batch, slices, n_windows, height, width))
    for n, window in enumerate(windows):
        scaled = out[:, :, n]
        torch.sub(hu_BCHW, window.center_hu, out=scaled)
        scaled.mul_(2.0 / window.width_hu).clamp_(-1.0, 1.0)
    return out.view(batch, slices * n_windows, height, width)


def window_image(hu_HW: np.ndarray, window: Window) -> np.ndarray:
    """Return one slice (H, W) in HU as float32 in [0, 1] under one window, for pictures."""
    scaled = (hu_HW.astype(np.float32) - window.low_hu) / window.width_hu
    return np.clip(scaled, 0.0, 1.0)
