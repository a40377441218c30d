"""How one setting of a search is declared: its default and what it may be, in one place.

A setting's line in ``ichtune.space.settings`` is its only definition: the check and the JSON Schema read it from there.
"""

import math
import re
from collections.abc import Sequence
from dataclasses import field, fields
from typing import Any

from ichtune.errors import ConfigError, nearest
from ichtune.space.domains import is_number

#: What stands for resources that a probe finds out.
AUTO = "auto"

#: What a search may be called: its name becomes a folder, a part of a URL and the name of a job.
SEARCH_NAME = r"[A-Za-z0-9][A-Za-z0-9_.-]{0,99}"

_TIME = re.compile(r"(?:(\d+(?:\.\d+)?)d)?(?:(\d+(?:\.\d+)?)h)?(?:(\d+(?:\.\d+)?)m(?:in)?)?(?:(\d+(?:\.\d+)?)s)?")
_TIME_UNITS_S = (86400.0, 3600.0, 60.0, 1.0)
_MEMORY = re.compile(r"(\d+(?:\.\d+)?)([kmgt]i?)b")
_MEMORY_POWERS = "kmgt"
_MIB = 2.0**20


class SettingError(ConfigError):
    """A setting that is wrong in itself; whoever read it knows in which file and where."""

    def __init__(self, key: str, message: str) -> None:
        super().__init__(message)
        self.key = key


def whole(default: int | None, low: int, high: float = math.inf) -> Any:
    """Declare a whole number within inclusive bounds; ``None`` as default means that None is allowed."""
    return field(default=default, metadata={"kind": "whole", "bounds": (low, high)})


def above_zero(default: float | None, most: float = math.inf) -> Any:
    """Declare a number above zero; ``None`` as default means that None is allowed."""
    return field(default=default, metadata={"kind": "above_zero", "bounds": (0.0, most)})


def amount(default: float) -> Any:
    """Declare a number of at least zero."""
    return field(default=default, metadata={"kind": "amount", "bounds": (0.0, math.inf)})


def one_of(default: str, options: Sequence[str]) -> Any:
    """Declare a name from a closed list."""
    return field(default=default, metadata={"kind": "one_of", "options": tuple(options)})


def name(default: str) -> Any:
    """Declare a name that a table on a higher floor knows."""
    return field(default=default, metadata={"kind": "name"})


def names() -> Any:
    """Declare a list of different names of searches, none by default; one may be written bare."""
    return field(default=(), metadata={"kind": "names"})


def time_s() -> Any:
    """Declare a length of time, none by default."""
    return field(default=None, metadata={"kind": "time"})


def memory_mb() -> Any:
    """Declare an amount of memory in MiB, none by default."""
    return field(default=None, metadata={"kind": "memory"})


def special(default: Any) -> Any:
    """Declare a setting that its dataclass checks itself."""
    return field(default=default, metadata={"kind": "special"})


def check_settings(settings: Any) -> None:
    """Check every declared setting of a frozen dataclass and bring it into its one canonical form.

    Raises:
        SettingError: a value that the setting may not have.
    """
    for spec in fields(settings):
        value = getattr(settings, spec.name)
        kind = spec.metadata.get("kind", "special")
        if kind != "special" and not (value is None and spec.default is None):
            object.__setattr__(settings, spec.name, _checked(spec.name, kind, spec.metadata, value))


def _checked(key: str, kind: str, about: Any, value: Any) -> Any:
    if kind == "whole":
        check_whole(key, value, *about["bounds"])
        return value
    if kind in ("above_zero", "amount"):
        return _number(key, kind, about["bounds"][1], value)
    if kind == "one_of":
        if value not in about["options"]:
            known = about["options"]
            raise SettingError(key, f"must be one of {', '.join(known)}, got {value!r}. {nearest(str(value), known)}")
        return value
    if kind == "names":
        return _names(key, value)
    if kind == "name":
        return _name(key, value)
    return read_time_s(value) if kind == "time" else read_memory_mb(value)


def check_search_name(key: str, value: Any) -> str:
    """Return the name of a search, unless it is none that a folder could have on any disk and at any URL.

    Raises:
        SettingError: it is not made of up to 100 letters, digits, ``_``, ``.`` and ``-``.

    Example:
        >>> check_search_name("name", "windows-2")
        'windows-2'
    """
    if not isinstance(value, str) or not re.fullmatch(SEARCH_NAME, value):
        raise SettingError(
            key,
            f"must be a name of up to 100 letters (a to z), digits, _ . and -, that begins with a letter or a digit, "
            f"got {value!r}",
        )
    return value


def check_whole(key: str, value: Any, low: float, high: float = math.inf) -> None:
    """Refuse what is no whole number within inclusive bounds."""
    bounds = f"at least {low:g}" if math.isinf(high) else f"between {low:g} and {high:g}"
    if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
        raise SettingError(key, f"must be a whole number, {bounds}, got {value!r}")


def _number(key: str, kind: str, most: float, value: Any) -> float:
    least = value > 0 if kind == "above_zero" and is_number(value) else is_number(value) and value >= 0
    if not least or value > most:
        bounds = "above 0" if kind == "above_zero" else "of at least 0"
        bounds += "" if math.isinf(most) else f" and at most {most:g}"
        raise SettingError(key, f"must be a number {bounds}, got {value!r}")
    return float(value)


def _name(key: str, value: Any) -> str:
    if not isinstance(value, str) or not value:
        raise SettingError(key, f"must be a name, got {value!r}")
    return value


def _names(key: str, value: Any) -> tuple[str, ...]:
    found = tuple(check_search_name(key, one) for one in (value if isinstance(value, list | tuple) else (value,)))
    if len(set(found)) < len(found):
        raise SettingError(key, f"must give each name once, got {list(found)}")
    return found


def read_time_s(value: Any) -> float:
    """Read a length of time: seconds as a number, or text such as ``6h``, ``30m``, ``90s``, ``1h30m``.

    Raises:
        SettingError: neither, or not above zero.

    Example:
        >>> read_time_s("1h30m"), read_time_s("90s"), read_time_s(20)
        (5400.0, 90.0, 20.0)
    """
    seconds = math.nan
    if is_number(value):
        seconds = float(value)
    elif isinstance(value, str):
        match = _TIME.fullmatch(value.strip().lower().replace(" ", ""))
        if match and any(match.groups()):
            parts = zip(match.groups(), _TIME_UNITS_S, strict=True)
            seconds = sum(float(number) * unit_s for number, unit_s in parts if number)
    if not seconds > 0:
        raise SettingError("time", f"must be a length of time such as 6h, 30m, 90s or 1h30m, got {value!r}")
    return seconds


def read_memory_mb(value: Any) -> float:
    """Read an amount of memory in MiB: a number of them, or text such as ``12GiB``, ``800 MiB``, ``16GB``.

    Raises:
        SettingError: neither, or not above zero.

    Example:
        >>> read_memory_mb("12GiB"), read_memory_mb("512MiB"), read_memory_mb(800)
        (12288.0, 512.0, 800.0)
    """
    mib = math.nan
    if is_number(value):
        mib = float(value)
    elif isinstance(value, str):
        match = _MEMORY.fullmatch(value.strip().lower().replace(" ", ""))
        if match:
            base = 1024.0 if match[2].endswith("i") else 1000.0
            mib = float(match[1]) * base ** (_MEMORY_POWERS.index(match[2][0]) + 1) / _MIB
    if not mib > 0:
        raise SettingError(
            "gpu_memory_mb",
            f"must be an amount of memory such as 12GiB, 800MiB, 16GB or MiB as a number, got {value!r}",
        )
    return mib
