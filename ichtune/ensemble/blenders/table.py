"""The table of blenders: being listed here is being offered, and being tested."""

from collections.abc import Mapping
from dataclasses import fields
from typing import Any

from ichtune.ensemble.blenders.auto import Auto
from ichtune.ensemble.blenders.base import Blender
from ichtune.ensemble.blenders.best_member import BestMember
from ichtune.ensemble.blenders.convex import Convex
from ichtune.ensemble.blenders.equal_mean import EqualMean
from ichtune.ensemble.blenders.equal_mean_logit import EqualMeanLogit
from ichtune.ensemble.blenders.greedy import Greedy
from ichtune.ensemble.blenders.logit_scaling import LogitScaling
from ichtune.ensemble.blenders.model_averaging import ModelAveraging
from ichtune.ensemble.blenders.nonnegative import NonNegativeLeastSquares
from ichtune.ensemble.blenders.power_mean import PowerMean
from ichtune.ensemble.blenders.rank_mean import RankMean
from ichtune.ensemble.blenders.stacking import LogisticStacking
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
