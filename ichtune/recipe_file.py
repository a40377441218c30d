"""Recipe files: one run worth naming as YAML, read with every mistake reported where it stands.

The key ``level: 2`` makes it a recipe of the second level.
"""

import re
from pathlib import Path
from typing import Any

from ichtune.errors import ConfigError
from ichtune.recipe import ID_DIGITS, Recipe, recipe_keys
from ichtune.second_level_recipe import LEVEL, AnyRecipe, SecondLevelRecipe, recipe_from_dict, second_level_keys
from ichtune.shipped import find_yaml
from ichtune.yaml_positions import YamlDocument, read_yaml

VERSION = 1
#: Keys whose value is another recipe.
RECIPE_REFERENCES = ("warm_start", "pseudo_labels")
#: Recipes that refer to recipes that refer to recipes: deeper than this is a circle.
_MAX_DEPTH = 16


class _CircleError(ConfigError):
    """Recipes that refer to each other; not to be given a place in each of their files."""


def read_recipe(name_or_path: str, _depth: int = 0) -> Recipe:
    """Read one recipe of a network; keys that the file leaves out take the recipe's defaults.

    Where it names another recipe (``warm_start``, ``pseudo_labels``), that one's recipe_id takes the name's place, so
    that the id of a chain changes with each of its links. Files that it names are looked for beside it first.

    Args:
        name_or_path: a YAML file, or the name of one in ``recipes/``.

    Raises:
        ConfigError: no such file, or the place, the key, what is wrong and the nearest valid name; or a recipe of the
            second level.

    >>> read_recipe("exp_00").architecture
    'efficientnet_b0'
    """
    recipe = read_any_recipe(name_or_path, _depth)
    if not isinstance(recipe, Recipe):
        raise ConfigError(
            f"recipe {name_or_path!r} is of the second level, which learns from runs and not from slices; train it "
            f"with `ichtune stack --recipe {name_or_path}`, or name another here"
        )
    return recipe


def read_second_level_recipe(name_or_path: str) -> SecondLevelRecipe:
    """Read one recipe of the second level, ``level: 2``; see ``read_recipe``.

    Raises:
        ConfigError: as ``read_recipe``; or a recipe of a network.

    >>> read_second_level_recipe("level2_gru").model
    'gru'
    """
    recipe = read_any_recipe(name_or_path)
    if not isinstance(recipe, SecondLevelRecipe):
        raise ConfigError(
            f"recipe {name_or_path!r} is of a network, and has no `level: {LEVEL}`; train it with `ichtune train "
            f"--recipe {name_or_path}`, or name another here"
        )
    return recipe


def read_any_recipe(name_or_path: str, _depth: int = 0) -> AnyRecipe:
    """Read one recipe of either level; see ``read_recipe``.

    Raises:
        ConfigError: no such file, or the place, the key, what is wrong and the nearest valid name.
    """
    path = find_yaml(name_or_path, "recipes")
    document = read_yaml(path)
    if not isinstance(document.value, dict):
        raise document.error(f"a recipe maps keys to values; expected some of {', '.join(recipe_keys())}")
    level = document.value.get("level", 1)
    if level not in (1, LEVEL) or isinstance(level, bool):
        raise document.error(
            f"must be 1 (a network, the default) or {LEVEL} (learns from runs), got {level!r}", "level"
        )
    document.check_keys(("version", "level", *(second_level_keys() if level == LEVEL else recipe_keys())))
    values = dict(document.value)
    version = values.pop("version", VERSION)
    if version != VERSION or isinstance(version, bool):
        raise document.error(f"this ichtune reads version {VERSION} of recipe files, got {version!r}", "version")
    _resolve(document, values, path.parent, _depth)
    failure = _failure(values)
    if failure is not None:
        raise _placed(document, values, failure)
    return recipe_from_dict(values)


def _resolve(document: YamlDocument, values: dict[str, Any], folder: Path, depth: int) -> None:
    """Put what the file names in its place: paths of files, and recipe_ids of other recipes."""
    if isinstance(values.get("members"), list):
        values["members"] = [_member(document, one, folder, place) for place, one in enumerate(values["members"])]
    if isinstance(values.get("pretrained"), str):
        values["pretrained"] = resolve_file(values["pretrained"], folder)
    for key in RECIPE_REFERENCES:
        if isinstance(values.get(key), str):
            try:
                values[key] = resolve_reference(values[key], folder, depth + 1)
            except _CircleError:
                raise
            except ConfigError as error:
                raise document.error(str(error), key) from None


def _member(document: YamlDocument, value: Any, folder: Path, place: int) -> Any:
    try:
        return resolve_reference(value, folder) if isinstance(value, str) else value
    except ConfigError as error:
        raise document.error(str(error), "members", place) from None


def resolve_file(value: str, folder: Path) -> str:
    """Return the absolute path of a file that a YAML file names: beside that file if it is there, else from here.

    Workers of a cluster have another current folder than the person who wrote the name.
    """
    beside = folder / value
    return str((beside if beside.is_file() else Path(value)).absolute())


def resolve_reference(value: str, folder: Path, _depth: int = 0) -> str:
    """Return what a recipe's key that names another recipe comes to: its recipe_id, or the value as it is.

    Args:
        value: the name of a shipped recipe, the path of a recipe's YAML file, a recipe_id, or the path of a file with
            weights (``.safetensors``) or predictions (``.parquet``); empty for none.
        folder: of the YAML file that names it, where files are looked for first.

    Raises:
        ConfigError: nothing of the kind.
    """
    if not value or re.fullmatch(rf"[0-9a-f]{{{ID_DIGITS}}}", value):
        return value
    if value.endswith((".safetensors", ".parquet")):
        return resolve_file(value, folder)
    if _depth > _MAX_DEPTH:
        raise _CircleError(f"recipes refer to each other in a circle, at {value!r}; let the first start from nothing")
    beside = folder / value
    return read_recipe(str(beside) if beside.is_file() else value, _depth).recipe_id


def _placed(document: YamlDocument, values: dict[str, Any], error: ConfigError) -> ConfigError:
    """Blame the key without which the recipe would do; with several mistakes, the first that fails alone."""
    level = {key: value for key, value in values.items() if key == "level"}
    for key in values:
        if key not in level and _failure({name: value for name, value in values.items() if name != key}) is None:
            return document.error(str(error), key)
    for key, value in values.items():
        alone = _failure({**level, key: value})
        if alone is not None:
            return document.error(str(alone), key)
    return document.error(str(error))


def _failure(values: dict[str, Any]) -> ConfigError | None:
    try:
        recipe_from_dict(values)
    except ConfigError as error:
        return error
    return None
