"""Numbers of a blender, checked: its settings, and arrays that it kept as nested lists."""

from collections.abc import Mapping
from typing import Any, TypeGuard

import numpy as np

from ichtune.errors import ConfigError, DataError

#: What arrays must have, by name; None leaves a length open.
Shapes = Mapping[str, tuple[int | None, ...]]


def is_number(value: Any, low: float, high: float) -> TypeGuard[float]:
    """Say whether a setting is a number, and no truth value, within inclusive bounds."""
    return isinstance(value, int | float) and not isinstance(value, bool) and low <= value <= high


def check_between(blender: str, key: str, value: Any, low: float, high: float) -> None:
    """Raise ``ConfigError`` unless a setting of a blender is a number within inclusive bounds."""
    if not is_number(value, low, high):
        raise ConfigError(f"{blender}: {key} must be a number between {low:g} and {high:g}, got {value!r}")


def check_share(blender: str, key: str, value: Any) -> None:
    """Raise ``ConfigError`` unless a setting of a blender is a share that is not nothing."""
    if not is_number(value, 0.0, 1.0) or value == 0:
        raise ConfigError(f"{blender}: {key} must be a number above 0 and up to 1, got {value!r}")


def check_whole(blender: str, key: str, value: Any, least: int) -> None:
    """Raise ``ConfigError`` unless a setting of a blender is a whole number of at least ``least``."""
    if not isinstance(value, int) or isinstance(value, bool) or value < least:
        raise ConfigError(f"{blender}: {key} must be a whole number of at least {least}, got {value!r}")


def table_of_numbers(learned: Mapping[str, Any], key: str, shape: tuple[int | None, ...]) -> np.ndarray:
    """Return one array of what a blender learned, float64.

    Args:
        learned: what ``Blender.learned`` returned, as it was or read back from JSON.
        key: which part.
        shape: what it must have; None leaves a length open, of at least 1.

    Raises:
        DataError: absent, not numbers, or of another shape.
    """
    wanted = " x ".join("any" if n is None else str(n) for n in shape)
    try:
        numbers = np.array(learned[key], dtype=np.float64)
    except (KeyError, TypeError, ValueError) as error:
        raise DataError(f"what a blender has learned must hold {key}, {wanted} numbers ({error!r})") from error
    fits = numbers.ndim == len(shape) and all(
        got == want or (want is None and got > 0) for got, want in zip(numbers.shape, shape, strict=True)
    )
    if not fits or not np.isfinite(numbers).all():
        raise DataError(f"what a blender has learned must hold {key}, {wanted} numbers, got shape {numbers.shape}")
    return numbers
