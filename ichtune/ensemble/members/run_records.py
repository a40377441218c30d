"""What a run says of itself in its ``recipe.json``: trained here, or brought from elsewhere as predictions alone."""

from collections.abc import Mapping, Sequence
from typing import Any

from ichtune.errors import DataError
from ichtune.second_level_recipe import LEVEL
from ichtune.workspace import Workspace

RECORD = "recipe.json"
#: The key that marks a run which is predictions alone.
FOREIGN = "foreign"
FIRST_LEVEL, SECOND_LEVEL = 1, LEVEL


def run_title(workspace: Workspace, recipe_id: str) -> str:
    """Return the short line that a run gives of itself; empty where it is not kept. See ``Workspace.run_about``."""
    return str(workspace.run_about(recipe_id).get("summary", ""))


def is_foreign(record: dict[str, Any]) -> bool:
    """Say whether a run was brought as predictions by ``ichtune ensemble add``, so that it has no models."""
    return record.get(FOREIGN) is True


def level_of(record: Mapping[str, Any]) -> int:
    """Return 2 for a run that learnt along series from other runs' predictions, 1 for any other."""
    recipe = record.get("recipe")
    return SECOND_LEVEL if isinstance(recipe, Mapping) and recipe.get("level") == SECOND_LEVEL else FIRST_LEVEL


def check_have_models(workspace: Workspace, recipe_ids: Sequence[str], purpose: str) -> None:
    """Refuse runs that are predictions alone where fold models are needed.

    Args:
        workspace: with the runs.
        recipe_ids: the members whose models are to run.
        purpose: what needs them, as in ``a bundle``.

    Raises:
        DataError: names the members without models, and what to do.
    """
    records = {recipe_id: workspace.run_about(recipe_id) for recipe_id in recipe_ids}
    named = [f"{record.get('name', '')} ({key})" for key, record in records.items() if is_foreign(record)]
    if named:
        raise DataError(
            f"{purpose} needs the models of every member, and {', '.join(named)} came as predictions alone "
            "(`ichtune ensemble add`); blend without them, by listing the other runs under `members`"
        )
