"""The parts of a search space beside its parameters: how long, on what, on which folds, judged how."""

import math
import re
from dataclasses import dataclass, field
from typing import Any

from ichtune.errors import ConfigError, nearest
from ichtune.space.domains import is_number

METRIC_NAME = "val_weighted_log_loss"
MODES = {"minimize": "min", "min": "min", "maximize": "max", "max": "max"}

_TIME = re.compile(r"(?:(\d+(?:\.\d+)?)d)?(?:(\d+(?:\.\d+)?)h)?(?:(\d+(?:\.\d+)?)m(?:in)?)?(?:(\d+(?:\.\d+)?)s)?")
_TIME_UNITS_S = (86400.0, 3600.0, 60.0, 1.0)


class SettingError(ConfigError):
    """A setting that is wrong in itself; whoever read it knows in which file and where."""

    def __init__(self, key: str, message: str) -> None:
        super().__init__(message)
        self.key = key


@dataclass(frozen=True)
class MetricSettings:
    """What is minimised: the competition's weighted log loss on the validation fold."""

    name: str = METRIC_NAME
    goal: str = "min"

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
    """

    type: str = "none"
    grace: int = 1
    max: int | None = None
    factor: int = 3

    def __post_init__(self) -> None:
        _check_name("type", self.type)
        _check_whole("grace", self.grace, 1)
        _check_whole("factor", self.factor, 2)
        if self.max is not None:
            _check_whole("max", self.max, 1)
            if self.grace > self.max:
                raise SettingError("grace", f"must not exceed max, got grace {self.grace} and max {self.max}")


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
    """

    algorithm: str = "tpe"
    trials: int = 20
    time_s: float | None = None
    seed: int = 7
    early_stop: EarlyStop = field(default_factory=EarlyStop)
    concurrent: int | None = None

    def __post_init__(self) -> None:
        _check_name("algorithm", self.algorithm)
        _check_whole("trials", self.trials, 1)
        _check_whole("seed", self.seed, 0, 2**31 - 1)
        if self.concurrent is not None:
            _check_whole("concurrent", self.concurrent, 1)
        if self.time_s is not None:
            object.__setattr__(self, "time_s", read_time_s(self.time_s))


@dataclass(frozen=True)
class Resources:
    """What one trial asks for; a GPU share counts only where there are GPUs.

    Attributes:
        gpu: GPUs a trial: a share of one, or a whole number.
        cpu: CPU cores a trial; may be a share.
    """

    gpu: float = 1.0
    cpu: float = 1.0

    def __post_init__(self) -> None:
        for key, value in (("gpu", self.gpu), ("cpu", self.cpu)):
            if not is_number(value) or value < 0:
                raise SettingError(key, f"must be a number of at least 0, got {value!r}")
            object.__setattr__(self, key, float(value))
        if self.gpu > 1 and not self.gpu.is_integer():
            raise SettingError("gpu", f"above 1 must be a whole number, got {self.gpu:g}; shares are of one device")
        if self.gpu == 0 and self.cpu == 0:
            raise SettingError("cpu", "a trial needs something to run on, got gpu 0 and cpu 0; give cpu at least 0.1")


@dataclass(frozen=True)
class FoldSettings:
    """Which folds trials are judged on; ``k`` and ``seed`` None mean whatever plan the workspace has."""

    k: int | None = None
    seed: int | None = None
    search_on: tuple[int, ...] = (0,)

    def __post_init__(self) -> None:
        if self.k is not None:
            _check_whole("k", self.k, 2)
        if self.seed is not None:
            _check_whole("seed", self.seed, 0, 2**31 - 1)
        folds = self.search_on if isinstance(self.search_on, list | tuple) else (self.search_on,)
        if not folds:
            raise SettingError("search_on", "must name at least one fold, got an empty list; write [0]")
        for fold in folds:
            _check_whole("search_on", fold, 0, math.inf if self.k is None else self.k - 1)
        if len(set(folds)) < len(folds):
            raise SettingError("search_on", f"must name each fold once, got {list(folds)}")
        object.__setattr__(self, "search_on", tuple(folds))


@dataclass(frozen=True)
class TrainSettings:
    """What follows a search: how many of its distinct winners are trained on every fold."""

    top: int = 3

    def __post_init__(self) -> None:
        _check_whole("top", self.top, 1)


def read_time_s(value: Any) -> float:
    """Read a length of time: seconds as a number, or text such as ``6h``, ``30m``, ``90s``, ``1h30m``.

    Raises:
        SettingError: neither, or not above zero.

    Example:
        >>> read_time_s("1h30m"), read_time_s("90s"), read_time_s(20)
        (5400.0, 90.0, 20.0)
    """
    seconds = math.nan
    if is_number(value):
        seconds = float(value)
    elif isinstance(value, str):
        match = _TIME.fullmatch(value.strip().lower().replace(" ", ""))
        if match and any(match.groups()):
            parts = zip(match.groups(), _TIME_UNITS_S, strict=True)
            seconds = sum(float(number) * unit_s for number, unit_s in parts if number)
    if not seconds > 0:
        raise SettingError("time", f"must be a length of time such as 6h, 30m, 90s or 1h30m, got {value!r}")
    return seconds


def _check_whole(key: str, value: Any, low: float, high: float = math.inf) -> None:
    bounds = f"at least {low:g}" if math.isinf(high) else f"between {low:g} and {high:g}"
    if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
        raise SettingError(key, f"must be a whole number, {bounds}, got {value!r}")


def _check_name(key: str, value: Any) -> None:
    if not isinstance(value, str) or not value:
        raise SettingError(key, f"must be a name, got {value!r}")
