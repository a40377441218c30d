"""From what a person calls members to the runs that are meant: recipe_ids, recipes, foreign names, whole searches."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeGuard

from ichtune.ensemble.members.run_records import FIRST_LEVEL, SECOND_LEVEL, is_foreign, level_of
from ichtune.errors import ConfigError, DataError, nearest
from ichtune.recipe_file import read_any_recipe
from ichtune.second_level_recipe import ALL, SecondLevelRecipe, recipe_from_dict
from ichtune.shipped import shipped_files
from ichtune.workspace import Workspace

#: One member as it is written: a name, ``{"search": name}`` for every run of a search, or ``{"level": 2}`` for every
#: run of a level.
Wanted = str | Mapping[str, str | int]
SEARCH, LEVEL = "search", "level"
LEVELS = (FIRST_LEVEL, SECOND_LEVEL)


def is_wanted(item: Any) -> TypeGuard[Wanted]:
    """Say whether something is written as a member is."""
    if not isinstance(item, Mapping):
        return isinstance(item, str)
    if set(item) == {LEVEL}:
        return item[LEVEL] in LEVELS and not isinstance(item[LEVEL], bool)
    return set(item) == {SEARCH} and isinstance(item[SEARCH], str)


def resolve_members(workspace: Workspace, wanted: Sequence[Wanted]) -> list[str]:
    """Return the runs that are meant, each once.

    A text is, in this order, the recipe_id of a run, the name that foreign predictions were added under, or a recipe:
    a shipped one's name or a YAML file. ``{"search": NAME}`` is every complete run of that search, ``{"level": 2}``
    every complete run of the second level, ``{"level": 1}`` every other one.

    Returns:
        recipe_ids in the order of first mention.

    Raises:
        ConfigError: a name that means nothing here; the nearest is named. A recipe of which there are several runs.
        DataError: a recipe, a search or a level of which no run is complete.
    """
    names = _Names(workspace)
    found: dict[str, None] = {}
    for one in wanted:
        if not is_wanted(one):
            raise ConfigError(f"a member must be a name, {{search: NAME}} or {{level: 2}}, got {one!r}")
        if isinstance(one, str):
            ids = [names.run_of(one)]
        else:
            ids = names.runs_of_level(one[LEVEL]) if LEVEL in one else names.runs_of_search(str(one[SEARCH]))
        found.update(dict.fromkeys(ids))
    return list(found)


class _Names:
    """What the runs of a workspace are called."""

    def __init__(self, workspace: Workspace) -> None:
        self._workspace = workspace
        self._complete = workspace.run_ids()
        self._started = started_runs(workspace)

    def run_of(self, name: str) -> str:
        if name in self._started:
            return name
        foreign = foreign_names(self._workspace)
        if name in foreign:
            return foreign[name]
        if name in shipped_files("recipes") or Path(name).suffix in (".yaml", ".yml"):
            return self._run_of_recipe(name)
        known = {*self._started, *foreign}
        raise ConfigError(
            f"no run has recipe_id {name!r} in {self._workspace.layout.runs}, and neither added predictions nor a "
            f"recipe are called so. {nearest(name, known)}"
        )

    def _run_of_recipe(self, name: str) -> str:
        recipe = read_any_recipe(name)
        if isinstance(recipe, SecondLevelRecipe) and recipe.members == ALL:
            return self._run_on_any_members(name, recipe)
        if recipe.recipe_id not in self._started:
            command = "stack" if isinstance(recipe, SecondLevelRecipe) else "train"
            raise DataError(
                f"recipe {name} ({recipe.recipe_id}) is not trained in {self._workspace.layout.runs}; "
                f"run `ichtune {command} --recipe {name}` first"
            )
        return recipe.recipe_id

    def _run_on_any_members(self, name: str, recipe: SecondLevelRecipe) -> str:
        """Find the run of a recipe of the second level, whose record names the runs that `all` meant."""
        runs = [run for run in self._runs_at(SECOND_LEVEL, self._started) if self._is_run_of(run, recipe)]
        if not runs:
            raise DataError(
                f"recipe {name} is not trained in {self._workspace.layout.runs}; run `ichtune stack --recipe {name}` "
                "first"
            )
        if len(runs) > 1:
            raise ConfigError(f"recipe {name} has runs on several sets of members: name one of {', '.join(runs)}")
        return runs[0]

    def _is_run_of(self, run: str, recipe: SecondLevelRecipe) -> bool:
        told = recipe_from_dict(self._workspace.run_about(run)["recipe"])
        return isinstance(told, SecondLevelRecipe) and replace(told, members=ALL) == recipe

    def _runs_at(self, level: int, runs: Sequence[str]) -> list[str]:
        return [run for run in runs if level_of(self._workspace.run_about(run)) == level]

    def runs_of_level(self, level: object) -> list[str]:
        runs = self._runs_at(SECOND_LEVEL if level == SECOND_LEVEL else FIRST_LEVEL, self._complete)
        if not runs:
            command = "stack" if level == SECOND_LEVEL else "train"
            raise DataError(
                f"no run of level {level} in {self._workspace.layout.runs} is complete; run `ichtune {command}` first"
            )
        return runs

    def runs_of_search(self, search: str) -> list[str]:
        has_trials = self._workspace.layout.trials.is_file()
        trials = self._workspace.trials if has_trials else None
        known = sorted(set(trials[SEARCH])) if trials is not None else []
        if trials is None or search not in known:
            tried = nearest(search, known) if known else "Nothing has been searched here yet."
            raise ConfigError(f"no search {search!r} in {self._workspace.layout.root}. {tried}")
        tried_ids = set(trials.loc[trials[SEARCH] == search, "recipe_id"])
        runs = [run for run in self._complete if run in tried_ids]
        if not runs:
            raise DataError(
                f"no recipe of search {search!r} is trained on every fold yet; "
                f"run `ichtune train --search {search}` first"
            )
        return runs


def started_runs(workspace: Workspace) -> list[str]:
    """Return every run, complete or not, in alphabetical order."""
    runs = workspace.layout.runs
    return sorted(path.name for path in runs.iterdir() if path.is_dir()) if runs.is_dir() else []


def foreign_names(workspace: Workspace, recipe_ids: Iterable[str] | None = None) -> dict[str, str]:
    """Return the recipe_id of each foreign run, by the name that it was added under."""
    ids = started_runs(workspace) if recipe_ids is None else recipe_ids
    records = {recipe_id: workspace.run_about(recipe_id) for recipe_id in ids}
    return {str(record.get("name", key)): key for key, record in records.items() if is_foreign(record)}
