"""JUDGES: how a run is judged at a rung inside it. What each costs is told, and counts as epochs."""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from ichtune.errors import ConfigError, nearest

if TYPE_CHECKING:
    from ichtune.training.loop import TrainingRun

#: Trains the epoch at whose end the rung lies, and judges: ``loss`` (None: the epoch's own), ``epochs``, ``seconds``.
Judge = Callable[["TrainingRun", float], dict[str, Any]]


def _last(run: "TrainingRun", length: float) -> dict[str, Any]:
    """Judge by the validation loss as it is: what most searches do, and what ranks falsely while the rate is high."""
    run.run_epoch()
    return {"loss": None, "epochs": 0.0, "seconds": 0.0}


def _average(run: "TrainingRun", length: float) -> dict[str, Any]:
    """Judge by the mean of the weights over the epoch's steps."""
    from ichtune.training.branch import run_averaged_epoch

    judged = run_averaged_epoch(run)
    return {"loss": judged.val_weighted_log_loss, "epochs": judged.epochs, "seconds": judged.seconds}


def _cooldown(run: "TrainingRun", length: float) -> dict[str, Any]:
    """Judge by a branch on which the learning rate is annealed over ``length`` epochs."""
    from ichtune.training.branch import cooldown

    run.run_epoch()
    judged = cooldown(run, length)
    return {"loss": judged.val_weighted_log_loss, "epochs": judged.epochs, "seconds": judged.seconds}


#: Judges by the name that a search space gives as ``early_stop: {judge: ...}``; ``short`` has runs of its own instead.
JUDGES: dict[str, Judge] = {"cooldown": _cooldown, "average": _average, "last": _last}


def find_judge(name: str) -> Judge:
    """Return a judge by name; ``ConfigError`` with the nearest one otherwise."""
    if name not in JUDGES:
        raise ConfigError(f"unknown judge {name!r}. {nearest(name, JUDGES)}")
    return JUDGES[name]
