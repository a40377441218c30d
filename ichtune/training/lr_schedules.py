"""LR_SCHEDULES: the learning rate as a share of its peak, at any point of the run.

Every schedule is a function of progress in [0, 1], so that it is the same whatever the batch size, and a run that is
stopped early followed exactly the curve of the whole run up to there.
"""

import math
from collections.abc import Callable

from ichtune.errors import ConfigError, nearest
from ichtune.recipe import Recipe

LrSchedule = Callable[[float, Recipe], float]


def _cosine(progress: float) -> float:
    return 0.5 * (1.0 + math.cos(math.pi * min(1.0, max(0.0, progress))))


def flat_cosine(progress: float, recipe: Recipe) -> float:
    """Flat until ``anneal_start``, then a cosine to zero.

    Source: fastai's ``flat_cos`` schedule, with which the DrHB seed trained most of its models.
    """
    if progress < recipe.anneal_start or recipe.anneal_start >= 1.0:
        return 1.0
    return _cosine((progress - recipe.anneal_start) / (1.0 - recipe.anneal_start))


def cosine(progress: float, recipe: Recipe) -> float:
    """One cosine from the peak to zero over the whole run.

    Source: Loshchilov and Hutter, SGDR, ICLR 2017, without restarts.
    """
    return _cosine(progress)


def constant(progress: float, recipe: Recipe) -> float:
    """The peak learning rate throughout."""
    return 1.0


#: Schedules by name; ``warmup`` of the recipe multiplies each of them.
LR_SCHEDULES: dict[str, LrSchedule] = {"flat_cosine": flat_cosine, "cosine": cosine, "constant": constant}


def find_lr_schedule(name: str) -> LrSchedule:
    """Return a schedule by name; ``ConfigError`` with the nearest one otherwise."""
    if name not in LR_SCHEDULES:
        raise ConfigError(f"unknown lr_schedule {name!r}. {nearest(name, LR_SCHEDULES)}")
    return LR_SCHEDULES[name]


def lr_at(recipe: Recipe, progress: float) -> float:
    """Return the learning rate of a recipe at ``progress``, the share of all optimizer steps that is done."""
    rise = min(1.0, progress / recipe.warmup) if recipe.warmup > 0 else 1.0
    return recipe.lr * rise * find_lr_schedule(recipe.lr_schedule)(progress, recipe)
