"""The corners of a space: every option and bound beside the extremes of the others, for checks before a search."""

from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass, replace
from itertools import islice, product
from typing import Any

from ichtune.errors import ConfigError
from ichtune.recipe import Recipe
from ichtune.space.conditions import parents_of
from ichtune.space.domains import Choice, label_of
from ichtune.space.model import Parameter, Space
from ichtune.space.proposals import draw_values, option_ranges
from ichtune.yaml_positions import Keys

#: Of more combinations of values than this, the rest is not looked at.
MAX_COMBINATIONS = 20_000


@dataclass(frozen=True)
class _Corner:
    """A chooser that answers with the first or last of everything, but for the answers it is given."""

    answers: dict[str, Any]
    last: bool

    def categorical(self, name: str, choices: tuple[str, ...]) -> str:
        return self.answers.get(name, choices[-1 if self.last else 0])

    def real(self, name: str, low: float, high: float, *, log: bool, step: float | None) -> float:
        return self.answers.get(name, high if self.last else low)

    def integer(self, name: str, low: int, high: int, *, log: bool, step: int) -> int:
        return self.answers.get(name, high if self.last else low)


def candidates(parameter: Parameter) -> Iterator[tuple[dict[str, Any], Any, tuple[str, str]]]:
    """Yield each option and bound: the answers that lead to it, the recipe's value, and what place it has."""
    key, domain = parameter.key, parameter.domain
    if not isinstance(domain, Choice):
        for side, bound in (("low", domain.low), ("high", domain.high)):
            yield {key: bound}, bound, (key, side)
        return
    for i, option in enumerate(domain.options):
        ranges = option_ranges(key, domain, option)
        lows = {name: inside.low for name, inside in ranges.items()}
        yield {key: option.label} | lows, option.filled(f"{key}[{i}]", lows), (key, option.label)
        for name, inside in ranges.items():
            for side, bound in (("low", inside.low), ("high", inside.high)):
                numbers = {**lows, name: bound}
                yield {key: option.label} | numbers, option.filled(f"{key}[{i}]", numbers), (name, side)


def failure(values: dict[str, Any], check: Callable[[Recipe], object] | None = None) -> ConfigError | None:
    """Return why no recipe can be built from the values, or why it does not pass the check; None if it does."""
    try:
        recipe = Recipe.from_dict(values)
        if check is not None:
            check(recipe)
    except ConfigError as error:
        return error
    return None


def check_corners(space: Space, check: Callable[[Recipe], object] | None = None) -> None:
    """Try each option and bound with the others at their lowest and highest, conditions as they are.

    Args:
        space: the space.
        check: raises ConfigError for a recipe that cannot be trained; None: that it can be built is enough.

    Raises:
        ConfigError: values that exclude each other, where the one stands without which the rest would do.
    """
    for parameter in space.parameters:
        for answers, _, place in candidates(parameter):
            for last in (False, True):
                _, values = draw_values(space, _Corner(answers, last))
                error = failure(values, check)
                if error is not None:
                    message = f"excludes other values of this space: {error}; narrow one of them, or give one a `when`"
                    own = parameter.key, space.places.get(place, ("parameters", parameter.key))
                    raise space.error(message, *_blamed(space, own, values, check))


def _blamed(
    space: Space, own: tuple[str, Keys], values: dict[str, Any], check: Callable[[Recipe], object] | None
) -> Keys:
    """Return the place of a value whose default would do no harm; the one that is tried, ``own``, comes first."""
    own_key, own_place = own
    for key in dict.fromkeys((own_key, *values)):
        if failure({name: value for name, value in values.items() if name != key}, check) is None:
            found = space.places.get((key, label_of(values[key])), ("parameters", key))
            return own_place if key == own_key else found
    return own_place


def combinations(space: Space, keys: Collection[str]) -> list[dict[str, Any]]:
    """Return which values of some keys meet in one recipe, by the conditions of the space.

    Of a range its bounds stand for all, and the numbers that conditions compare it with. Each combination does occur;
    one that needs a number between those, or lies beyond ``MAX_COMBINATIONS``, is left out.

    Args:
        space: the space.
        keys: keys of the recipe.

    Returns:
        Each combination once: the values of those keys that are active parameters in it. The others are at the recipe's
        defaults.
    """
    wanted = set(keys)
    for parameter in reversed(space.ordered):
        if parameter.key in wanted:
            wanted.update(parents_of(parameter.when))
    part = replace(space, parameters=tuple(p for p in space.parameters if p.key in wanted))
    found: dict[tuple[tuple[str, Any], ...], None] = {}
    for chosen in islice(product(*(_answers(p, part) for p in part.parameters)), MAX_COMBINATIONS):
        answers = {name: answer for one in chosen for name, answer in one.items()}
        _, values = draw_values(part, _Corner(answers, last=False))
        found[tuple((key, values[key]) for key in keys if key in values)] = None
    return [dict(pairs) for pairs in found]


def _answers(parameter: Parameter, space: Space) -> list[dict[str, Any]]:
    answers = [given for given, _, _ in candidates(parameter)]
    domain = parameter.domain
    if isinstance(domain, Choice):
        return answers
    for test in (test for other in space.parameters for tests in other.when for test in tests):
        if test.parent == parameter.key:
            operands = test.operand if isinstance(test.operand, tuple) else (test.operand,)
            answers += [{parameter.key: operand} for operand in operands if domain.contains(operand)]
    return answers
