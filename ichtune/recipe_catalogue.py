"""The catalogue of the shipped recipes and of the keys of a recipe, and the documents that are made from it."""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import Field, dataclass, fields
from pathlib import Path
from typing import Any

from ichtune.errors import ConfigError
from ichtune.recipe import SIDE_SIGNS, Recipe
from ichtune.recipe_file import read_any_recipe
from ichtune.second_level_recipe import LEVEL, SEQUENCES, SMOOTHERS, TREES, AnyRecipe, SecondLevelRecipe
from ichtune.shipped import shipped_files
from ichtune.windows import DICOM, WINDOW_SETS, Window, window_set_name

#: Parts of a recipe file's header in their order; the optional one is there where something of the source is not.
HEADER_PARTS = ("Purpose", "Command", "Published", "Left out", "Figures", "Result")
OPTIONAL_PARTS = ("Left out",)

_PART = re.compile(rf"# ({'|'.join(HEADER_PARTS)}):\s+(\S.*)")
#: Further keys of a schedule that a reader wants to see with it.
_OF_SCHEDULE = {
    "flat_cosine": ("anneal_start",),
    "cosine": ("warmup",),
    "cosine_restarts": ("cycles", "cycle_decay"),
    "step": ("lr_decay",),
    "plateau": ("lr_decay", "patience"),
}
#: What keys may be that the recipe checks itself.
_SPECIAL_VALUES = {
    "pretrained": "false, true, or a path",
    "windows": f"{', '.join(f'`{name}`' for name in WINDOW_SETS)}; or a list of [centre, width] and `{DICOM}`",
    "augmentation": "a policy's name, or a list of {Name: {parameter: value}}",
    "members": "`all`, or a list of recipe_ids or of recipes' names",
}


@dataclass(frozen=True)
class ShippedRecipe:
    """One file of ``recipes/``: what it does, and what its header tells of where it comes from.

    Attributes:
        name: the file's name without ``.yaml``; what ``--recipe`` takes.
        recipe: what it says.
        header: the text of each part of its header, on one line.
    """

    name: str
    recipe: AnyRecipe
    header: Mapping[str, str]

    @property
    def purpose(self) -> str:
        """The first sentence of its purpose, without the full stop."""
        return re.split(r"(?<=[a-z0-9)])\.(?=\s|$)", self.header["Purpose"])[0]


@dataclass(frozen=True)
class RecipeKey:
    """One key of a recipe, as text: its level, its default, what it may be and what it means."""

    level: int
    name: str
    default: str
    allowed: str
    meaning: str


def read_header(path: Path) -> dict[str, str]:
    """Read the comment at the top of a recipe file.

    Returns:
        The text of each part, lines joined by a space.

    Raises:
        ConfigError: a part is missing, unknown, twice there or out of order.
    """
    parts: dict[str, str] = {}
    for line in path.read_text(encoding="utf-8").splitlines():
        if not line.startswith("#"):
            break
        begins = _PART.fullmatch(line)
        if begins and begins[1] not in parts:
            parts[begins[1]] = begins[2].strip()
        elif parts and line.startswith("#   "):
            last = list(parts)[-1]
            parts[last] = f"{parts[last]} {line[1:].strip()}"
        else:
            raise ConfigError(f"{path.name}: header line {line!r} must begin one of {_parts_told()}, each once")
    wanted = [part for part in HEADER_PARTS if part in parts or part not in OPTIONAL_PARTS]
    if list(parts) != wanted:
        raise ConfigError(f"{path.name}: the header must be {_parts_told()} in this order, got {', '.join(parts)}")
    return parts


def _parts_told() -> str:
    return ", ".join(f"# {part}:" for part in HEADER_PARTS)


def shipped_recipes() -> tuple[ShippedRecipe, ...]:
    """Read every shipped recipe with its header, by name, numbers in them by size: ``exp_90`` before ``exp_300``.

    Raises:
        ConfigError: a file or its header cannot be used as written.
    """
    files = shipped_files("recipes")
    return tuple(
        ShippedRecipe(name, read_any_recipe(name), read_header(files[name])) for name in sorted(files, key=_by_size)
    )


def _by_size(name: str) -> list[tuple[int, str]]:
    return [(int(part), "") if part.isdigit() else (0, part) for part in re.split(r"(\d+)", name)]


def recipe_rows(recipes: Sequence[ShippedRecipe]) -> list[dict[str, Any]]:
    """Return shipped recipes as plain values for a table or JSON, networks first.

    One that another starts from is told by its name.
    """
    names = {shipped.recipe.recipe_id: shipped.name for shipped in recipes}
    networks = [_recipe_row(one, one.recipe, names) for one in recipes if isinstance(one.recipe, Recipe)]
    second = [_second_level_row(one, one.recipe) for one in recipes if isinstance(one.recipe, SecondLevelRecipe)]
    return [*networks, *second]


def _second_level_row(shipped: ShippedRecipe, recipe: SecondLevelRecipe) -> dict[str, Any]:
    return {
        "level": recipe.level,
        "name": shipped.name,
        "recipe_id": recipe.recipe_id,
        "model": recipe.model,
        "sees": sees_told(recipe),
        "summary": recipe.summary,
        "purpose": shipped.purpose,
        "figures": shipped.header["Figures"],
    }


def sees_told(recipe: SecondLevelRecipe) -> str:
    """Return what a model of the second level sees of each slice beside the members' probabilities, in words."""
    if recipe.metadata_only:
        return "metadata only"
    told = {
        f"{recipe.embeddings} components of embeddings": recipe.embeddings > 0,
        "neighbours' differences": recipe.deltas and recipe.model in SEQUENCES,
        f"±{recipe.neighbours} slices": recipe.model in TREES and recipe.neighbours > 0,
        "aggregates of the series": recipe.aggregates and recipe.model in TREES,
        "spacing": recipe.spacing and recipe.model not in SMOOTHERS,
        "metadata": recipe.metadata,
    }
    return ", ".join(words for words, does in told.items() if does) or "nothing"


def _recipe_row(shipped: ShippedRecipe, recipe: Recipe, names: Mapping[str, str]) -> dict[str, Any]:
    return {
        "level": 1,
        "name": shipped.name,
        "recipe_id": recipe.recipe_id,
        "architecture": recipe.architecture,
        "image_px": recipe.image_px,
        "windows": window_set_name(recipe.windows),
        "neighbours": neighbours_told(recipe),
        "epochs": recipe.epochs,
        "schedule": schedule_told(recipe),
        "start": _start_told(recipe, names),
        "purpose": shipped.purpose,
        "figures": shipped.header["Figures"],
    }


def neighbours_told(recipe: Recipe) -> str:
    """Return the slices that are seen beside the slice itself, in words: ``none``, ``±1 stack``."""
    if recipe.neighbours == 0:
        return "none"
    stride = f" by {recipe.neighbour_stride}" if recipe.neighbour_stride > 1 else ""
    targets = f", targets {recipe.neighbour_targets:g}" if recipe.neighbour_targets > 0 else ""
    return f"{SIDE_SIGNS[recipe.neighbour_side]}{recipe.neighbours}{stride} {recipe.neighbour_use}{targets}"


def schedule_told(recipe: Recipe) -> str:
    """Return optimizer, learning rate, schedule and batch in words."""
    details = [f"{key} {getattr(recipe, key):g}" for key in _OF_SCHEDULE.get(recipe.lr_schedule, ())]
    schedule = recipe.lr_schedule + (f" ({', '.join(details)})" if details else "")
    frozen = f"{recipe.frozen_epochs} frozen at {recipe.frozen_lr:g}, then " if recipe.frozen_epochs else ""
    epochs = recipe.epochs - recipe.frozen_epochs
    return f"{recipe.optimizer}, {frozen}{schedule} at {recipe.lr:g}, {epochs} epochs of batches of {recipe.batch_size}"


def _start_told(recipe: Recipe, names: Mapping[str, str]) -> str:
    start = "random" if recipe.pretrained is False else "pretrained"
    if recipe.warm_start:
        start = f"from {names.get(recipe.warm_start, recipe.warm_start)}"
    taught = recipe.pseudo_labels
    return f"{start}, pseudo-labels of {names.get(taught, taught)}" if taught else start


def recipe_key_table(names: Mapping[str, Sequence[str]] | None = None) -> tuple[RecipeKey, ...]:
    """Describe every key of a recipe of either level from its declaration, those of networks first.

    Args:
        names: for a key that names an entry of a table on a higher floor, the names in that table.
    """
    known = names or {}
    return tuple(
        RecipeKey(
            level, spec.name, _plain(spec.default), _allowed(spec, known.get(spec.name, ())), spec.metadata["doc"]
        )
        for level, kind in ((1, Recipe), (LEVEL, SecondLevelRecipe))
        for spec in fields(kind)
    )


def _plain(value: Any) -> str:
    if value is None:
        return "none"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, tuple):
        is_windows = all(isinstance(entry, Window) for entry in value)
        return window_set_name(value) if is_windows else f"[{', '.join(_plain(entry) for entry in value)}]"
    if isinstance(value, float):
        return f"{value:.7g}"
    return "empty" if value == "" else str(value)


def _allowed(spec: "Field[Any]", names: Sequence[str]) -> str:
    kind = spec.metadata["kind"]
    if kind in ("number", "whole"):
        low, high = (_plain(bound) for bound in spec.metadata["bounds"])
        bounds = f"at least {low}" if high == "inf" else f"{low} to {high}"
        return f"{bounds}{', whole' if kind == 'whole' else ''}{', or none' if spec.default is None else ''}"
    simple = {"switch": "true, false", "label_weights": "six numbers of at least 0", "name": "a name"}
    if kind in ("one_of", "name"):
        options = spec.metadata.get("options", names)
        return ", ".join(f"`{option}`" for option in options) or simple["name"]
    return simple.get(kind) or _SPECIAL_VALUES.get(spec.name, "see its meaning")


def markdown_table(head: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """Return a table in markdown; a ``|`` in a cell is escaped."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(str(cell).replace("|", r"\|") for cell in line) + " |" for line in lines)


def recipes_markdown(recipes: Sequence[ShippedRecipe]) -> str:
    """Return ``docs/recipes.md``: what the shipped recipes are, and what was published of each."""
    keys = ("architecture", "image_px", "windows", "neighbours", "start", "schedule", "figures")
    head = ("name", "network", "px", "windows", "neighbours", "start", "schedule", "published figures")
    rows = {level: [row for row in recipe_rows(recipes) if row["level"] == level] for level in (1, LEVEL)}
    table = markdown_table(head, ((f"`{row['name']}`", *(row[key] for key in keys)) for row in rows[1]))
    if not rows[LEVEL]:
        return f"{_RECIPES_INTRO}\n{table}\n"
    second_keys = ("model", "sees", "purpose", "figures")
    second_head = ("name", "model", "sees beside probabilities", "what it is", "published figures")
    second = markdown_table(
        second_head, ((f"`{row['name']}`", *(row[key] for key in second_keys)) for row in rows[LEVEL])
    )
    return f"{_RECIPES_INTRO}\n{table}\n\n{_SECOND_LEVEL_INTRO}\n{second}\n"


def keys_markdown(keys: Sequence[RecipeKey]) -> str:
    """Return ``docs/recipe-keys.md``: every key of a recipe, a table for each level."""
    head = ("key", "default", "may be", "meaning")
    parts = []
    for level, introduction in ((1, _KEYS_INTRO), (LEVEL, _SECOND_LEVEL_KEYS_INTRO)):
        rows = [(f"`{key.name}`", key.default, key.allowed, key.meaning) for key in keys if key.level == level]
        parts += [f"{introduction}\n{markdown_table(head, rows)}\n"] if rows else []
    return "\n".join(parts)


_RECIPES_INTRO = """\
# Shipped recipes

Made by `ichtune recipes --markdown`; a test fails when this page is not what it prints.

`ichtune train --recipe NAME` trains one. Each is an experiment that somebody published, as far as the keys of a recipe
can express it: `exp_...` are those of a public single-model study of the 2019 competition (the seed), `top<place>_...`
single models of the teams that ended there, the others stand in papers and in other public studies. What was published,
and what of it is left out or had to be chosen here, stands at the top of each file in `recipes/`.

**No figure below is ours.** They were published by others, on other splits, and none of them can be compared with one
on another scale:

| scale | what it is |
|---|---|
| validation loss, folds by image | slices of one patient lie on both sides of the split, so it flatters |
| validation loss, folds by patient | on patients that were not learnt from, as our out-of-fold loss is |
| weighted or unweighted | with `any` counted twice, as in the metric, or with all six labels alike |
| stage-1 leaderboard | the public score on 78,545 slices, some of them of patients that were also learnt from |
| private leaderboard | the final score on 121,232 other slices; some .010 below out-of-fold where both are known |

- **Memory.** Batches are as published, up to 512 slices at 224 px; one GPU may not hold them. Write `accumulation: 4`
  or more into a copy: a batch then passes in parts, and the learning rate still fits.
- **Chains.** A recipe with `warm_start` needs the run of the recipe that it names, on the same folds; one with
  `pseudo_labels` the predictions of another. Train those first.
- **Crops.** A recipe with `crop: tight` or `crop: head` reads a cache of its own; training names the `ichtune prepare`
  command that makes it.
- **Weights.** `pretrained` takes timm's weights from your own hub cache; `pretrained: false` in a copy needs none.
"""

_SECOND_LEVEL_INTRO = """\
## The second level

`ichtune stack --recipe NAME` trains one on every fold, from the out-of-fold predictions of the runs that are there.
Such a recipe has the key `level: 2` and learns along the series of slices; what it predicts is a run that blends like
any.
"""

_KEYS_INTRO = """\
# Keys of a recipe

Made by `ichtune recipes --keys --markdown`; a test fails when this page is not what it prints.

A recipe is a YAML file with `version: 1` and any of these keys; those that are left out take the default. Each key is
also a parameter that a search space may vary. `ichtune recipes` lists the shipped ones.
"""

_SECOND_LEVEL_KEYS_INTRO = """\
## Keys of the second level

With `level: 2` a recipe learns from other runs' out-of-fold predictions (`ichtune stack`). Keys that its model does not
read are put at their defaults, so that equal runs have one recipe_id.
"""
