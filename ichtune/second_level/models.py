"""The table of second-level models: being listed here is being offered, and being tested."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from ichtune.second_level.base import SeriesModel
from ichtune.second_level_recipe import SecondLevelRecipe

if TYPE_CHECKING:
    import torch

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


def create_series_model(recipe: SecondLevelRecipe, device: "torch.device | None" = None) -> SeriesModel:
    """Return a new model that has learnt nothing.

    Args:
        recipe: what to do.
        device: where a model that needs torch computes; the first GPU by default, or the CPU.

    Raises:
        ConfigError: what the model needs is not installed.
    """
    module, name = SECOND_LEVEL_MODELS[recipe.model]
    kind: Any = getattr(import_module(f"ichtune.second_level.{module}"), name)
    made: SeriesModel = kind(recipe, device) if kind.needs_torch else kind(recipe)
    return made
