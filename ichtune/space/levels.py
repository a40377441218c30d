"""The levels of recipes that a space may search, and what each lets a space say.

Level 1 are networks that learn from slices, level 2 are models that learn from the predictions of other runs. The key
``level`` of a space's file decides which recipe its parameters are keys of; everything else of the grammar is one.
"""

from collections.abc import Mapping
from dataclasses import Field, dataclass, fields
from functools import cached_property
from typing import Any

from ichtune.errors import ConfigError
from ichtune.recipe import Recipe
from ichtune.recipe_file import RECIPE_REFERENCES, read_any_recipe
from ichtune.second_level_recipe import AnyRecipe, SecondLevelRecipe
from ichtune.space.settings import FIDELITIES, JUDGES
from ichtune.yaml_positions import YamlDocument

KEY = "level"


@dataclass(frozen=True)
class Level:
    """What a space may say at one level.

    Attributes:
        number: as ``level`` says it.
        recipe: class of the recipes that are searched.
        what: its recipes, in words.
        judges: by which rungs may judge, of ``JUDGES``.
        fidelities: what rungs may give more of, of ``FIDELITIES``.
        gpu: GPUs a trial gets where the space does not say; 0: trials compute on CPU cores alone.
    """

    number: int
    recipe: type[Recipe] | type[SecondLevelRecipe]
    what: str
    judges: tuple[str, ...] = JUDGES
    fidelities: tuple[str, ...] = FIDELITIES
    gpu: float = 1.0

    @cached_property
    def specs(self) -> "dict[str, Field[Any]]":
        """The declaration of every key of the recipe, in order."""
        return {spec.name: spec for spec in fields(self.recipe)}

    @property
    def keys(self) -> tuple[str, ...]:
        """Every key of the recipe, in order: the parameters that a space may vary."""
        return tuple(self.specs)

    def kind(self, key: str) -> str:
        """Return what kind of value a key has, as ``ichtune.recipe_fields`` calls it; empty for an unknown key."""
        return str(self.specs[key].metadata["kind"]) if key in self.specs else ""

    @cached_property
    def optional(self) -> tuple[str, ...]:
        """Keys that may be None, written as nothing, ``null`` or, as tables show it, ``none``."""
        return tuple(key for key, spec in self.specs.items() if spec.default is None)

    @cached_property
    def rewritten(self) -> tuple[str, ...]:
        """Keys whose value is held in another form than it may be written in, window sets and weights apart."""
        return (*self.optional, *(key for key in _REWRITTEN if key in self.specs))

    def build(self, values: Mapping[str, Any]) -> AnyRecipe:
        """Build a recipe from plain values; absent keys take the defaults.

        Raises:
            ConfigError: an unknown key, or values that it cannot have.
        """
        return self.recipe.from_dict(values)

    def read(self, name_or_path: str) -> AnyRecipe:
        """Read a recipe of this level by its name or from its file.

        Raises:
            ConfigError: there is none, it is wrong, or of another level.
        """
        recipe = read_any_recipe(name_or_path)
        if not isinstance(recipe, self.recipe):
            raise ConfigError(f"recipe {name_or_path!r} is none of level {self.number}, {self.what}; name one of these")
        return recipe


def told_values(recipe: AnyRecipe) -> dict[str, Any]:
    """Return a recipe's values by key in the form in which the choices of a space hold them."""
    augmentation = getattr(recipe, "augmentation", None)
    return recipe.to_dict() | ({} if augmentation is None else {"augmentation": augmentation})


def level_of(document: YamlDocument) -> Level:
    """Return the level of which a space's file speaks; the first by default.

    Raises:
        ConfigError: it is none that there is; with file, line and column.
    """
    written = document.value.get(KEY, 1)
    if isinstance(written, bool) or not isinstance(written, int) or written not in LEVELS:
        known = " or ".join(f"{level.number} ({level.what})" for level in LEVELS.values())
        raise document.error(f"must be {known}, got {written!r}", KEY)
    return LEVELS[written]


def level_of_recipe(recipe: AnyRecipe) -> Level:
    """Return the level of a recipe."""
    return next(level for level in LEVELS.values() if isinstance(recipe, level.recipe))


_REWRITTEN = ("augmentation", "pretrained", *RECIPE_REFERENCES, "members")
#: Every level by its number.
LEVELS: dict[int, Level] = {
    1: Level(1, Recipe, "networks that learn from slices"),
    2: Level(
        2,
        SecondLevelRecipe,
        "models that learn from the predictions of other runs",
        judges=("last",),
        fidelities=("epochs",),
        gpu=0.0,
    ),
}
