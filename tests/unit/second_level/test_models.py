"""The table of second-level models: whole, and importing only what is asked for."""

import subprocess
import sys

import pytest

from ichtune.second_level.models import SECOND_LEVEL_MODELS, create_series_model
from ichtune.second_level_recipe import MODELS, SEQUENCES, TREES, SecondLevelRecipe

WITHOUT_TORCH = """
import sys
from ichtune.second_level import fold_run, stacking_runs
from ichtune.second_level.models import create_series_model
from ichtune.second_level_recipe import SecondLevelRecipe
for model in ("hist_gradient_boosting", "gaussian", "kernel"):
    create_series_model(SecondLevelRecipe(model=model))
sys.exit("torch" in sys.modules)
"""


def test_every_model_of_a_recipe_is_listed() -> None:
    assert tuple(SECOND_LEVEL_MODELS) == MODELS


@pytest.mark.parametrize("name", [name for name in MODELS if name != "lightgbm"])
def test_each_is_made_from_its_recipe(name: str) -> None:
    recipe = SecondLevelRecipe(model=name)
    model = create_series_model(recipe)
    assert model.recipe == recipe
    assert model.needs_torch == (name in SEQUENCES)
    assert model.n_epochs == (recipe.epochs if name in SEQUENCES else 1)
    assert (name in TREES) <= (type(model).__name__ == "HistGradientBoosting")


@pytest.mark.slow  # an interpreter of its own
def test_trees_and_smoothing_need_no_torch() -> None:
    assert subprocess.run([sys.executable, "-c", WITHOUT_TORCH]).returncode == 0
