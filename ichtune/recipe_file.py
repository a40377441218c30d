"""Recipe files: one run worth naming as YAML, read with every mistake reported where it stands."""

from typing import Any

from ichtune.errors import ConfigError
from ichtune.recipe import Recipe, recipe_keys
from ichtune.shipped import find_yaml
from ichtune.yaml_positions import YamlDocument, read_yaml

VERSION = 1


def read_recipe(name_or_path: str) -> Recipe:
    """Read one recipe; keys that the file leaves out take the recipe's defaults.

    Args:
        name_or_path: a YAML file, or the name of one in ``recipes/``.

    Raises:
        ConfigError: no such file, or the place, the key, what is wrong and the nearest valid name.

    >>> read_recipe("exp_00").architecture
    'efficientnet_b0'
    """
    document = read_yaml(find_yaml(name_or_path, "recipes"))
    if not isinstance(document.value, dict):
        raise document.error(f"a recipe maps keys to values; expected some of {', '.join(recipe_keys())}")
    document.check_keys(("version", *recipe_keys()))
    values = dict(document.value)
    version = values.pop("version", VERSION)
    if version != VERSION or isinstance(version, bool):
        raise document.error(f"this ichtune reads version {VERSION} of recipe files, got {version!r}", "version")
    error = _failure(values)
    if error is not None:
        raise _placed(document, values, error)
    return Recipe.from_dict(values)


def _placed(document: YamlDocument, values: dict[str, Any], error: ConfigError) -> ConfigError:
    """Blame the key without which the recipe would do; with several mistakes, the first that fails alone."""
    for key in values:
        if _failure({name: value for name, value in values.items() if name != key}) is None:
            return document.error(str(error), key)
    for key, value in values.items():
        alone = _failure({key: value})
        if alone is not None:
            return document.error(str(alone), key)
    return document.error(str(error))


def _failure(values: dict[str, Any]) -> ConfigError | None:
    try:
        Recipe.from_dict(values)
    except ConfigError as error:
        return error
    return None
