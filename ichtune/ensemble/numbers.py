"""Arrays of numbers that a blender kept as nested lists, read back and checked."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from ichtune.errors import DataError


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
