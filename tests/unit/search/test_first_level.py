"""The first level in a search; ``test_checks`` and ``test_dry_run`` see what it refuses and what it times."""

from pathlib import Path
from typing import Any

import pytest
import torch

from ichtune.recipe import Recipe
from ichtune.search.levels import search_level
from ichtune.search.stages import Stage
from ichtune.second_level_recipe import SecondLevelRecipe
from ichtune.space import read_space
from ichtune.workspace import Workspace

RECIPE = Recipe(architecture="tiny_convnet", image_px=32, batch_size=8, epochs=2)


def test_pixels_are_the_largest_of_each_crop(tmp_path: Path) -> None:
    path = tmp_path / "space.yaml"
    path.write_text("parameters: {image_px: [32, 64], crop: [none, head]}\nstart_with: [{image_px: 32}]\n")
    level = search_level(1)

    assert level.inputs_of(read_space(path)) == [(64, "head"), (64, "none")]
    assert level.pixels([RECIPE, Recipe(image_px=64)]) == {(32, "none"), (64, "none")}


def test_a_stage_is_opened_on_its_fold(session_workspace: Workspace) -> None:
    run = search_level(1).open_run(session_workspace, Stage(RECIPE, 1), torch.device("cpu"))

    patients = session_workspace.slices["patient_id"].iloc[run.valid_rows]
    assert set(session_workspace.fold_plan.folds_for(patients)) == {1}
    with pytest.raises(TypeError, match="is no network"):
        search_level(1).open_run(session_workspace, Stage(SecondLevelRecipe(), 1), torch.device("cpu"))


def test_what_it_starts_from_needs_not_be_there_to_be_timed(session_workspace: Workspace, monkeypatch: Any) -> None:
    monkeypatch.setattr("ichtune.search.first_level.MOST_STEPS", 1)
    recipe = Recipe(**{**RECIPE.to_dict(), "warm_start": "0" * 12, "frozen_epochs": 1})

    assert 0 < search_level(1).epoch_s(session_workspace, recipe, 0) < 600


def test_networks_and_sizes_are_the_kinds_that_are_timed() -> None:
    unlike = search_level(1).unlike
    assert unlike(RECIPE) == unlike(Recipe(architecture="tiny_convnet", image_px=32, lr=0.5))
    assert unlike(RECIPE) != unlike(Recipe(architecture="tiny_convnet", image_px=64))
