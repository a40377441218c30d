"""The table of blenders: being listed here is being offered, and being tested."""

from collections.abc import Mapping
from dataclasses import fields
from typing import Any

from ichtune.ensemble.auto import Auto
from ichtune.ensemble.base import Blender
from ichtune.ensemble.best_member import BestMember
from ichtune.ensemble.convex import Convex
from ichtune.ensemble.equal_mean import EqualMean
from ichtune.ensemble.equal_mean_logit import EqualMeanLogit
from ichtune.ensemble.greedy import Greedy
from ichtune.ensemble.logit_scaling import LogitScaling
from ichtune.ensemble.model_averaging import ModelAveraging
from ichtune.ensemble.nonnegative import NonNegativeLeastSquares
from ichtune.ensemble.power_mean import PowerMean
from ichtune.ensemble.rank_mean import RankMean
from ichtune.ensemble.stacking import LogisticStacking
from ichtune.errors import ConfigError, nearest

BLENDERS: dict[str, type[Blender]] = {
    "equal_mean": EqualMean,
    "equal_mean_logit": EqualMeanLogit,
    "best_member": BestMember,
    "rank_mean": RankMean,
    "power_mean": PowerMean,
    "greedy": Greedy,
    "convex": Convex,
    "logit_scaling": LogitScaling,
    "logistic_stacking": LogisticStacking,
    "nnls": NonNegativeLeastSquares,
    "model_averaging": ModelAveraging,
    "auto": Auto,
}


def create_blender(name: str, parameters: Mapping[str, Any] | None = None) -> Blender:
    """Return a new, unfitted blender.

    Args:
        name: a key of ``BLENDERS``.
        parameters: its settings; absent ones take their defaults.

    Raises:
        ConfigError: an unknown name, parameter or value; the nearest known one is named.
    """
    if name not in BLENDERS:
        raise ConfigError(f"unknown blender {name!r}. {nearest(name, BLENDERS)}")
    known = blender_parameters(name)
    for key in parameters or {}:
        if key not in known:
            hint = nearest(key, known) if known else "It has no parameters: leave them out."
            raise ConfigError(f"blender {name!r} has no parameter {key!r}. {hint}")
    return BLENDERS[name](**(parameters or {}))


def blender_parameters(name: str) -> tuple[str, ...]:
    """Return the names of the settings of one blender, in order."""
    return tuple(field.name for field in fields(BLENDERS[name]) if field.init)  # type: ignore[arg-type]
