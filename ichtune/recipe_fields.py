"""How one key of a recipe is declared: its default, what it may be, and what it means, in one place.

A key's line in ``ichtune.recipe`` is its only definition: checking, the table of keys in the documents and the search
space read it from there.
"""

import math
import sys
from collections.abc import Sequence
from dataclasses import Field, field
from typing import Any

from ichtune.errors import ConfigError, nearest
from ichtune.labels import N_LABELS

#: What a whole number without an upper bound may be.
_LARGEST = 2**53


def number(default: float | None, low: float, high: float, doc: str) -> Any:
    """Declare a number within inclusive bounds; ``None`` as default means that None is allowed."""
    return field(default=default, metadata={"kind": "number", "bounds": (low, high), "doc": doc})


def whole(default: int, low: int, high: float, doc: str) -> Any:
    """Declare a whole number within inclusive bounds."""
    return field(default=default, metadata={"kind": "whole", "bounds": (low, high), "doc": doc})


def one_of(default: str, options: Sequence[str], doc: str) -> Any:
    """Declare a name from a closed list."""
    return field(default=default, metadata={"kind": "one_of", "options": tuple(options), "doc": doc})


def name(default: str, doc: str) -> Any:
    """Declare a name that a table on a higher floor knows, or free text."""
    return field(default=default, metadata={"kind": "name", "doc": doc})


def switch(default: bool, doc: str) -> Any:
    """Declare a yes or no."""
    return field(default=default, metadata={"kind": "switch", "doc": doc})


def label_weights(default: tuple[float, ...], doc: str) -> Any:
    """Declare six numbers in label order."""
    return field(default=default, metadata={"kind": "label_weights", "doc": doc})


def special(default: Any, doc: str) -> Any:
    """Declare a value that the recipe checks itself."""
    return field(default=default, metadata={"kind": "special", "doc": doc})


def checked(spec: "Field[Any]", value: Any) -> Any:
    """Return a key's value in its one canonical form.

    Raises:
        ConfigError: the value is none that the key may have.
    """
    kind = spec.metadata["kind"]
    if kind in ("number", "whole"):
        return _number(spec, value)
    if kind == "label_weights":
        return _label_weights(spec.name, value)
    if kind == "switch" and not isinstance(value, bool):
        raise ConfigError(f"recipe key {spec.name!r} must be true or false, got {value!r}")
    if kind in ("name", "one_of") and not isinstance(value, str):
        raise ConfigError(f"recipe key {spec.name!r} must be a name, got {value!r}")
    if kind == "one_of" and value not in spec.metadata["options"]:
        options = spec.metadata["options"]
        raise ConfigError(
            f"recipe key {spec.name!r} must be one of {', '.join(options)}, got {value!r}. {nearest(value, options)}"
        )
    return value


def _number(spec: "Field[Any]", value: Any) -> int | float | None:
    if value is None and spec.default is None:
        return None
    low, high = spec.metadata["bounds"]
    is_whole = spec.metadata["kind"] == "whole"
    is_number = isinstance(value, int | float) and not isinstance(value, bool) and value == value  # not NaN
    if not is_number or (is_whole and value % 1 != 0):
        what = "a whole number" if is_whole else "a number"
        raise ConfigError(f"recipe key {spec.name!r} must be {what}, got {value!r}")
    if not low <= value <= min(high, _LARGEST):
        bounds = f"at least {low:g}" if math.isinf(high) else f"between {low:g} and {high:g}"
        raise ConfigError(f"recipe key {spec.name!r} must be {bounds}, got {value!r}")
    return int(value) if is_whole else float(value) + 0.0  # minus zero equals zero and must hash like it


def _label_weights(key: str, value: Any) -> tuple[float, ...]:
    numbers = isinstance(value, Sequence) and all(
        isinstance(w, int | float) and not isinstance(w, bool) and abs(w) <= sys.float_info.max for w in value
    )
    weights = tuple(float(w) + 0.0 for w in value) if numbers else ()
    if len(weights) != N_LABELS or min(weights) < 0 or sum(weights) <= 0:
        raise ConfigError(f"recipe key {key!r} must be {N_LABELS} numbers of at least 0 in label order, got {value!r}")
    return weights
