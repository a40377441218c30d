"""``members: all`` in a space of the second level, made explicit: the runs that there are when a search begins."""

from collections.abc import Sequence
from dataclasses import replace

from ichtune.second_level_recipe import ALL, SecondLevelRecipe
from ichtune.space.conditions import Condition, Test
from ichtune.space.constraints import Constraint
from ichtune.space.domains import Choice, Option, label_of, option_of
from ichtune.space.model import Parameter, Space

KEY = "members"


def learns_from_all(space: Space) -> bool:
    """Say whether a space of the second level asks anywhere for every run that there is."""
    parameter = space.parameter(KEY)
    asks = parameter is not None and any(value == ALL for value in _values(parameter))
    return asks or ((parameter is None or bool(parameter.when)) and _of_default(space) == ALL)


def members_named(space: Space) -> set[str]:
    """Return the recipe_ids of every run that a space of the second level names."""
    parameter = space.parameter(KEY)
    named = [*(_values(parameter) if parameter else ()), _of_default(space)]
    return {recipe_id for value in named if value != ALL for recipe_id in value}


def with_members(space: Space, recipe_ids: Sequence[str]) -> Space:
    """Return a space of the second level that names the runs wherever it says ``all``.

    A space that names the same runs itself has the same ``space_id``.

    Args:
        space: the space.
        recipe_ids: of every run that there is, in any order.
    """
    if not learns_from_all(space):
        return space
    ids = tuple(sorted(recipe_ids))
    told = space.parameter(KEY)
    parameters = [_explicit(parameter, ids) for parameter in space.parameters]
    if told is None:
        parameters.append(Parameter(KEY, Choice((option_of(ids),))))
    base = space.base
    if told is not None and told.when and _of_default(space) == ALL:
        base = replace(_second(space), members=ids)
    places = {(KEY, label_of(ids)): place for asked, place in space.places.items() if asked == (KEY, ALL)}
    return replace(
        space,
        parameters=tuple(parameters),
        base=base,
        constraints=tuple(Constraint(_tests(c.must, ids), _condition(c.when, ids)) for c in space.constraints),
        start_with=tuple(start | ({KEY: ids} if start.get(KEY) == ALL else {}) for start in space.start_with),
        places={**space.places, **places},
    )


def _second(space: Space) -> SecondLevelRecipe:
    default = space.default
    if not isinstance(default, SecondLevelRecipe):
        raise TypeError(f"space {space.name!r} is none of the second level")
    return default


def _of_default(space: Space) -> str | tuple[str, ...]:
    return _second(space).members


def _values(parameter: Parameter) -> list[str | tuple[str, ...]]:
    return [option.value for option in parameter.domain.options] if isinstance(parameter.domain, Choice) else []


def _explicit(parameter: Parameter, ids: tuple[str, ...]) -> Parameter:
    when = _condition(parameter.when, ids)
    if parameter.key != KEY:
        return replace(parameter, when=when)
    options: dict[str, Option] = {}
    for value in _values(parameter):
        option = option_of(ids if value == ALL else value)
        options.setdefault(option.label, option)  # `all` may be what another choice names
    return Parameter(KEY, Choice(tuple(options.values())), when)


def _condition(condition: Condition, ids: tuple[str, ...]) -> Condition:
    return tuple(_tests(tests, ids) for tests in condition)


def _tests(tests: tuple[Test, ...], ids: tuple[str, ...]) -> tuple[Test, ...]:
    return tuple(replace(test, operand=_operand(test, label_of(ids))) for test in tests)


def _operand(test: Test, label: str) -> object:
    if test.parent != KEY:
        return test.operand
    if isinstance(test.operand, tuple):
        return tuple(label if one == ALL else one for one in test.operand)
    return label if test.operand == ALL else test.operand
