"""How many recipes a space has."""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from ichtune.space.conditions import is_active, parents_of
from ichtune.space.domains import Choice, n_values_of
from ichtune.space.model import Parameter, Space

#: Combinations of values that are looked at one by one, to count them or to find one that constraints allow.
MAX_ENUMERATED = 100_000


@dataclass(frozen=True)
class SpaceSize:
    """How many recipes a space has.

    Attributes:
        n: their number; infinite where a number is continuous.
        is_exact: whether that is their number; else they are no more than that.
    """

    n: float
    is_exact: bool = True

    @property
    def text(self) -> str:
        """The size in words.

        Example:
            >>> SpaceSize(1200).text, SpaceSize(1200, is_exact=False).text, SpaceSize(math.inf).text
            ('1,200 configurations', 'at most 1,200 configurations', 'a continuous space')
        """
        if math.isinf(self.n):
            return "a continuous space"
        count = f"{self.n:,.0f}" if self.n < 1e15 else f"{self.n:.1e}"
        return f"{'' if self.is_exact else 'at most '}{count} configuration{'' if self.n == 1 else 's'}"


def space_size(space: Space) -> SpaceSize:
    """Count the recipes of a space, conditions and constraints taken into account.

    Values that conditions and constraints ask about are looked at one by one, up to ``MAX_ENUMERATED`` combinations;
    of more, constraints or all are left out of account, and the count is an upper bound.
    """
    parents = {name for parameter in space.parameters for name in parents_of(parameter.when)}
    constrained = {name for constraint in space.constraints for name in constraint.parameters}
    if n_branches(space, parents | constrained) <= MAX_ENUMERATED:
        return SpaceSize(_count(space, space.ordered, parents | constrained, {}))
    if constrained and n_branches(space, parents) <= MAX_ENUMERATED:
        return SpaceSize(_count(space, space.ordered, parents, {}), is_exact=False)
    return SpaceSize(math.prod(parameter.domain.n_values for parameter in space.parameters), is_exact=False)


def n_branches(space: Space, keys: set[str]) -> float:
    """Return how many combinations of values of some parameters there are, conditions left out of account."""
    return math.prod(_n_labels(parameter) for parameter in space.parameters if parameter.key in keys)


def plain_combinations(space: Space) -> Iterator[dict[str, Any]]:
    """Yield the plain values of every combination of active parameters; ``n_branches`` says beforehand how many."""
    return _combinations(space.ordered, {})


def _n_labels(parameter: Parameter) -> float:
    return len(parameter.domain.options) if isinstance(parameter.domain, Choice) else parameter.domain.n_values


def _plain_values(parameter: Parameter) -> list[tuple[Any, float]]:
    """Return each plain value of a parameter that can be enumerated, and how many values it stands for."""
    if isinstance(parameter.domain, Choice):
        return [(option.plain, n_values_of(option)) for option in parameter.domain.options]
    return [(value, 1) for value in parameter.domain.values()]


def _combinations(parameters: tuple[Parameter, ...], plain: dict[str, Any]) -> Iterator[dict[str, Any]]:
    if not parameters:
        yield plain
        return
    first, rest = parameters[0], parameters[1:]
    if not is_active(first.when, plain):
        yield from _combinations(rest, plain)
        return
    for value, _ in _plain_values(first):
        yield from _combinations(rest, {**plain, first.key: value})


def _count(space: Space, parameters: tuple[Parameter, ...], asked: set[str], plain: dict[str, Any]) -> float:
    """Count what the parameters from here on can be; those that are ``asked`` about are gone through by value."""
    if not parameters:
        return 0 if space.violated(plain) else 1
    first, rest = parameters[0], parameters[1:]
    if not is_active(first.when, plain):
        return _count(space, rest, asked, plain)
    if first.key not in asked:
        below = _count(space, rest, asked, plain)
        return first.domain.n_values * below if below else 0
    total = 0.0
    for value, n in _plain_values(first):
        below = _count(space, rest, asked, {**plain, first.key: value})
        total += n * below if below else 0
    return total
