"""Which learning rate to take: one short training with a rate that grows, and what its loss says.

Source: Smith, Cyclical Learning Rates for Training Neural Networks, WACV 2017.
"""

import copy
import itertools
import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch

from ichtune.errors import ConfigError, DataError
from ichtune.training.devices import autocast
from ichtune.training.loop import TrainingRun
from ichtune.training.losses import find_loss, reduce_loss

#: Decay of the loss's running average: it lags by about 10 steps, 0.8 of the 8 decades that 100 steps sweep by default.
SMOOTHING = 0.9
#: What losses beside those of the start are counted from, in nats: the sweep's rules speak of losses above 0.
OFFSET = 1.0
#: A sweep in which the loss falls by less than this share of the first says nothing about learning rates.
LEAST_FALL = 0.01
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


def sweep(
    run: TrainingRun,
    low: float = 1e-7,
    high: float = 10.0,
    n_steps: int = 100,
    on_step: Callable[[int, float], None] | None = None,
) -> LrCurve:
    """Sweep the learning rate of a run; its weights are spoilt, its history stays.

    Most slices hold no bleed, so that a batch's loss says more about the batch than about the weights. Each loss is
    therefore taken beside that of the weights at the start on the same batch, and the mean of the latter is added
    again.

    Args:
        run: at its start.
        low: first learning rate.
        high: last learning rate.
        n_steps: steps between them.
        on_step: called with the number of steps done and the learning rate of the last.

    Returns:
        The sweep, in nats of the training loss.

    Raises:
        ConfigError: no ascending rates above 0, or fewer than 3 steps.
        DataError: fewer than 3 losses were numbers.
    """
    network = copy.deepcopy(run.network).train()
    run.network.train()
    loss_of, batches, done = find_loss(run.recipe.loss), run.endless(), itertools.count(1)
    starts: list[float] = []

    def step(lr: float) -> float:
        x_BCHW, y_BK, weight_BK = run.prepare(next(batches))
        with torch.no_grad(), autocast(run.device):
            logits_BK = network(x_BCHW.detach())
        starts.append(float(reduce_loss(loss_of(logits_BK, y_BK, run.recipe), weight_BK)))
        loss = float(run.learn(x_BCHW, y_BK, weight_BK, lr))
        if on_step is not None:
            on_step(next(done), lr)
        return loss - starts[-1] + OFFSET

    curve = find_lr(step, low, high, n_steps)
    mean = sum(starts) / len(starts) - OFFSET
    return LrCurve(curve.lrs, *(tuple(loss + mean for loss in losses) for losses in (curve.losses, curve.smoothed)))


def suggest(curve: LrCurve) -> LrSuggestion:
    """Read two learning rates off a sweep.

    Raises:
        DataError: the loss never falls.
    """
    smoothed = np.asarray(curve.smoothed)
    lowest = int(smoothed.argmin())
    half = max(1, len(smoothed) // 20)  # a fall from one step to the next is mostly chance
    ends = np.arange(len(smoothed) - 2 * half), np.arange(2 * half, len(smoothed))
    rates = np.log(curve.lrs)
    slopes = (smoothed[ends[1]] - smoothed[ends[0]]) / (rates[ends[1]] - rates[ends[0]])
    slopes = slopes[: max(1, lowest - half + 1)]
    fall = smoothed[0] - smoothed[lowest]
    if fall < LEAST_FALL * abs(smoothed[0]) or not len(slopes) or slopes.min() >= 0:
        raise DataError(
            f"the loss never falls by {LEAST_FALL:.0%} between "
            f"lr {curve.lrs[0]:g} and {curve.lrs[-1]:g}, so no rate can be suggested; "
            f"sweep other rates or take more steps"
        )
    return LrSuggestion(steepest=curve.lrs[int(slopes.argmin()) + half], minimum_tenth=curve.lrs[lowest] / 10.0)
