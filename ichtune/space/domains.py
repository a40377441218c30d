"""What one searched parameter may be: a range of numbers, or a choice among options."""

import math
from dataclasses import dataclass
from typing import Any, Protocol

from ichtune.errors import ConfigError
from ichtune.windows import DICOM, resolve_windows, window_set_name

#: A step fits a range if it misses the upper end by less than this share of itself.
STEP_TOLERANCE = 1e-6
#: Significant digits of a value on a grid.
GRID_DIGITS = 12


class Chooser(Protocol):
    """Decides the value of each parameter it is asked for; the only thing a searcher has to provide."""

    def categorical(self, name: str, choices: tuple[str, ...]) -> str:
        """Return one of the labels."""
        ...

    def real(self, name: str, low: float, high: float, *, log: bool, step: float | None) -> float:
        """Return a number in [low, high], on the grid that ``step`` makes from ``low`` where there is one."""
        ...

    def integer(self, name: str, low: int, high: int, *, log: bool, step: int) -> int:
        """Return a whole number in [low, high], on the grid that ``step`` makes from ``low``."""
        ...


@dataclass(frozen=True)
class Real:
    """Numbers in [low, high]; evenly likely on a logarithmic scale with ``log``, on a grid with ``step``."""

    low: float
    high: float
    log: bool = False
    step: float | None = None

    def __post_init__(self) -> None:
        _check_range(self.low, self.high, self.log, self.step)
        object.__setattr__(self, "low", float(self.low))
        object.__setattr__(self, "high", float(self.high))

    @property
    def n_values(self) -> float:
        """How many values there are; infinite without a step."""
        return math.inf if self.step is None else round((self.high - self.low) / self.step) + 1

    def values(self) -> list[float]:
        """Return every value of a range with a step, in order."""
        return [self.on_grid(i) for i in range(int(self.n_values))]

    def on_grid(self, i: int) -> float:
        """Return the i-th value of a range with a step: 0.3, not the 0.30000000000000004 that adding up comes to."""
        return float(f"{self.low + i * (self.step or 0.0):.{GRID_DIGITS}g}")

    def draw(self, name: str, chooser: Chooser) -> float:
        """Ask the chooser for a value."""
        value = float(chooser.real(name, self.low, self.high, log=self.log, step=self.step))
        return value if self.step is None else self.on_grid(round((value - self.low) / self.step))

    def contains(self, value: Any) -> bool:
        """Say whether a value could be drawn."""
        return is_number(value) and self.low <= value <= self.high and _on_grid(value, self.low, self.step)


@dataclass(frozen=True)
class Integer:
    """Whole numbers in [low, high] at a distance of ``step``; on a logarithmic scale with ``log``."""

    low: int
    high: int
    log: bool = False
    step: int = 1

    def __post_init__(self) -> None:
        for name, value in (("low", self.low), ("high", self.high), ("step", self.step)):
            if not (is_number(value) and float(value).is_integer()):
                raise ConfigError(f"{name} must be a whole number here, got {value!r}")
            object.__setattr__(self, name, int(value))
        _check_range(self.low, self.high, self.log, None if self.step == 1 else self.step)

    @property
    def n_values(self) -> float:
        """How many values there are."""
        return (self.high - self.low) // self.step + 1

    def values(self) -> list[int]:
        """Return every value, in order."""
        return list(range(self.low, self.high + 1, self.step))

    def draw(self, name: str, chooser: Chooser) -> int:
        """Ask the chooser for a value."""
        return int(chooser.integer(name, self.low, self.high, log=self.log, step=self.step))

    def contains(self, value: Any) -> bool:
        """Say whether a value could be drawn."""
        whole = is_number(value) and float(value).is_integer()
        return whole and self.low <= value <= self.high and _on_grid(value, self.low, self.step)


Range = Real | Integer

#: A window set whose numbers may be ranges themselves: (centre, width) pairs in HU, or ``dicom``.
WindowTemplate = tuple[tuple[float | Range, float | Range] | str, ...]

_SIDES = ("center", "width")


@dataclass(frozen=True)
class Option:
    """One entry of a choice.

    Attributes:
        value: a plain value, six weights of labels, recipe_ids, for windows a ``WindowTemplate``, or None.
        label: short stable text that stands for the value in searchers, tables and conditions.
    """

    value: Any
    label: str

    @property
    def plain(self) -> Any:
        """The value where it is a plain one, else its label: what tables show and conditions compare."""
        return self.label if isinstance(self.value, tuple | None) else self.value

    def ranges(self, prefix: str) -> dict[str, Range]:
        """Return the searched numbers inside the option by name, as in ``windows[1][0].center``."""
        if not isinstance(self.value, tuple):
            return {}
        return {
            f"{prefix}[{i}].{side}": number
            for i, pair in enumerate(self.value)
            if isinstance(pair, tuple)
            for side, number in zip(_SIDES, pair, strict=True)
            if isinstance(number, Range)
        }

    def filled(self, prefix: str, numbers: dict[str, Any]) -> Any:
        """Return the value for a recipe, its searched numbers replaced by the drawn ones."""
        if not is_window_template(self.value):
            return self.value
        return tuple(
            tuple(numbers.get(f"{prefix}[{i}].{s}", n) for s, n in zip(_SIDES, pair, strict=True))
            if isinstance(pair, tuple)
            else pair
            for i, pair in enumerate(self.value)
        )


@dataclass(frozen=True)
class Choice:
    """One of several options; a choice of one option is a fixed value."""

    options: tuple[Option, ...]

    @property
    def labels(self) -> tuple[str, ...]:
        """The label of every option, in order."""
        return tuple(option.label for option in self.options)

    @property
    def n_values(self) -> float:
        """How many values there are, counting the numbers inside the options."""
        return sum(n_values_of(option) for option in self.options)


Domain = Real | Integer | Choice


def n_values_of(option: Option) -> float:
    """Return how many values an option stands for: 1, unless numbers inside it are searched."""
    return math.prod(inside.n_values for inside in option.ranges("").values())


def option_of(value: Any) -> Option:
    """Return the option for a value, with the label that follows from the value alone."""
    return Option(value, label_of(value))


def label_of(value: Any) -> str:
    """Return the label of a plain value, of none, of weights of labels or of a window set.

    Example:
        >>> label_of(1e-4), label_of(True), label_of((2.0, 1.0))
        ('0.0001', 'true', '2,1')
        >>> label_of(((40.0, 80.0), (80.0, Integer(90, 200))))
        '40/80+80/90..200'
    """
    if is_window_template(value):
        if all(is_number(number) for pair in value if isinstance(pair, tuple) for number in pair):
            name = window_set_name(resolve_windows(value))
            if "/" not in name:
                return name
        return "+".join("/".join(label_of(n) for n in pair) if isinstance(pair, tuple) else pair for pair in value)
    if isinstance(value, tuple):
        return ",".join(label_of(entry) for entry in value)
    if isinstance(value, Range):
        return f"{label_of(value.low)}..{label_of(value.high)}"
    if isinstance(value, bool | None):
        return str(value).lower()
    if isinstance(value, float) and value.is_integer() and abs(value) < 1e15:
        return str(int(value))
    return str(value)


def is_window_template(value: Any) -> bool:
    """Say whether an option's value is a window set: a tuple of (centre, width) and of ``dicom``."""
    is_window = (isinstance(entry, tuple) or entry == DICOM for entry in value) if isinstance(value, tuple) else ()
    return bool(value) and isinstance(value, tuple) and all(is_window)


def is_number(value: Any) -> bool:
    """Say whether a value is a finite number; true and false are none."""
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _check_range(low: Any, high: Any, log: bool, step: Any) -> None:
    for name, value in (("low", low), ("high", high)):
        if not is_number(value):
            raise ConfigError(f"{name} must be a number, got {value!r}")
    if not low < high:
        raise ConfigError(f"low must be less than high, got low {low:g} and high {high:g}; for one value write it bare")
    if log and low <= 0:
        raise ConfigError(f"log: true needs low above 0, got {low:g}")
    if step is None:
        return
    if not is_number(step) or step <= 0:
        raise ConfigError(f"step must be a number above 0, got {step!r}")
    if log:
        raise ConfigError(f"step and log: true exclude each other, got step {step:g}; leave one out")
    if not _on_grid(high, low, step):
        below = low + math.floor((high - low) / step) * step
        raise ConfigError(
            f"step {step:g} does not lead from low {low:g} to high {high:g}; set high to {below:g} or {below + step:g}"
        )


def _on_grid(value: float, low: float, step: float | None) -> bool:
    if step is None:
        return True
    n_steps = (value - low) / step
    return abs(n_steps - round(n_steps)) < STEP_TOLERANCE * max(1.0, abs(n_steps))
