"""The table of second-level models: being listed here is being offered, and being tested."""

from collections.abc import Callable
from importlib import import_module

from ichtune.second_level.base import SeriesModel
from ichtune.second_level_recipe import SecondLevelRecipe

#: Module and class of each model; imported when it is asked for, so that trees and smoothing need no torch.
SECOND_LEVEL_MODELS: dict[str, tuple[str, str]] = {
    "gru": ("recurrent", "Recurrent"),
    "lstm": ("recurrent", "Recurrent"),
    "conv": ("dilated_conv", "DilatedConv"),
    "transformer": ("transformer", "Transformer"),
    "hist_gradient_boosting": ("hist_gradient_boosting", "HistGradientBoosting"),
    "lightgbm": ("lightgbm_trees", "LightGbm"),
    "kernel": ("smoothing", "KernelSmoothing"),
    "gaussian": ("smoothing", "GaussianSmoothing"),
}


def create_series_model(recipe: SecondLevelRecipe) -> SeriesModel:
    """Return a new model that has learnt nothing.

    Raises:
        ConfigError: what the model needs is not installed.
    """
    module, name = SECOND_LEVEL_MODELS[recipe.model]
    kind: Callable[[SecondLevelRecipe], SeriesModel] = getattr(import_module(f"ichtune.second_level.{module}"), name)
    return kind(recipe)
