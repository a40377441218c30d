"""What of a recipe makes an epoch dear, and what is believed of each effect before anything was seen, by level."""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from ichtune.recipe import Recipe
from ichtune.second_level_recipe import ALL, SEQUENCES, AnyRecipe, SecondLevelRecipe

#: Slices that a series of a head CT has, about.
_SLICES = 32


@dataclass(frozen=True)
class Effect:
    """What is believed of one feature's effect on log seconds before anything was seen: mean and standard deviation."""

    mean: float
    sd: float


@dataclass(frozen=True)
class CostTerms:
    """The terms of one level.

    Attributes:
        numbers: effects of numbers, most of them exponents.
        names: standard deviation of the effects of names; one that was never seen costs what the mean of the others
            does.
        features: what makes an epoch of a recipe dear: logarithms of sizes, 1 for what is switched on, 1 for each name.
    """

    numbers: Mapping[str, Effect]
    names: Mapping[str, float]
    features: Callable[[Any], dict[str, float]]


def terms_of(recipe: AnyRecipe) -> CostTerms:
    """Return the terms of a recipe's level."""
    return TERMS[type(recipe)]


def _of_first(recipe: Recipe) -> dict[str, float]:
    on_device = (recipe.rotate_deg, recipe.shift, recipe.zoom, recipe.cutout, recipe.noise_hu, recipe.transpose)
    numbers = {
        "image_px": math.log(recipe.image_px),
        "n_channels": math.log(recipe.n_channels),
        "n_slices": math.log(len(recipe.offsets)),
        "batch_size": math.log(recipe.batch_size),
        "accumulation": math.log(recipe.accumulation),
        "negative_share": math.log(recipe.negative_share),
        "slices_per_series": math.log(min(recipe.slices_per_series or _SLICES, _SLICES) / _SLICES),
        "snapshots": math.log(recipe.snapshots),
        "tta": float(recipe.tta != "none"),
        "compile": float(recipe.compile),
        "cpu_augmentation": float(recipe.augmentation != "none"),
        "device_augmentation": float(any(on_device)),
        "ema": float(recipe.ema_decay > 0),
        "pseudo_labels": float(bool(recipe.pseudo_labels)),
    }
    return numbers | {f"{key}={getattr(recipe, key)}": 1.0 for key in _FIRST_NAMES}


def _of_second(recipe: SecondLevelRecipe) -> dict[str, float]:
    n_members = 1 if recipe.members == ALL else len(recipe.members)
    numbers = {
        "hidden": math.log(recipe.hidden),
        "layers": math.log(recipe.layers),
        "batch_size": math.log(recipe.batch_size),
        "tta": float(recipe.model in SEQUENCES and recipe.tta),
        "n_members": math.log(n_members),
        "embeddings": math.log1p(recipe.embeddings),
        "neighbours": math.log1p(recipe.neighbours),
        "aggregates": float(recipe.aggregates),
        "rounds": math.log(recipe.rounds),
        "leaves": math.log(recipe.leaves),
        "feature_share": math.log(recipe.feature_share),
    }
    return numbers | {f"{key}={getattr(recipe, key)}": 1.0 for key in _SECOND_NAMES}


_FIRST_NAMES = {"architecture": 1.0, "optimizer": 0.15, "crop": 0.15}
#: An epoch of trees is their whole fit, one of smoothing next to nothing.
_SECOND_NAMES = {"model": 2.0}
#: The effect of ``image_px`` lies between 1 (reading) and 2 (the network).
_FIRST_NUMBERS = {
    "image_px": Effect(1.6, 0.5),
    "n_channels": Effect(0.2, 0.3),
    "n_slices": Effect(0.2, 0.3),
    "batch_size": Effect(-0.1, 0.2),
    "accumulation": Effect(0.05, 0.2),
    "negative_share": Effect(0.6, 0.4),
    "slices_per_series": Effect(0.8, 0.4),
    "snapshots": Effect(0.05, 0.15),
    "tta": Effect(0.2, 0.4),
    "compile": Effect(-0.1, 0.3),
    "cpu_augmentation": Effect(0.2, 0.4),
    "device_augmentation": Effect(0.03, 0.1),
    "ema": Effect(0.02, 0.1),
    "pseudo_labels": Effect(0.3, 0.5),
}
_SECOND_NUMBERS = {
    "hidden": Effect(0.7, 0.4),
    "layers": Effect(0.8, 0.3),
    "batch_size": Effect(-0.3, 0.3),
    "tta": Effect(0.1, 0.1),
    "n_members": Effect(0.2, 0.3),
    "embeddings": Effect(0.1, 0.1),
    "neighbours": Effect(0.6, 0.4),
    "aggregates": Effect(0.3, 0.3),
    "rounds": Effect(0.9, 0.2),
    "leaves": Effect(0.4, 0.3),
    "feature_share": Effect(0.4, 0.3),
}
#: Terms by the class of the recipe.
TERMS: dict[type[AnyRecipe], CostTerms] = {
    Recipe: CostTerms(_FIRST_NUMBERS, _FIRST_NAMES, _of_first),
    SecondLevelRecipe: CostTerms(_SECOND_NUMBERS, _SECOND_NAMES, _of_second),
}
