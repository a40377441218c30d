"""The second level in a search: models that learn from the predictions of other runs. They read no pixels.

Dimension key: N slices.
"""

import hashlib
import time
from collections.abc import Mapping
from dataclasses import replace
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from ichtune.errors import DataError, nearest
from ichtune.search.levels import FIRST_LEVEL, SearchLevel
from ichtune.search.mirror import fetch_runs, fetch_sources
from ichtune.second_level.fold_run import SecondLevelRun
from ichtune.second_level.inputs import LevelInputs, first_level_ids, load_inputs
from ichtune.second_level.models import create_series_model
from ichtune.second_level_recipe import SecondLevelRecipe
from ichtune.space import Space, combinations
from ichtune.space.members import KEY, learns_from_all, members_named, with_members
from ichtune.tables import P_COLUMNS, PREDICTIONS, read_table
from ichtune.workspace import Workspace

if TYPE_CHECKING:
    import torch

    from ichtune.search.stages import Stage

#: Slices that an epoch is timed on, few and more: what it takes grows with them in a straight line.
TIMED_SLICES = (1000, 4000)
_DIGITS = 16


class SecondLevel(SearchLevel[SecondLevelRecipe]):
    """Models that learn from the predictions of other runs."""

    command, example = "stack", "second_level.yaml"
    timed = "an epoch on few slices"

    def settled(self, workspace: Workspace, space: Space) -> Space:
        """Bring the runs' tables here, and name the runs where the space says ``members: all``."""
        fetch_runs(workspace)
        if not learns_from_all(space):
            return space
        found = first_level_ids(workspace)
        if not found:
            raise DataError(
                f"space {space.name!r} learns from the runs of the first level, but {workspace.layout.runs} holds no "
                f"complete one; run `ichtune train` first"
            )
        return with_members(space, found)

    def check_space(self, workspace: Workspace, space: Space) -> None:
        """Refuse models that are not installed, and runs that cannot be learnt from."""
        space.check_names({"model": _check_model})
        space = self.settled(workspace, space)
        known = first_level_ids(workspace)
        for recipe_id in sorted(members_named(space) - set(known)):
            raise space.error(
                f"{recipe_id!r} is no complete run of the first level here. {nearest(recipe_id, known)}",
                "parameters",
                KEY,
            )
        for recipe in _of_each_input(space):
            fetch_sources(workspace, recipe, space.folds.search_on[0])
            with space.at("parameters", KEY):
                load_inputs(workspace, recipe)

    def identity(self, workspace: Workspace, space: Space) -> Mapping[str, Any]:
        """Return the runs that are learnt from, each with a digest of its predictions."""
        named = sorted(members_named(self.settled(workspace, space)))
        return {FIRST_LEVEL: {recipe_id: _digest(workspace, recipe_id) for recipe_id in named}}

    def open_run(self, workspace: Workspace, stage: "Stage", device: "torch.device") -> SecondLevelRun:
        """Fetch the runs that are learnt from and open the fold; what was read of them serves the next trials too."""
        recipe = stage.recipe
        if not isinstance(recipe, SecondLevelRecipe):
            raise TypeError(f"{recipe.summary} is none of the second level")
        fetch_sources(workspace, recipe, stage.fold)
        inputs = _inputs(workspace, recipe.members, recipe.embeddings)
        return SecondLevelRun(replace(inputs, recipe=recipe), stage.fold, device)

    def epoch_s(self, workspace: Workspace, recipe: SecondLevelRecipe, fold: int) -> float:
        """Measure an epoch on few slices and on more, on the CPU as trials do, and draw the line to all of them."""
        inputs = _inputs(workspace, recipe.members, recipe.embeddings)
        n_slices = len(inputs.labelled)
        sizes = [n for n in TIMED_SLICES if n < n_slices] or [n_slices]
        _timed_s(inputs, recipe, 1)  # imports, and what is made ready once
        seconds = [_timed_s(inputs, recipe, n) for n in sizes]
        if len(sizes) == 1:
            return seconds[0] * n_slices / sizes[0]
        each_s = max(0.0, seconds[1] - seconds[0]) / (sizes[1] - sizes[0])
        return seconds[1] + each_s * (n_slices - sizes[1])

    def unlike(self, recipe: SecondLevelRecipe) -> tuple[object, ...]:
        """Return the model."""
        return (recipe.model,)


@lru_cache(maxsize=1)
def _inputs(workspace: Workspace, members: str | tuple[str, ...], embeddings: int) -> LevelInputs:
    """Read what recipes of these runs and so many components learn from; a process keeps the last one."""
    return load_inputs(workspace, SecondLevelRecipe(members=members, embeddings=embeddings))


def _check_model(name: str) -> None:
    create_series_model(SecondLevelRecipe(model=name))


def _of_each_input(space: Space) -> list[SecondLevelRecipe]:
    """Return a recipe for each choice of runs, with the most components of their embeddings that it may ask for."""
    default = space.default
    most: dict[Any, int] = {}
    for values in combinations(space, (KEY, "embeddings")):
        members, embeddings = (values.get(key, getattr(default, key)) for key in (KEY, "embeddings"))
        most[members] = max(embeddings, most.get(members, 0))
    return [SecondLevelRecipe(members=members, embeddings=embeddings) for members, embeddings in most.items()]


def _digest(workspace: Workspace, recipe_id: str) -> str:
    """Return a hash of what a run predicts, whatever the order of the rows and the versions in its files."""
    digest = hashlib.sha256()
    for path in (workspace.layout.oof(recipe_id), workspace.layout.test(recipe_id)):
        if path.is_file():
            table = read_table(path, PREDICTIONS)[["image_id", "fold", *P_COLUMNS]]
            rows_N = pd.util.hash_pandas_object(table.astype({"image_id": object}), index=False).to_numpy()
            digest.update(np.sort(rows_N).tobytes())
    return digest.hexdigest()[:_DIGITS]


def _timed_s(inputs: LevelInputs, recipe: SecondLevelRecipe, n_slices: int) -> float:
    """Return what an epoch on the first whole series with so many slices takes, in seconds, judged on as many."""
    import torch

    view = inputs.labelled
    ends = np.cumsum(view.lengths)
    rows = np.arange(ends[min(int(np.searchsorted(ends, n_slices)), len(ends) - 1)])
    part, model = view.take(rows), create_series_model(recipe, torch.device("cpu"))
    start = time.perf_counter()
    model.begin(part, inputs.y_RL[rows])
    model.run_epoch()
    model.predict(part)
    return time.perf_counter() - start
