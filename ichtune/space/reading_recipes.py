"""Reading the recipes of a space: the one that it is based on, and those that are tried first."""

from typing import Any

from ichtune.errors import ConfigError
from ichtune.second_level_recipe import AnyRecipe
from ichtune.space.conditions import is_active, parents_of
from ichtune.space.domains import Choice
from ichtune.space.including import find_beside
from ichtune.space.levels import Level, level_of, told_values
from ichtune.space.model import Space
from ichtune.space.proposals import fixed_values, plain_value
from ichtune.space.reading_parameters import start_value
from ichtune.space.settings import SettingError
from ichtune.yaml_positions import Keys, YamlDocument


def read_base(document: YamlDocument) -> AnyRecipe | None:
    """Read the recipe that gives every key which is no parameter: a name, a file, or keys and values.

    Args:
        document: the file.

    Raises:
        ConfigError: no such recipe, or values that it cannot have; with file, line, column and key.
    """
    written = document.get("base")
    if written is None:
        return None
    if isinstance(written, str):
        return _named_recipe(document, ("base",))
    if not isinstance(written, dict):
        raise document.error(f"must be a recipe's name or file, or map keys to values, got {written!r}", "base")
    level = level_of(document)
    document.check_keys(level.keys, "base")
    values = {key: start_value(document, key, ("base", key)) for key in written}
    try:
        return level.build(values)
    except ConfigError as error:
        alone = next((key for key in values if _failure(level, {key: values[key]})), None)
        if alone is None:
            raise document.error(str(error), "base") from None
        raise document.error(str(_failure(level, {alone: values[alone]})), "base", alone) from None


def read_starts(document: YamlDocument, space: Space) -> tuple[dict[str, Any], ...]:
    """Read the recipes that are tried first: keys and values, or the name or the file of a recipe.

    Args:
        document: the file.
        space: the space without them.

    Returns:
        Values by parameter; of a named recipe those of the searched parameters that are active in it.

    Raises:
        ConfigError: a recipe that the space does not hold; with file, line, column and key.
    """
    written = document.get("start_with")
    if written is None:
        return ()
    if not isinstance(written, list):
        raise document.error(f"must be a list of recipes, as in `- {{lr: 3e-4}}`, got {written!r}", "start_with")
    starts = [_start(document, space, ("start_with", i)) for i in range(len(written))]
    for i, start in enumerate(starts):
        broken = _broken(space, start)
        if broken:
            raise document.error(f"is against a constraint of this space: {broken}", "start_with", i)
    return tuple(starts)


def _start(document: YamlDocument, space: Space, at: Keys) -> dict[str, Any]:
    written = document.get(*at)
    if isinstance(written, str):
        recipe = _named_recipe(document, at)
        try:
            start = _start_of(space, recipe)
            fixed_values(space, start)
        except SettingError as error:
            raise document.error(f"{error.key} of recipe {written!r}: {error}", *at) from None
        return start
    if not isinstance(written, dict) or not written:
        raise document.error(f"must map parameters to values, or name a recipe, got {written!r}", *at)
    start = {key: start_value(document, key, (*at, key)) for key in written}
    try:
        fixed_values(space, start)
    except SettingError as error:
        raise document.error(str(error), *at, error.key) from None
    except ConfigError as error:
        raise document.error(str(error), *at) from None
    return start


def _start_of(space: Space, recipe: AnyRecipe) -> dict[str, Any]:
    """Return a recipe's values of the searched parameters that are active in it.

    Raises:
        SettingError: the space does not hold one of them.
    """
    told = told_values(recipe)
    start: dict[str, Any] = {}
    plain: dict[str, Any] = {}
    for parameter in space.ordered:
        if is_active(parameter.when, plain):
            if not parameter.is_fixed:
                start[parameter.key] = told.get(parameter.key)
            plain[parameter.key] = plain_value(parameter, told.get(parameter.key))
    return start


def _broken(space: Space, start: dict[str, Any]) -> str | None:
    """Return what constraint a start breaks, whatever the parameters will be that it does not name."""
    plain: dict[str, Any] = {}
    unknown: set[str] = set()
    for parameter in space.ordered:
        key, domain = parameter.key, parameter.domain
        is_single = isinstance(domain, Choice) and len(domain.options) == 1
        if unknown & set(parents_of(parameter.when)):
            unknown.add(key)
        elif is_active(parameter.when, plain):
            if key in start or is_single:
                plain[key] = plain_value(parameter, start.get(key))
            else:
                unknown.add(key)
    decided = (one for one in space.constraints if not unknown & set(one.parameters))
    return next(filter(None, (constraint.violated(plain) for constraint in decided)), None)


def _named_recipe(document: YamlDocument, at: Keys) -> AnyRecipe:
    name, source = document.get(*at), document.source(*at)[0]
    try:
        return level_of(document).read(str(find_beside(name, source.path.parent, "recipes")))
    except ConfigError as error:
        raise document.error(str(error), *at) from None


def _failure(level: Level, values: dict[str, Any]) -> ConfigError | None:
    try:
        level.build(values)
    except ConfigError as error:
        return error
    return None
