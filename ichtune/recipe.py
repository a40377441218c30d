"""Recipe: every choice of one training run, frozen, and equal to another one if and only if their ids are equal."""

import hashlib
import json
import math
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any

from ichtune.errors import ConfigError, nearest
from ichtune.labels import METRIC_WEIGHTS, N_LABELS
from ichtune.windows import WINDOW_SETS, Window, resolve_windows, window_set_name

#: Hexadecimal digits of a recipe_id: 48 bits, enough for a search of a million recipes.
ID_DIGITS = 12
#: What a slice may be cut to before it is resized: nothing, the head of its series, or what is bright in the slice.
CROPS = ("none", "head", "tight")

#: What a whole number without an upper bound may be.
_LARGEST = 2**53


def _at_least(low: float) -> tuple[float, float]:
    return (low, math.inf)


#: Inclusive bounds of the numeric fields.
_BOUNDS: dict[str, tuple[float, float]] = {
    "image_px": (16, 2048),
    "neighbours": (0, 8),
    "lr": (1e-8, 100.0),
    "weight_decay": (0.0, 10.0),
    "momentum": (0.0, 0.9999),
    "anneal_start": (0.0, 1.0),
    "warmup": (0.0, 0.9),
    "epochs": _at_least(1),
    "batch_size": _at_least(1),
    "ema_decay": (0.0, 0.99999),
    "dropout": (0.0, 0.95),
    "seed": (0, 2**31 - 1),
}


@dataclass(frozen=True)
class Recipe:
    """What to do in one training run; doing it on one fold is a run.

    Attributes:
        architecture: a name from ``ichtune.models.ARCHITECTURES`` or any timm name.
        windows: window set, by name or as [centre, width] pairs in HU; applied to raw HU in the batch.
        image_px: side of the square network input, pixels.
        crop: what of a slice is seen, from ``CROPS``; ``ichtune prepare --crop`` computes it once.
        neighbours: slices of the same series on each side that are stacked as extra channels.
        loss: a name from ``ichtune.training.losses.LOSSES``.
        loss_weights: six weights in label order; (2, 1, 1, 1, 1, 1) is the metric itself.
        optimizer: a name from ``ichtune.training.optimizers.OPTIMIZERS``.
        lr: peak learning rate.
        weight_decay: decoupled weight decay; none on norms and biases.
        momentum: momentum of SGD; other optimizers do not read it.
        lr_schedule: a name from ``ichtune.training.lr_schedules.LR_SCHEDULES``.
        anneal_start: share of the run after which the flat learning rate is annealed by a cosine.
        warmup: share of the run over which the learning rate rises linearly from zero.
        epochs: passes over the training slices; also the length of the schedule.
        batch_size: slices a step.
        ema_decay: decay a step of the exponential average of the weights that is evaluated; 0 evaluates raw weights.
        dropout: dropout before the classifier.
        augmentation: a name from ``ichtune.data.augment.AUGMENTATIONS``.
        pretrained: False, a path to a safetensors file, or True: timm's weights from the user's own hub cache, which
            timm fills from the network if they are not there and HF_HUB_OFFLINE does not forbid it.
        seed: seed of initial weights, order and augmentation.
    """

    architecture: str = "resnet18"
    windows: tuple[Window, ...] = WINDOW_SETS["brain_subdural_bone"]
    image_px: int = 224
    crop: str = "none"
    neighbours: int = 0
    loss: str = "bce"
    loss_weights: tuple[float, ...] = METRIC_WEIGHTS
    optimizer: str = "adamw"
    lr: float = 1e-3
    weight_decay: float = 1e-2
    momentum: float = 0.9
    lr_schedule: str = "flat_cosine"
    anneal_start: float = 0.7
    warmup: float = 0.05
    epochs: int = 4
    batch_size: int = 64
    ema_decay: float = 0.0
    dropout: float = 0.0
    augmentation: str = "flip"
    pretrained: bool | str = False
    seed: int = 7

    def __post_init__(self) -> None:
        object.__setattr__(self, "windows", resolve_windows(self.windows))
        object.__setattr__(self, "loss_weights", _loss_weights(self.loss_weights))
        for field in fields(self):
            if field.type in (int, float):
                object.__setattr__(self, field.name, _number(field.name, getattr(self, field.name), field.type))
            elif field.type is str and not isinstance(getattr(self, field.name), str):
                raise ConfigError(f"recipe key {field.name!r} must be a name, got {getattr(self, field.name)!r}")
        if self.crop not in CROPS:
            raise ConfigError(f"recipe key 'crop' must be one of {', '.join(CROPS)}. {nearest(self.crop, CROPS)}")
        if not isinstance(self.pretrained, bool | str):
            raise ConfigError(f"recipe key 'pretrained' must be true, false or a path, got {self.pretrained!r}")
        if self.anneal_start < self.warmup:
            raise ConfigError(
                f"recipe key 'anneal_start' must not lie before the end of 'warmup', got anneal_start "
                f"{self.anneal_start:g} and warmup {self.warmup:g}"
            )

    @property
    def recipe_id(self) -> str:
        """Hash of every field; the run's name on disk and in every table."""
        text = json.dumps(_explicit(self), sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(text.encode()).hexdigest()[:ID_DIGITS]

    @property
    def n_channels(self) -> int:
        """Input channels of the network: windows times slices."""
        return len(self.windows) * (1 + 2 * self.neighbours)

    @property
    def summary(self) -> str:
        """One short line for tables, logs and the dashboard."""
        neighbours = f"|±{self.neighbours}" if self.neighbours else ""
        size = f"{self.image_px}px" + ("" if self.crop == CROPS[0] else f" {self.crop}")
        return f"{self.architecture}|{window_set_name(self.windows)}{neighbours}|{size}|lr={self.lr:.1e}"

    def to_dict(self) -> dict[str, Any]:
        """Return plain values for YAML or JSON; a window set that has a name is written by it."""
        plain = _explicit(self)
        name = window_set_name(self.windows)
        if name in WINDOW_SETS:
            plain["windows"] = name
        return plain

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "Recipe":
        """Build a recipe from plain values; absent keys take the defaults.

        Raises:
            ConfigError: an unknown key (the nearest known one is named) or a value out of range.
        """
        known = [field.name for field in fields(cls)]
        for key in values:
            if key not in known:
                raise ConfigError(f"unknown recipe key {key!r}. {nearest(key, known)}")
        return cls(**values)


def recipe_keys() -> tuple[str, ...]:
    """Return the names of every field, in order: the parameters that a search space may vary."""
    return tuple(field.name for field in fields(Recipe))


def _explicit(recipe: Recipe) -> dict[str, Any]:
    plain = {field.name: getattr(recipe, field.name) for field in fields(recipe)}
    plain["windows"] = [[w.center_hu, w.width_hu] for w in recipe.windows]
    plain["loss_weights"] = list(recipe.loss_weights)
    return plain


def _number(name: str, value: Any, kind: type) -> int | float:
    low, high = _BOUNDS[name]
    is_number = isinstance(value, int | float) and not isinstance(value, bool) and value == value  # not NaN
    if not is_number or (kind is int and value % 1 != 0):
        what = "a whole number" if kind is int else "a number"
        raise ConfigError(f"recipe key {name!r} must be {what}, got {value!r}")
    if not low <= value <= min(high, _LARGEST):
        bounds = f"at least {low:g}" if math.isinf(high) else f"between {low:g} and {high:g}"
        raise ConfigError(f"recipe key {name!r} must be {bounds}, got {value!r}")
    return int(value) if kind is int else float(value) + 0.0  # minus zero equals zero and must hash like it


def _loss_weights(value: Any) -> tuple[float, ...]:
    numbers = isinstance(value, Sequence) and all(
        isinstance(w, int | float) and not isinstance(w, bool) and abs(w) <= sys.float_info.max for w in value
    )
    weights = tuple(float(w) + 0.0 for w in value) if numbers else ()
    if len(weights) != N_LABELS or min(weights) < 0 or sum(weights) <= 0:
        raise ConfigError(
            f"recipe key 'loss_weights' must be {N_LABELS} numbers of at least 0 in label order, got {value!r}"
        )
    return weights
