"""The corners of a space: every option and bound beside the extremes of the others, for checks before a search."""

from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass
from itertools import islice, product
from typing import Any

from ichtune.errors import ConfigError
from ichtune.second_level_recipe import AnyRecipe
from ichtune.space.conditions import Reference, Test
from ichtune.space.counting import MAX_ENUMERATED, n_branches, plain_combinations
from ichtune.space.domains import Choice, label_of
from ichtune.space.model import Parameter, Space
from ichtune.space.proposals import Draw, draw_values, option_ranges
from ichtune.space.sampling import RandomChooser
from ichtune.yaml_positions import Keys

#: Of more combinations of values than this, the rest is not looked at.
MAX_COMBINATIONS = 20_000
#: Random draws that look for values which a constraint allows beside a given one.
N_COMPLETIONS = 100
#: Random draws after which constraints that none of them satisfies are said to leave nothing.
N_SAMPLES = 2000


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


def failure(
    space: Space, values: dict[str, Any], check: Callable[[AnyRecipe], object] | None = None
) -> ConfigError | None:
    """Return why no recipe can be built from the values, or why it does not pass the check; None if it does."""
    try:
        recipe = space.recipe(values)
        if check is not None:
            check(recipe)
    except ConfigError as error:
        return error
    return None


def allowed_draw(space: Space, answers: dict[str, Any], *, last: bool) -> Draw | None:
    """Return the values of a space beside some given ones: the first or the last of all others, or any that will do.

    Args:
        space: the space.
        answers: what is given, as a chooser would answer.
        last: whether the last of all others is tried, and not the first.

    Returns:
        None where nothing was found that the constraints of the space allow.
    """
    drawn = draw_values(space, _Corner(answers, last))
    for seed in range(N_COMPLETIONS):
        if space.violated(drawn.plain) is None:
            return drawn
        drawn = draw_values(space, RandomChooser(seed, answers))
    return None


def check_alone(space: Space) -> None:
    """Try each option and bound in a recipe beside defaults, and beside values of the others.

    Raises:
        ConfigError: a value with which no recipe can be built, where it stands.
    """
    ends = [{p.key: list(candidates(p))[end][1] for p in space.parameters} for end in (0, -1)]
    fixed = {p.key: next(candidates(p))[1] for p in space.parameters if p.is_fixed}
    for parameter in space.parameters:
        for answers, value, place in candidates(parameter):
            drawn = allowed_draw(space, answers, last=False) if space.constraints else None
            beside = [{}, fixed, *ends, *([drawn.values] if drawn else [])]
            errors = [failure(space, {**others, parameter.key: value}) for others in beside]
            if all(errors):
                raise space.error(str(errors[0]), *space.places.get(place, ("parameters", parameter.key)))


def check_constraints(space: Space) -> None:
    """Look for values that the constraints of a space allow: one by one where they can be counted, else at random.

    Raises:
        ConfigError: nothing satisfies one of the constraints, where it stands, or all of them together.
    """
    if not space.constraints:
        return
    part = space.part({name for constraint in space.constraints for name in constraint.parameters})
    points = list(_points(part))
    for i, constraint in enumerate(space.constraints):
        if all(constraint.violated(point) for point in points):
            why = f"leaves nothing to search: no recipe of this space satisfies it, {constraint.violated(points[0])}"
            raise space.error(why, "constraints", i)
    if all(part.violated(point) for point in points):
        raise space.error(
            f"leave nothing to search: of {len(points):,} combinations none satisfies them all; loosen one",
            "constraints",
        )


def _points(space: Space) -> Iterator[dict[str, Any]]:
    """Yield plain values of the parameters: every combination, or the corners and some at random."""
    if n_branches(space, {parameter.key for parameter in space.parameters}) <= MAX_ENUMERATED:
        yield from plain_combinations(space)
        return
    for parameter in space.parameters:
        for answers, _, _ in candidates(parameter):
            for last in (False, True):
                yield draw_values(space, _Corner(answers, last)).plain
    chooser = RandomChooser(seed=0)
    for _ in range(N_SAMPLES):
        yield draw_values(space, chooser).plain


def check_corners(space: Space, check: Callable[[AnyRecipe], object] | None = None) -> None:
    """Try each option and bound with the others at their lowest and highest, conditions and constraints as they are.

    Args:
        space: the space.
        check: raises ConfigError for a recipe that cannot be trained; None: that it can be built is enough.

    Raises:
        ConfigError: values that exclude each other, where the one stands without which the rest would do.
    """
    for parameter in space.parameters:
        for answers, _, place in candidates(parameter):
            for last in (False, True):
                drawn = allowed_draw(space, answers, last=last)
                error = failure(space, drawn.values, check) if drawn else None
                if drawn and error is not None:
                    message = (
                        f"excludes other values of this space: {error}; narrow one of them, give one a `when`, or say "
                        f"under `constraints` what they must hold"
                    )
                    own = parameter.key, space.places.get(place, ("parameters", parameter.key))
                    raise space.error(message, *_blamed(space, own, drawn.values, check))


def _blamed(
    space: Space, own: tuple[str, Keys], values: dict[str, Any], check: Callable[[AnyRecipe], object] | None
) -> Keys:
    """Return the place of a value whose default would do no harm; the one that is tried, ``own``, comes first."""
    own_key, own_place = own
    for key in dict.fromkeys((own_key, *values)):
        if failure(space, {name: value for name, value in values.items() if name != key}, check) is None:
            found = space.places.get((key, label_of(values[key])), ("parameters", key))
            return own_place if key == own_key else found
    return own_place


def combinations(space: Space, keys: Collection[str]) -> list[dict[str, Any]]:
    """Return which values of some keys meet in one recipe, by the conditions and constraints of the space.

    Of a range its bounds stand for all, and the numbers that conditions and constraints compare it with. Each
    combination does occur; one that needs a number between those, or lies beyond ``MAX_COMBINATIONS``, is left out.

    Args:
        space: the space.
        keys: keys of the recipe.

    Returns:
        Each combination once: the values of those keys that are active parameters in it. The others are as in the
        space's ``default`` recipe.
    """
    part = space.part(keys)
    found: dict[tuple[tuple[str, Any], ...], None] = {}
    for chosen in islice(product(*(_answers(p, part) for p in part.parameters)), MAX_COMBINATIONS):
        answers = {name: answer for one in chosen for name, answer in one.items()}
        drawn = draw_values(part, _Corner(answers, last=False))
        if part.violated(drawn.plain) is None:
            found[tuple((key, drawn.values[key]) for key in keys if key in drawn.values)] = None
    return [dict(pairs) for pairs in found]


def _answers(parameter: Parameter, space: Space) -> list[dict[str, Any]]:
    answers = [given for given, _, _ in candidates(parameter)]
    domain = parameter.domain
    if isinstance(domain, Choice):
        return answers
    for test in _tests_of(space):
        if test.parent == parameter.key and not isinstance(test.operand, Reference):
            operands = test.operand if isinstance(test.operand, tuple) else (test.operand,)
            answers += [{parameter.key: operand} for operand in operands if domain.contains(operand)]
    return answers


def _tests_of(space: Space) -> Iterator[Test]:
    """Yield every test that a condition or a constraint of a space makes."""
    conditions = [parameter.when for parameter in space.parameters]
    conditions += [(constraint.must, *constraint.when) for constraint in space.constraints]
    return (test for condition in conditions for tests in condition for test in tests)
