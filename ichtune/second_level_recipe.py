"""SecondLevelRecipe: every choice of one model that learns from other runs' predictions, slices in series order.

It is hashed, written and searched as a ``Recipe`` is; the key ``level: 2`` tells the two apart wherever plain values
are read.
"""

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any, ClassVar

from ichtune.errors import ConfigError, nearest
from ichtune.labels import METRIC_WEIGHTS
from ichtune.recipe import ID_DIGITS, Recipe
from ichtune.recipe_fields import checked, label_weights, number, one_of, special, switch, whole

LEVEL = 2
SEQUENCES = ("gru", "lstm", "conv", "transformer")
TREES = ("hist_gradient_boosting", "lightgbm")
SMOOTHERS = ("kernel", "gaussian")
MODELS = (*SEQUENCES, *TREES, *SMOOTHERS)
#: Fixed weights of a slice and its neighbours, of teams of the 2019 competition; .6, 1.8, .6 is the first.
KERNELS = {"1-3-1": (1.0, 3.0, 1.0), "1-2-1": (1.0, 2.0, 1.0)}
#: Every complete run of the first level.
ALL = "all"


@dataclass(frozen=True)
class SecondLevelRecipe:
    """What to do in one run of the second level, which learns from the out-of-fold predictions of the other folds.

    Every key is a dimension that a search space may vary; those that the model does not read are put at their defaults,
    so that equal runs have one id.
    """

    level: ClassVar[int] = LEVEL

    model: str = one_of("gru", MODELS, "what learns: a sequence model, boosted trees, or smoothing along the series")
    members: str | tuple[str, ...] = special(ALL, "recipe_ids of the runs that it learns from; `all` complete ones")
    # what it sees of each slice
    deltas: bool = switch(True, "also differences of log odds to the slices below and above")
    spacing: bool = switch(True, "also the distance to the slices below and above, and the place in the series")
    embeddings: int = whole(
        0, 0, 256, "also so many principal components of each run's embeddings; 0 sees probabilities only"
    )
    metadata: bool = switch(
        False, "also how the slice was acquired: a scanner may then stand for a diagnosis, see `metadata_only`"
    )
    metadata_only: bool = switch(False, "nothing but how it was acquired: the score that metadata alone buys")
    # sequence models
    hidden: int = whole(64, 4, 1024, "width of a sequence model")
    layers: int = whole(2, 1, 12, "layers of a sequence model")
    heads: int = whole(4, 1, 16, "attention heads of `transformer`; divides `hidden`")
    dropout: float = number(0.2, 0.0, 0.9, "dropout of a sequence model")
    epochs: int = whole(15, 1, 1000, "passes over the series")
    lr: float = number(2e-3, 1e-6, 1.0, "peak learning rate, annealed by a cosine")
    weight_decay: float = number(1e-2, 0.0, 10.0, "weight decay")
    batch_size: int = whole(16, 1, 4096, "series a step")
    subsample: float = number(0.5, 0.0, 1.0, "probability that a series is shown with every second slice only")
    reverse: float = number(0.5, 0.0, 1.0, "probability that a series is shown upside down")
    tta: bool = switch(True, "predict the series both ways up, and average log odds")
    loss_weights: tuple[float, ...] = label_weights(METRIC_WEIGHTS, "weight of each label's loss")
    # boosted trees
    neighbours: int = whole(5, 0, 30, "slices on either side whose predictions are features")
    aggregates: bool = switch(True, "also aggregates of the series, ranks in it, and rolling means and extremes")
    rounds: int = whole(60, 1, 10_000, "trees a label")
    learning_rate: float = number(0.06, 1e-4, 1.0, "shrinkage of each tree")
    leaves: int = whole(6, 2, 1024, "leaves a tree")
    min_slices: int = whole(100, 1, 100_000, "slices a leaf at least; where slices are few, a twentieth of them")
    l2: float = number(10.0, 0.0, 1e4, "penalty on leaf values")
    feature_share: float = number(0.5, 0.01, 1.0, "share of the features that a split looks at")
    # smoothing
    kernel: str = one_of("1-3-1", tuple(KERNELS), "weights of a slice and its two neighbours, of `kernel`")
    seed: int = whole(7, 0, 2**31 - 1, "seed of everything random")

    def __post_init__(self) -> None:
        object.__setattr__(self, "members", _members(self.members))
        for spec in fields(self):
            object.__setattr__(self, spec.name, checked(spec, getattr(self, spec.name)))
        for key in _without_effect(self):
            object.__setattr__(self, key, _FIELDS[key].default)
        if self.model == "transformer" and self.hidden % self.heads:
            raise ConfigError(
                f"recipe key 'heads' must divide 'hidden', got heads {self.heads} and hidden {self.hidden}"
            )
        if self.metadata_only and self.model in SMOOTHERS:
            raise ConfigError(f"recipe key 'metadata_only' has no meaning for {self.model}, which smooths predictions")

    @property
    def recipe_id(self) -> str:
        """Hash of every key that is not at its default, and of the level."""
        told = {key: value for key, value in _explicit(self).items() if value != _DEFAULTS[key]}
        text = json.dumps({"level": LEVEL, **told}, sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(text.encode()).hexdigest()[:ID_DIGITS]

    @property
    def summary(self) -> str:
        """One short line for tables, logs and the dashboard."""
        of = "all runs" if self.members == ALL else f"{len(self.members)} run{'s' * (len(self.members) != 1)}"
        told = {
            **dict.fromkeys(SEQUENCES, f"hidden={self.hidden}|lr={self.lr:.1e}"),
            **dict.fromkeys(TREES, f"±{self.neighbours}|leaves={self.leaves}|rounds={self.rounds}"),
            "kernel": self.kernel,
            "gaussian": "width per label",
        }
        return f"{self.model} on {of}|{told[self.model]}"

    @property
    def n_epochs(self) -> int:
        """Epochs of a run on one fold; trees and smoothing are fitted in one."""
        return self.epochs if self.model in SEQUENCES else 1

    @property
    def kind(self) -> tuple[object, ...]:
        """What sets it apart from others beside its optimisation."""
        return (self.model, self.members, self.embeddings > 0, self.metadata, self.metadata_only)

    def to_dict(self) -> dict[str, Any]:
        """Return plain values for YAML or JSON, the level first."""
        return {"level": LEVEL, **_explicit(self)}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "SecondLevelRecipe":
        """Build a recipe from plain values; absent keys take the defaults.

        Raises:
            ConfigError: an unknown key (the nearest known one is named), another level, or a value out of range.
        """
        told = dict(values)
        level = told.pop("level", LEVEL)
        if level != LEVEL or isinstance(level, bool):
            raise ConfigError(f"recipe key 'level' must be {LEVEL} here, got {level!r}")
        for key in told:
            if key not in _FIELDS:
                raise ConfigError(f"unknown recipe key {key!r} of the second level. {nearest(key, list(_FIELDS))}")
        return cls(**told)


AnyRecipe = Recipe | SecondLevelRecipe


def recipe_from_dict(values: Mapping[str, Any]) -> AnyRecipe:
    """Build a recipe of either level from plain values; ``level: 2`` makes it one of the second.

    Raises:
        ConfigError: see ``Recipe.from_dict`` and ``SecondLevelRecipe.from_dict``.
    """
    if "level" not in values:
        return Recipe.from_dict(values)
    if values["level"] == 1 and not isinstance(values["level"], bool):
        return Recipe.from_dict({key: value for key, value in values.items() if key != "level"})
    return SecondLevelRecipe.from_dict(values)


def second_level_keys() -> tuple[str, ...]:
    """Return the names of every field, in order: the parameters that a search space of level 2 may vary."""
    return tuple(field.name for field in fields(SecondLevelRecipe))


def _members(value: Any) -> str | tuple[str, ...]:
    if value == ALL:
        return ALL
    is_list = isinstance(value, list | tuple) and all(
        isinstance(one, str) and re.fullmatch(rf"[0-9a-f]{{{ID_DIGITS}}}", one) for one in value
    )
    if not is_list or not value:
        raise ConfigError(
            f"recipe key 'members' must be `all` or a list of recipe_ids of {ID_DIGITS} digits in quotes, got {value!r}"
        )
    return tuple(sorted(set(value)))


def _explicit(recipe: SecondLevelRecipe) -> dict[str, Any]:
    plain = {spec.name: getattr(recipe, spec.name) for spec in fields(recipe)}
    plain["loss_weights"] = list(recipe.loss_weights)
    plain["members"] = recipe.members if recipe.members == ALL else list(recipe.members)
    return plain


_OF_SEQUENCES = (
    *("hidden", "layers", "dropout", "epochs", "lr", "weight_decay", "batch_size", "subsample", "reverse", "tta"),
    *("loss_weights", "embeddings", "deltas"),
)
_OF_TREES = ("neighbours", "aggregates", "rounds", "learning_rate", "leaves", "min_slices", "l2", "feature_share")


def _without_effect(recipe: SecondLevelRecipe) -> list[str]:
    """Keys that the model does not read: at their defaults, the same run has one id."""
    idle: list[str] = []
    if recipe.model not in SEQUENCES:
        idle += _OF_SEQUENCES
    if recipe.model not in TREES:
        idle += _OF_TREES
    if recipe.model != "transformer":
        idle.append("heads")
    if recipe.model != "kernel":
        idle.append("kernel")
    if recipe.model in SMOOTHERS:
        idle += ["spacing", "metadata", "seed"]
    if recipe.metadata_only:
        idle += ["metadata", "deltas", "spacing", "embeddings", "neighbours", "aggregates"]
    return idle


_FIELDS = {spec.name: spec for spec in fields(SecondLevelRecipe)}
_DEFAULTS = _explicit(SecondLevelRecipe())
