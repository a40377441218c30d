"""From what a person calls members to the runs that are meant: recipe_ids, recipes, foreign names, whole searches."""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from ichtune.ensemble.members.run_records import is_foreign
from ichtune.errors import ConfigError, DataError, nearest
from ichtune.recipe_file import read_recipe
from ichtune.shipped import shipped_files
from ichtune.workspace import Workspace

#: One member as it is written: a name, or ``{"search": name}`` for every run of a search.
Wanted = str | Mapping[str, str]
SEARCH = "search"


def resolve_members(workspace: Workspace, wanted: Sequence[Wanted]) -> list[str]:
    """Return the runs that are meant, each once.

    A text is, in this order, the recipe_id of a run, the name that foreign predictions were added under, or a recipe:
    a shipped one's name or a YAML file. ``{"search": NAME}`` is every complete run of that search.

    Returns:
        recipe_ids in the order of first mention.

    Raises:
        ConfigError: a name that means nothing here; the nearest is named.
        DataError: a recipe or a search of which no run is complete.
    """
    names = _Names(workspace)
    found: dict[str, None] = {}
    for one in wanted:
        ids = [names.run_of(one)] if isinstance(one, str) else names.runs_of_search(one)
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
        recipe_id = read_recipe(name).recipe_id
        if recipe_id not in self._started:
            raise DataError(
                f"recipe {name} ({recipe_id}) is not trained in {self._workspace.layout.runs}; "
                f"run `ichtune train --recipe {name}` first"
            )
        return recipe_id

    def runs_of_search(self, wanted: Mapping[str, str]) -> list[str]:
        if set(wanted) != {SEARCH} or not isinstance(wanted[SEARCH], str):
            raise ConfigError(f"a member must be a name or {{search: NAME}}, got {dict(wanted)!r}")
        search = wanted[SEARCH]
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
