"""LR_SCHEDULES: the learning rate as a share of its peak, at any point of the run.

Every schedule is a function of progress in [0, 1] (and ``plateau`` of the training losses so far), so that it is the
same whatever the batch size, and a run that is stopped early, or taken up again, followed exactly the curve of the
whole run.
"""

import math
from collections.abc import Callable, Sequence

from ichtune.errors import ConfigError, nearest
from ichtune.recipe import Recipe

#: Maps progress, the recipe, and the training losses of the epochs that are done to a share of the peak.
LrSchedule = Callable[[float, Recipe, Sequence[float]], float]

#: Where ``one_cycle`` starts and ends, as shares of the peak, and how long it rises when the recipe does not say.
ONE_CYCLE_START = 1 / 25
ONE_CYCLE_END = ONE_CYCLE_START / 1e4
FROZEN_RISE = 0.3
#: Progress in epochs or cycles is a rounded product: 28.999999999999996 is the start of the 30th epoch.
_ROUNDING = 1e-9


def _cosine(progress: float) -> float:
    return 0.5 * (1.0 + math.cos(math.pi * min(1.0, max(0.0, progress))))


def _between(first: float, last: float, progress: float) -> float:
    share = _cosine(progress)
    return first * share + last * (1.0 - share)


def flat_cosine(progress: float, recipe: Recipe, losses: Sequence[float] = ()) -> float:
    """Flat until ``anneal_start``, then a cosine to zero.

    Source: fastai's ``flat_cos`` schedule, with which the DrHB seed trained most of its models.
    """
    if progress < recipe.anneal_start or recipe.anneal_start >= 1.0:
        return 1.0
    return _cosine((progress - recipe.anneal_start) / (1.0 - recipe.anneal_start))


def cosine(progress: float, recipe: Recipe, losses: Sequence[float] = ()) -> float:
    """One cosine from the peak to zero.

    Source: Loshchilov and Hutter, SGDR, ICLR 2017, without restarts.
    """
    return _cosine(progress)


def constant(progress: float, recipe: Recipe, losses: Sequence[float] = ()) -> float:
    """The peak learning rate throughout."""
    return 1.0


def one_cycle(progress: float, recipe: Recipe, losses: Sequence[float] = ()) -> float:
    """A cosine rise from 1/25 of the peak over the share ``warmup`` of the run, then a cosine fall to next to nothing.

    Source: Smith and Topin, Super-Convergence, 2018, with the cosine flanks of fastai and torch.
    """
    return _one_cycle(progress, recipe.warmup)


def _one_cycle(progress: float, rise: float) -> float:
    if progress < rise:
        return _between(ONE_CYCLE_START, 1.0, progress / rise)
    return _between(1.0, ONE_CYCLE_END, (progress - rise) / (1.0 - rise))


def cosine_restarts(progress: float, recipe: Recipe, losses: Sequence[float] = ()) -> float:
    """``cycles`` cosines of one length, the peak of each ``cycle_decay`` of that of the one before.

    Source: Loshchilov and Hutter, SGDR, ICLR 2017.
    """
    place = progress * recipe.cycles
    cycle = min(recipe.cycles - 1, math.floor(place + _ROUNDING))
    return float(recipe.cycle_decay**cycle * _cosine(place - cycle))


def step(progress: float, recipe: Recipe, losses: Sequence[float] = ()) -> float:
    """The peak in the first epoch, and ``lr_decay`` of the last epoch's rate in each one after it."""
    epoch = math.floor(progress * (recipe.epochs - recipe.frozen_epochs) + _ROUNDING)
    return float(recipe.lr_decay**epoch)


def linear(progress: float, recipe: Recipe, losses: Sequence[float] = ()) -> float:
    """A straight line from the peak to zero."""
    return 1.0 - min(1.0, max(0.0, progress))


def plateau(progress: float, recipe: Recipe, losses: Sequence[float] = ()) -> float:
    """The peak, times ``lr_decay`` whenever more than ``patience`` epochs on end have not beaten the best loss so far.

    A loss that is not a number is no gain.
    """
    best, n_without_gain, share = math.inf, 0, 1.0
    for loss in losses:
        n_without_gain = 0 if loss < best else n_without_gain + 1
        best = loss if loss < best else best
        if n_without_gain > recipe.patience:
            share, n_without_gain = share * recipe.lr_decay, 0
    return share


#: Schedules by name; the rise over the recipe's ``warmup`` multiplies each of them that does not rise by itself.
LR_SCHEDULES: dict[str, LrSchedule] = {
    "flat_cosine": flat_cosine,
    "cosine": cosine,
    "constant": constant,
    "one_cycle": one_cycle,
    "cosine_restarts": cosine_restarts,
    "step": step,
    "linear": linear,
    "plateau": plateau,
}
RISES_BY_ITSELF = frozenset({"one_cycle"})
#: Those that fall from their first step on: did they begin before the rise ends, it would not reach the peak.
BEGINS_AFTER_THE_RISE = frozenset({"cosine", "cosine_restarts", "linear"})


def find_lr_schedule(name: str) -> LrSchedule:
    """Return a schedule by name; ``ConfigError`` with the nearest one otherwise."""
    if name not in LR_SCHEDULES:
        raise ConfigError(f"unknown lr_schedule {name!r}. {nearest(name, LR_SCHEDULES)}")
    return LR_SCHEDULES[name]


def lr_at(recipe: Recipe, progress: float, losses: Sequence[float] = ()) -> float:
    """Return the learning rate of a recipe at a point of its schedule.

    Over the share ``warmup`` of the run it rises from 0 in a straight line. The cosines and the straight line fall over
    the rest of the run. The other schedules run over the whole of it, and the rise multiplies them.

    Args:
        recipe: names the schedule and its numbers.
        progress: share of the schedule's optimizer steps that is done; frozen epochs come before and do not count.
        losses: training losses of the schedule's epochs that are done, in order; only ``plateau`` looks at them.
    """
    schedule, rise, place = find_lr_schedule(recipe.lr_schedule), 1.0, progress
    if recipe.warmup > 0 and recipe.lr_schedule not in RISES_BY_ITSELF:
        rise = min(1.0, progress / recipe.warmup)
        if recipe.lr_schedule in BEGINS_AFTER_THE_RISE:
            place = max(0.0, progress - recipe.warmup) / (1.0 - recipe.warmup)
    return recipe.lr * rise * schedule(place, recipe, losses)


def frozen_lr_at(recipe: Recipe, progress: float) -> float:
    """Return the learning rate of the frozen epochs, a one-cycle, after the share ``progress`` of their steps."""
    return recipe.frozen_lr * _one_cycle(progress, FROZEN_RISE)
