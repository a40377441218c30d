"""The parts of a search space beside its parameters: how long, on what, on which folds, judged how."""

import math
from dataclasses import asdict, dataclass, field, fields
from typing import Any

from ichtune.errors import nearest
from ichtune.space.setting_fields import (
    AUTO,
    SettingError,
    above_zero,
    amount,
    check_settings,
    check_whole,
    memory_mb,
    name,
    names,
    one_of,
    read_memory_mb,
    read_time_s,
    special,
    time_s,
    whole,
)

__all__ = [
    "AUTO",
    "FIDELITIES",
    "JUDGES",
    "METRIC_NAME",
    "MODES",
    "EarlyStop",
    "FoldSettings",
    "MetricSettings",
    "Resources",
    "SearchSettings",
    "SettingError",
    "TrainSettings",
    "read_memory_mb",
    "read_time_s",
]

METRIC_NAME = "val_weighted_log_loss"
MODES = {"minimize": "min", "min": "min", "maximize": "max", "max": "max"}
#: The ``early_stop`` that stops no trial.
NO_STOP = "none"
#: What a rung ranks trials by: the loss after a short cooldown branched off the trial, that of weights averaged over an
#: epoch, the loss as it stands, or that of complete short schedules.
JUDGES = ("cooldown", "average", "last", "short")
#: What a rung gives more of: epochs, pixels of the image, or patients.
FIDELITIES = ("epochs", "image_px", "patients")
#: Longest branch that a cooldown may train: beyond it judging costs more than training.
MAX_COOLDOWN_EPOCHS = 8.0


@dataclass(frozen=True)
class MetricSettings:
    """What is minimised: the competition's weighted log loss on the validation fold.

    Attributes:
        name: of the metric; there is one.
        goal: minimize.
    """

    name: str = special(METRIC_NAME)
    goal: str = special("min")

    def __post_init__(self) -> None:
        if self.name != METRIC_NAME:
            raise SettingError("name", f"unknown metric {self.name!r}. {nearest(str(self.name), [METRIC_NAME])}")
        if MODES.get(self.goal) != "min":
            raise SettingError("goal", f"must be minimize, because {METRIC_NAME} is a loss, got {self.goal!r}")
        object.__setattr__(self, "goal", "min")


@dataclass(frozen=True)
class EarlyStop:
    """How unpromising trials are stopped.

    Attributes:
        type: a scheduler's name from ``ichtune.search``, or ``none``.
        grace: epochs that every trial gets.
        max: epochs after which the scheduler lets a trial end; None until the epochs of the space are known.
        factor: of so many trials at a rung one goes on.
        judge: what a rung ranks trials by, one of ``JUDGES``.
        cooldown: epochs that the branch of a ``cooldown`` trains.
        fidelity: what a rung gives more of, one of ``FIDELITIES``.
    """

    type: str = name(NO_STOP)
    grace: int = whole(1, 1)
    max: int | None = whole(None, 1)
    factor: int = whole(2, 2)
    judge: str = one_of("last", JUDGES)
    cooldown: float = above_zero(0.5, MAX_COOLDOWN_EPOCHS)
    fidelity: str = one_of("epochs", FIDELITIES)

    def __post_init__(self) -> None:
        check_settings(self)
        if self.max is not None and self.grace > self.max:
            raise SettingError("grace", f"must not exceed max, got grace {self.grace} and max {self.max}")

    @property
    def without_effect(self) -> dict[str, str]:
        """The settings that change nothing, each with the one because of which they do not."""
        if self.type == NO_STOP:
            return {spec.name: "type" for spec in fields(self) if spec.name != "type"}
        if self.fidelity != "epochs":  # rungs are complete runs, which are judged as they are
            return {"judge": "fidelity", "cooldown": "fidelity"}
        return {} if self.judge == "cooldown" else {"cooldown": "judge"}

    @property
    def effective(self) -> dict[str, Any]:
        """The settings that decide anything, by name."""
        return {key: value for key, value in asdict(self).items() if key not in self.without_effect}


@dataclass(frozen=True)
class SearchSettings:
    """How the space is searched.

    Attributes:
        algorithm: a searcher's name from ``ichtune.search``.
        trials: how many recipes are tried.
        time_s: wall-clock seconds after which a run of the search ends, trials and all; None without limit.
        seed: seed of the searcher.
        early_stop: how unpromising trials are stopped.
        concurrent: trials at a time; None as many as the resources hold.
        gpu_hours: hours of GPUs, counted over every trial, after which the search ends; None without limit.
        until_no_gain: the search ends after so many trials in a row without a better loss; None without limit.
        learn_from: names of earlier searches in the workspace whose trials the searcher starts with.
    """

    algorithm: str = name("tpe")
    trials: int = whole(20, 1)
    time_s: float | None = time_s()
    seed: int = whole(7, 0, 2**31 - 1)
    early_stop: EarlyStop = field(default_factory=EarlyStop)
    concurrent: int | None = whole(None, 1)
    gpu_hours: float | None = above_zero(None)
    until_no_gain: int | None = whole(None, 1)
    learn_from: tuple[str, ...] = names()

    def __post_init__(self) -> None:
        check_settings(self)


@dataclass(frozen=True)
class Resources:
    """What one trial asks for; a GPU share counts only where there are GPUs.

    Attributes:
        gpu: GPUs a trial: a share of one, or a whole number; ``auto`` is read as ``auto=True``.
        cpu: CPU cores a trial; may be a share.
        gpu_memory_mb: MiB of a GPU's memory that a trial may take; None leaves it to the share. Read from a number or
            from text such as ``12GiB``.
        auto: whether a probe measures what a trial takes, in place of ``gpu``.
    """

    gpu: float = amount(1.0)
    cpu: float = amount(1.0)
    gpu_memory_mb: float | None = memory_mb()
    auto: bool = special(False)

    def __post_init__(self) -> None:
        if self.gpu == AUTO:
            object.__setattr__(self, "gpu", 1.0)
            object.__setattr__(self, "auto", True)
        if isinstance(self.gpu, str):
            raise SettingError("gpu", f"must be a number of at least 0 or {AUTO}, got {self.gpu!r}")
        if not isinstance(self.auto, bool):
            raise SettingError("auto", f"must be true or false, got {self.auto!r}")
        check_settings(self)
        if self.gpu > 1 and not self.gpu.is_integer():
            raise SettingError("gpu", f"above 1 must be a whole number, got {self.gpu:g}; shares are of one device")
        if self.gpu == 0 and self.cpu == 0:
            raise SettingError("cpu", "a trial needs something to run on, got gpu 0 and cpu 0; give cpu at least 0.1")
        if self.gpu_memory_mb is not None and self.gpu == 0:
            raise SettingError("gpu_memory_mb", "needs a share of a GPU, got gpu 0; leave it out, or give a share")


@dataclass(frozen=True)
class FoldSettings:
    """Which folds trials are judged on; ``k`` and ``seed`` None mean whatever plan the workspace has.

    Attributes:
        k: folds that the workspace must have.
        seed: seed of its fold plan.
        search_on: the folds that trials are judged on.
    """

    k: int | None = whole(None, 2)
    seed: int | None = whole(None, 0, 2**31 - 1)
    search_on: tuple[int, ...] = special((0,))

    def __post_init__(self) -> None:
        check_settings(self)
        folds = self.search_on if isinstance(self.search_on, list | tuple) else (self.search_on,)
        if not folds:
            raise SettingError("search_on", "must name at least one fold, got an empty list; write [0]")
        for fold in folds:
            check_whole("search_on", fold, 0, math.inf if self.k is None else self.k - 1)
        if len(set(folds)) < len(folds):
            raise SettingError("search_on", f"must name each fold once, got {list(folds)}")
        object.__setattr__(self, "search_on", tuple(folds))


@dataclass(frozen=True)
class TrainSettings:
    """What follows a search: how many of its distinct winners are trained on every fold.

    Attributes:
        top: that number.
    """

    top: int = whole(3, 1)

    def __post_init__(self) -> None:
        check_settings(self)
