"""Display windows: the only code that turns Hounsfield units into network input.

Dimension key: B batch, C images in Hounsfield units (neighbouring slices), N windows, H height, W width.
"""

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from ichtune.errors import ConfigError, nearest

if TYPE_CHECKING:
    import torch


#: What a window may be: single precision divides by its width.
_NARROWEST_HU, _FARTHEST_HU = 1e-3, 1e6


@dataclass(frozen=True, order=True)
class Window:
    """A linear display window: ``center_hu - width_hu / 2`` becomes 0, ``center_hu + width_hu / 2`` becomes 1.

    Source: DICOM PS3.3 C.11.2.1.3.2 (LINEAR_EXACT).
    """

    center_hu: float
    width_hu: float

    def __post_init__(self) -> None:
        if not is_sound_window(self.center_hu, self.width_hu):
            raise ConfigError(
                f"window width must be a positive number of HU, {_NARROWEST_HU:g} to {_FARTHEST_HU:g}, and the centre "
                f"finite, within {_FARTHEST_HU:g} of 0, got centre {self.center_hu!r} and width {self.width_hu!r}; "
                f"write [centre, width], as in [40, 80]"
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


@dataclass(frozen=True, order=True)
class DicomWindow(Window):
    """The window that a slice's own file asks for (WindowCenter, WindowWidth), unlike from scanner to scanner.

    Its numbers are those of the brain window, which slices of files without a window of their own take.
    """

    center_hu: float = 40.0
    width_hu: float = 80.0

    def __post_init__(self) -> None:
        if (self.center_hu, self.width_hu) != (40.0, 80.0):
            raise ConfigError("the window of the slice's own file has no numbers of its own; write dicom alone")


def is_sound_window(center_hu: Any, width_hu: Any) -> bool:
    """Say whether two values are a window's centre and width: finite numbers that single precision can divide by."""
    numbers = _is_finite_number(center_hu) and _is_finite_number(width_hu)
    return numbers and abs(center_hu) <= _FARTHEST_HU and _NARROWEST_HU <= width_hu <= _FARTHEST_HU


def _is_finite_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) <= sys.float_info.max


def _windows(*pairs: tuple[float, float]) -> tuple[Window, ...]:
    return tuple(Window(center, width) for center, width in pairs)


#: How the window of the slice's own file is written among others.
DICOM = "dicom"

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
    DICOM: (DicomWindow(),),
}


#: Names by which some of the sets are known elsewhere.
_OTHER_NAMES = {"sasanak": "brain_stroke_bone"}


def resolve_windows(value: Any) -> tuple[Window, ...]:
    """Read a window set written by name or as ``[[centre, width], ...]``.

    Args:
        value: a key of ``WINDOW_SETS``, or a sequence of pairs in HU, of ``dicom`` and of ``Window``.

    Returns:
        The windows, in channel order.

    Raises:
        ConfigError: unknown name, empty set, or an entry that is no pair of numbers.
    """
    if isinstance(value, str):
        value = _OTHER_NAMES.get(value, value)
        if value not in WINDOW_SETS:
            raise ConfigError(f"unknown window set {value!r}. {nearest(value, WINDOW_SETS)}")
        return WINDOW_SETS[value]
    if not isinstance(value, Sequence) or len(value) == 0:
        raise ConfigError(f"windows must be a set's name or a list of [centre, width], got {value!r}")
    return tuple(_resolve_window(entry, value) for entry in value)


def _resolve_window(entry: Any, whole: Any) -> Window:
    if isinstance(entry, Window):
        return entry
    if entry == DICOM:
        return DicomWindow()
    numbers = isinstance(entry, Sequence) and all(isinstance(v, int | float) and not isinstance(v, bool) for v in entry)
    if not numbers or isinstance(entry, str) or len(entry) != 2:
        raise ConfigError(f"a window must be [centre, width] in HU, got {entry!r} in {whole!r}")
    return Window(entry[0], entry[1])


def window_set_name(windows: Sequence[Window]) -> str:
    """Return the set's name, or ``40/80+80/200`` style text for a set without one."""
    for name, known in WINDOW_SETS.items():
        if tuple(windows) == known:
            return name
    return "+".join(DICOM if isinstance(w, DicomWindow) else f"{w.center_hu:g}/{w.width_hu:g}" for w in windows)


def plain_windows(windows: Sequence[Window]) -> list[Any]:
    """Return the windows as they are written: ``[centre, width]`` in HU, or ``dicom``."""
    return [DICOM if isinstance(w, DicomWindow) else [w.center_hu, w.width_hu] for w in windows]


def apply_windows(
    hu_BCHW: "torch.Tensor", windows: Sequence[Window], shape: str = "linear", paired: bool = False
) -> "torch.Tensor":
    """Turn Hounsfield units into network input under fixed windows, on whatever device the batch lies.

    With u = 2 (hu - centre) / width a linear window is u clamped to [-1, 1], and a sigmoid one is tanh(u), which is
    1 / (1 + exp(-4 (hu - centre) / width)) carried from [0, 1] to [-1, 1].

    Args:
        hu_BCHW: float tensor (B, C, H, W) in HU; C is 1 or the neighbouring slices in series order.
        windows: N windows; a ``DicomWindow`` counts by its own numbers, those of the brain window.
        shape: ``linear`` or ``sigmoid``.
        paired: image i is seen under window i only; N must equal C.

    Returns:
        Float tensor (B, C * N, H, W) in [-1, 1], channels_last; channel ``c * N + n`` is image c under window n. When
        paired (B, C, H, W).

    Source: DICOM PS3.3 C.11.2.1.3.1 (SIGMOID) and C.11.2.1.3.2 (LINEAR_EXACT).
    """
    return _fill(hu_BCHW, [(w.center_hu, 2.0 / w.width_hu) for w in windows], shape, paired)


def apply_windows_each(
    hu_BCHW: "torch.Tensor",
    center_BN: "torch.Tensor",
    width_BN: "torch.Tensor",
    shape: str = "linear",
    paired: bool = False,
) -> "torch.Tensor":
    """Do what ``apply_windows`` does under windows of each slice's own, through which gradients reach their numbers.

    A linear window learns from the pixels between its edges only, a sigmoid one from all of them.

    Args:
        hu_BCHW: float tensor (B, C, H, W) in HU.
        center_BN: centres in HU, (B, N), or (1, N) for the whole batch.
        width_BN: widths in HU, above 0, of the same shape.
        shape: ``linear`` or ``sigmoid``.
        paired: image i is seen under window i only; N must equal C.

    Returns:
        As ``apply_windows``.
    """
    import torch

    slope_BN = 2.0 / width_BN
    if not (torch.is_grad_enabled() and (center_BN.requires_grad or slope_BN.requires_grad)):
        per_window = zip(center_BN.unbind(1), slope_BN.unbind(1), strict=True)
        numbers = [(center_B[:, None, None, None], slope_B[:, None, None, None]) for center_B, slope_B in per_window]
        return _fill(hu_BCHW, numbers, shape, paired)
    if paired:
        scaled = (hu_BCHW - center_BN[:, :, None, None]) * slope_BN[:, :, None, None]
    else:
        offset_BCNHW = hu_BCHW[:, :, None] - center_BN[:, None, :, None, None]
        scaled = (offset_BCNHW * slope_BN[:, None, :, None, None]).flatten(1, 2)
    return _flank_(scaled, shape).contiguous(memory_format=torch.channels_last)


def _fill(hu_BCHW: "torch.Tensor", numbers: Sequence[tuple[Any, Any]], shape: str, paired: bool) -> "torch.Tensor":
    """Window by window, from its centre and 2 / width: each a number, or a tensor (B, 1, 1, 1)."""
    import torch

    n_windows = len(numbers)
    images = list(hu_BCHW.split(1, dim=1)) if paired else [hu_BCHW] * n_windows
    batch, n_images, height, width = images[0].shape
    # Written where it belongs at once: a batch in plain memory that is made channels_last afterwards takes a CPU up to
    # three times as long.
    out = hu_BCHW.new_empty((batch, height, width, n_images * n_windows)).permute(0, 3, 1, 2)
    out_BCNHW = out.unflatten(1, (n_images, n_windows))
    scaled = hu_BCHW.new_empty(images[0].shape)
    for n, (image, (center, slope)) in enumerate(zip(images, numbers, strict=True)):
        torch.sub(image, center, out=scaled)
        out_BCNHW[:, :, n].copy_(_flank_(scaled.mul_(slope), shape))
    return out


def _flank_(scaled: "torch.Tensor", shape: str) -> "torch.Tensor":
    """What a window makes of 2 (hu - centre) / width, in place."""
    return scaled.tanh_() if shape == "sigmoid" else scaled.clamp_(-1.0, 1.0)


def window_image(hu_HW: np.ndarray, window: Window) -> np.ndarray:
    """Return one slice (H, W) in HU as float32 in [0, 1] under one window, for pictures."""
    scaled = (hu_HW.astype(np.float32) - window.low_hu) / window.width_hu
    return np.clip(scaled, 0.0, 1.0)
