"""Which learning rate to take: one short training with a rate that grows, and what its loss says.

Source: Smith, Cyclical Learning Rates for Training Neural Networks, WACV 2017.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from ichtune.errors import ConfigError, DataError

#: Decay of the loss's running average: it lags by about 10 steps, 0.8 of the 8 decades that 100 steps sweep by default.
SMOOTHING = 0.9
#: The sweep ends when the smoothed loss is this many times the lowest one.
DIVERGED = 4.0


@dataclass(frozen=True)
class LrCurve:
    """A sweep: the learning rate of each step, ascending, the loss that it started from, and its running average."""

    lrs: tuple[float, ...]
    losses: tuple[float, ...]
    smoothed: tuple[float, ...]


@dataclass(frozen=True)
class LrSuggestion:
    """Two rules of thumb: where the loss falls fastest, and a tenth of where it is lowest."""

    steepest: float
    minimum_tenth: float


def find_lr(step: Callable[[float], float], low: float = 1e-7, high: float = 10.0, n_steps: int = 100) -> LrCurve:
    """Train while the learning rate grows by one factor a step, until the loss diverges or the last rate is reached.

    Args:
        step: does one optimizer step at the given learning rate and returns its loss, above 0.
        low: first learning rate.
        high: last learning rate.
        n_steps: steps between them, both included.

    Returns:
        The sweep, without a last loss that was not a number.

    Raises:
        ConfigError: no ascending rates above 0, or fewer than 3 steps.
        DataError: fewer than 3 losses were numbers.
    """
    if not 0 < low < high < math.inf or n_steps < 3:
        raise ConfigError(
            f"a learning-rate sweep needs 0 < low < high and at least 3 steps, got {low:g}, {high:g} and {n_steps}"
        )
    lrs: list[float] = []
    losses: list[float] = []
    smoothed: list[float] = []
    average = 0.0
    for i in range(n_steps):
        lr = low * (high / low) ** (i / (n_steps - 1))
        loss = step(lr)
        if not math.isfinite(loss):
            break
        average = SMOOTHING * average + (1.0 - SMOOTHING) * loss
        lrs.append(lr)
        losses.append(loss)
        smoothed.append(average / (1.0 - SMOOTHING ** (i + 1)))
        if smoothed[-1] > DIVERGED * min(smoothed):
            break
    if len(lrs) < 3:
        raise DataError(f"the loss must be a number for at least 3 steps, got {losses} from lr {low:g} on; start lower")
    return LrCurve(tuple(lrs), tuple(losses), tuple(smoothed))


def suggest(curve: LrCurve) -> LrSuggestion:
    """Read two learning rates off a sweep.

    Raises:
        DataError: the loss never falls.
    """
    smoothed = np.asarray(curve.smoothed)
    lowest = int(smoothed.argmin())
    slopes = np.gradient(smoothed, np.log(curve.lrs))[: lowest + 1]
    if lowest == 0 or slopes.min() >= 0:
        raise DataError(
            f"the loss never falls between lr {curve.lrs[0]:g} and {curve.lrs[-1]:g}, so no rate can be suggested; "
            f"sweep other rates or take more steps"
        )
    return LrSuggestion(steepest=curve.lrs[int(slopes.argmin())], minimum_tenth=curve.lrs[lowest] / 10.0)
