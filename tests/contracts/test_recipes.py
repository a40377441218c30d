"""Every shipped recipe: read, named by tables that exist, and trained for an epoch on generated data."""

from collections.abc import Callable
from dataclasses import replace

import pytest
import torch

from ichtune.recipe import Recipe
from ichtune.recipe_file import read_recipe
from ichtune.shipped import shipped_files
from ichtune.training.crossval import fold_rows, open_batches
from ichtune.training.loop import TrainingRun, check_recipe
from ichtune.workspace import Workspace

NAMES = list(shipped_files("recipes"))
FakeWorkspace = Callable[..., Workspace]


@pytest.mark.parametrize("name", NAMES)
def test_it_is_read_and_every_name_in_it_is_known(name: str) -> None:
    recipe = read_recipe(name)
    check_recipe(recipe)
    assert Recipe.from_dict(recipe.to_dict()) == recipe


@pytest.mark.parametrize("name", NAMES)
def test_its_header_says_what_it_is(name: str) -> None:
    header = shipped_files("recipes")[name].read_text(encoding="utf-8").split("\nversion:")[0]
    assert all(line.startswith("#") for line in header.splitlines())
    for part in ("# Purpose:", f"ichtune train --recipe {name}", "# Published:", "# Figures:", "# Result:"):
        assert part in header


@pytest.mark.parametrize("name", NAMES)
def test_it_trains(name: str, session_workspace: Workspace) -> None:
    recipe = replace(read_recipe(name), image_px=32, epochs=1, batch_size=16, pretrained=False)
    rows = fold_rows(session_workspace, 0)
    run = TrainingRun(
        recipe, open_batches(session_workspace, recipe), rows.train[:4], rows.valid[:2], torch.device("cpu")
    )
    assert run.run_epoch().val_weighted_log_loss > 0


def test_no_two_are_the_same_run() -> None:
    ids = {name: read_recipe(name).recipe_id for name in NAMES}
    assert len(set(ids.values())) == len(ids)
