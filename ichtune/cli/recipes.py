"""ichtune recipes: the shipped recipes of both levels, and every key that a recipe may have."""

from collections.abc import Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ichtune.cli.options import JsonOption, QuietOption

if TYPE_CHECKING:
    from rich.table import Table

#: What is listed of the recipes of each level, and of the keys.
_LISTED = {
    1: ("name", "architecture", "windows", "image_px", "epochs", "purpose"),
    2: ("name", "model", "sees", "purpose"),
}
_KEYS_LISTED = ("name", "default", "allowed", "meaning")


def recipes(
    keys: Annotated[bool, typer.Option("--keys", help="List every key of a recipe instead.")] = False,
    markdown: Annotated[
        bool, typer.Option("--markdown", help="Write docs/recipes.md, or docs/recipe-keys.md with --keys.")
    ] = False,
    as_json: JsonOption = False,
    quiet: QuietOption = False,
) -> None:
    """List the shipped recipes, or with --keys all that a recipe may say.

    Example: ichtune recipes --keys
    """
    from ichtune import recipe_catalogue as catalogue
    from ichtune.cli.console import note, result, result_json

    if markdown and as_json:
        raise typer.BadParameter("--markdown and --json are two forms of one result; take one of them")
    if keys:
        table = catalogue.recipe_key_table(known_names())
        rows, page = [asdict(key) for key in table], catalogue.keys_markdown(table)
    else:
        shipped = catalogue.shipped_recipes()
        rows, page = catalogue.recipe_rows(shipped), catalogue.recipes_markdown(shipped)
    if as_json:
        result_json(rows)
    elif markdown:
        result(page.removesuffix("\n"))
    else:
        for level, columns in _LISTED.items():
            of_level = [row for row in rows if row["level"] == level]
            result(_table(of_level, _KEYS_LISTED if keys else columns))
            if level == 1:
                result("\nThe second level (ichtune stack):\n")
        note(f"next: ichtune train --recipe {'mine.yaml' if keys else rows[0]['name']}", quiet)


def known_names() -> dict[str, Sequence[str]]:
    """Return for each key that names an entry of a table the names in it."""
    from ichtune.data.augment import AUGMENTATIONS
    from ichtune.models.architectures import ARCHITECTURES
    from ichtune.training.losses import LOSSES
    from ichtune.training.lr_schedules import LR_SCHEDULES
    from ichtune.training.optimizers import OPTIMIZERS
    from ichtune.training.tta import VIEWS

    return {
        "architecture": (*ARCHITECTURES, "any timm name"),
        "loss": tuple(LOSSES),
        "optimizer": tuple(OPTIMIZERS),
        "lr_schedule": tuple(LR_SCHEDULES),
        "augmentation": (*AUGMENTATIONS, "[{Name: {parameter: value}}, ...]"),
        "tta": tuple(VIEWS),
    }


def _table(rows: Sequence[dict[str, Any]], columns: Sequence[str]) -> "Table":
    from rich.table import Table

    table = Table(*(column.replace("_", " ") for column in columns), box=None, pad_edge=False)
    for row in rows:
        # What is in brackets would be read as a style.
        table.add_row(*(str(row[column]).replace("[", r"\[").replace("`", "") for column in columns))
    return table
