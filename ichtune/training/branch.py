"""Judging a run before its end: a short cooldown on a branch, after which the run goes on as if there had been none.

With a learning rate that stays high for long, the validation loss of an early epoch ranks recipes by how little they
still move, and not by where they will end. A branch anneals the rate over a few steps, is judged, and is thrown away.
"""

import math
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np

from ichtune.metrics import weighted_log_loss
from ichtune.training.averages import EqualAverage
from ichtune.training.devices import batches_on
from ichtune.training.loop import TrainingRun


@dataclass(frozen=True)
class BranchResult:
    """How a branch was judged.

    Attributes:
        val_weighted_log_loss: on the held-out rows after the cooldown, in nats; NaN if it diverged.
        epochs: optimizer steps that it cost, in epochs.
        seconds: that it took.
    """

    val_weighted_log_loss: float
    epochs: float
    seconds: float


def cooldown(run: TrainingRun, n_epochs: float) -> BranchResult:
    """Anneal a run's learning rate to zero on a branch and judge it; the run itself is left as it was, to the bit.

    The branch sees the batches that come next. Its rate falls from that of the last step in a straight line to zero.
    The plain weights are judged, because an average that the recipe keeps has not followed them yet.

    Args:
        run: at the end of an epoch.
        n_epochs: length of the branch, above 0; it takes at least one step.

    Source: Hägele et al., Scaling Laws and Compute-Optimal Training Beyond Fixed Training Durations, NeurIPS 2024: runs
    with a constant rate and a cooldown on a branch tell what complete runs of each length would come to.
    """
    start = time.perf_counter()
    n_steps = max(1, round(n_epochs * run.steps_an_epoch))
    with left_as_it_was(run):
        first_lr = run.lr_now
        for step, batch in enumerate(_next_batches(run, n_steps)):
            run.step(batch, first_lr * (1.0 - (step + 0.5) / n_steps))
        loss = plain_loss(run)
    return BranchResult(loss, n_steps / run.steps_an_epoch, time.perf_counter() - start)


def run_averaged_epoch(run: TrainingRun) -> BranchResult:
    """Train an epoch as usual, and judge the mean of the weights over its steps.

    The run's own result joins its history as always; an epoch that was begun before is averaged from there.
    """
    average = EqualAverage(run.network, keeps=True)
    run.run_epoch(lambda run: average.update(run.network))
    start = time.perf_counter()
    with average.applied_to(run.network):
        loss = plain_loss(run)
    return BranchResult(loss, 0.0, time.perf_counter() - start)


def plain_loss(run: TrainingRun) -> float:
    """Return the loss of a run's own weights on its held-out rows, in nats; NaN where they predict no numbers."""
    p_NL = run.predict_plain(run.valid_rows)
    return weighted_log_loss(run.data.labels(run.valid_rows), p_NL) if np.isfinite(p_NL).all() else math.nan


def _next_batches(run: TrainingRun, n_steps: int) -> Iterator[Any]:
    """Yield the batches that the run would see next, on its device."""
    left, epoch = n_steps, run.epoch
    run.network.train()
    while left > 0:
        for batch in batches_on(run.data.training(run.train_rows, run.recipe, epoch), run.device):
            yield batch
            left -= 1
            if left == 0:
                return
        epoch += 1


@contextmanager
def left_as_it_was(run: TrainingRun) -> Iterator[None]:
    """Let a run be trained inside the block, and be after it what it was before, to the bit."""
    before = run.snapshot()
    try:
        yield
    finally:
        run.restore(before)
