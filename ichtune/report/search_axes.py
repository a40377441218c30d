"""Axes of searched parameters: what each ranges over, and where a value lies on it."""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

#: A label longer than this is cut on an axis.
MAX_LABEL = 20
#: Numbers on a grid of at most so many steps are drawn as if they were names: dots on them are spread out.
MAX_GRID = 12


@dataclass(frozen=True)
class Axis:
    """One searched parameter.

    Attributes:
        name: its flat name.
        low: least number, 0 for a choice.
        high: largest number, the last option's place for a choice.
        log: whether it was searched on a logarithmic scale.
        options: labels of a choice, in order; empty for a number.
        step: distance of one number to the next; 0 where there is none.
    """

    name: str
    low: float
    high: float
    log: bool = False
    options: tuple[str, ...] = ()
    step: float = 0.0

    def number(self, value: Any) -> float | None:
        """Return a value as a number: itself, or the place of its option; None where it is not on the axis."""
        if self.options:
            return float(self.options.index(str(value))) if str(value) in self.options else None
        is_number = isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
        return float(value) if is_number else None

    def share(self, value: Any) -> float | None:
        """Return how far along the axis a value lies, 0 to 1; None where it is not on the axis."""
        number = self.number(value)
        if number is None:
            return None
        low, high = (math.log(self.low), math.log(self.high)) if self.log else (self.low, self.high)
        at = math.log(number) if self.log else number
        return min(max((at - low) / (high - low), 0.0), 1.0) if high > low else 0.5

    @property
    def spread(self) -> float:
        """By how much dots with one value may be moved apart without reaching the next value; 0 for plain numbers."""
        if self.options:
            return 0.5
        on_grid = self.step and not self.log and self.high - self.low <= MAX_GRID * self.step
        return 0.3 * self.step if on_grid else 0.0

    @property
    def grid(self) -> list[float]:
        """The numbers of a short grid; empty where there is none."""
        n_steps = round((self.high - self.low) / self.step) if self.spread and not self.options else 0
        return [self.low + place * self.step for place in range(n_steps + 1)] if n_steps else []

    @property
    def ticks(self) -> list[tuple[float, str]]:
        """Shares along the axis and what to write there: every option, or both ends."""
        if self.options:
            last = max(1, len(self.options) - 1)
            return [
                (place / last if len(self.options) > 1 else 0.5, option) for place, option in enumerate(self.options)
            ]
        return [(0.0, f"{self.low:.3g}"), (1.0, f"{self.high:.3g}")]


def short_label(text: str, most: int = MAX_LABEL) -> str:
    """Cut a label that is too long for an axis in its middle: names of one family differ at their ends."""
    head = (most - 1) // 2
    return text if len(text) <= most else f"{text[:head]}…{text[head + 1 - most :]}"


def read_axes(distributions: Sequence[Mapping[str, str]], params: Sequence[Mapping[str, Any]]) -> tuple[Axis, ...]:
    """Return the axes of all parameters that took more than one value, in the order in which they come.

    Args:
        distributions: of each trial, by parameter, as Optuna writes them in JSON.
        params: of each trial, by parameter.
    """
    texts: dict[str, str] = {}
    for one in distributions:
        for name, text in one.items():
            texts.setdefault(name, text)
    values: dict[str, set[Any]] = {}
    for trial in params:
        for name, value in trial.items():
            values.setdefault(name, set()).add(value)
    return tuple(_axis(name, json.loads(text)) for name, text in texts.items() if len(values.get(name, ())) > 1)


def _axis(name: str, told: Mapping[str, Any]) -> Axis:
    about = told["attributes"]
    if "choices" in about:
        options = tuple(str(choice) for choice in about["choices"])
        return Axis(name, 0.0, float(len(options) - 1), options=options)
    step = float(about.get("step") or 0.0)
    return Axis(name, float(about["low"]), float(about["high"]), bool(about.get("log")), step=step)
