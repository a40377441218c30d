"""Recipe: every choice of one training run, frozen, and equal to another one if and only if their ids are equal."""

import hashlib
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

from ichtune.errors import ConfigError, nearest
from ichtune.labels import METRIC_WEIGHTS, N_LABELS
from ichtune.recipe_fields import checked, label_weights, name, number, one_of, special, switch, whole
from ichtune.windows import WINDOW_SETS, Window, plain_windows, resolve_windows, window_set_name

#: Hexadecimal digits of a recipe_id: 48 bits, enough for a search of a million recipes.
ID_DIGITS = 12
#: What a slice may be cut to before it is resized: nothing, the head of its series, or what is bright in the slice.
CROPS = ("none", "head", "tight")
#: How features become one vector: as the network does it itself, or one of ours.
POOLINGS = ("default", "average", "max", "concat", "gem")
#: Where the logit of ``any`` comes from: its own output, the largest subtype, or 1 - prod(1 - p).
ANY_RULES = ("own", "max", "noisy_or")
#: What becomes of the neighbouring slices.
NEIGHBOUR_USES = ("stack", "mean", "slice_and_mean")
#: The sides on which neighbours lie, and the sign that stands for each.
SIDE_SIGNS = {"both": "±", "below": "-", "above": "+"}
#: Every slice under every window, or slice i under window i only.
CHANNEL_LAYOUTS = ("product", "paired")
WINDOW_SHAPES = ("linear", "sigmoid")
NORMALISATIONS = ("none", "imagenet", "data")
#: What undoes a loss or a sampling that shifts probabilities.
CALIBRATIONS = ("none", "prior_shift")
_NEUTRAL = (1.0,) * N_LABELS
_ANY = math.inf


@dataclass(frozen=True)
class Recipe:
    """What to do in one training run; doing it on one fold is a run.

    Every key is a dimension that a search space may vary. What each means, and what it may be, stands with it below and
    in ``docs/recipe-keys.md``, which is made from here.
    """

    # the network
    architecture: str = name("resnet18", "a network written here, or any timm name")
    pooling: str = one_of("default", POOLINGS, "how features become one vector; default: as the network does itself")
    dropout: float = number(0.0, 0.0, 0.95, "dropout before the classifier")
    any_rule: str = one_of("own", ANY_RULES, "the logit of `any`: its own, the largest subtype's, or 1 - prod(1 - p)")
    pretrained: bool | str = special(
        False, "false, true (timm's weights, from your own hub cache; never fetched) or the path of a safetensors file"
    )
    warm_start: str = name("", "a recipe whose weights of the same fold are the start: its name, recipe_id or a file")
    # what it sees
    windows: tuple[Window, ...] = special(
        WINDOW_SETS["brain_subdural_bone"],
        "window set, by name or as [centre, width] pairs in HU; `dicom` is the file's",
    )
    window_shape: str = one_of("linear", WINDOW_SHAPES, "the window's flanks: DICOM's linear or sigmoid function")
    learnable_windows: bool = switch(False, "centres and widths are learnt, from those of `windows`")
    window_jitter: float = number(0.0, 0.0, 0.5, "training: each slice's centre and width vary by this share of width")
    image_px: int = whole(224, 16, 2048, "side of the square network input, pixels")
    crop: str = one_of("none", CROPS, "what of a slice is seen; `ichtune prepare --crop` computes it once")
    neighbours: int = whole(0, 0, 8, "slices of the same series on each side that are seen too")
    neighbour_stride: int = whole(1, 1, 8, "distance of one neighbour to the next, in slices")
    neighbour_side: str = one_of("both", tuple(SIDE_SIGNS), "the sides of the slice on which neighbours lie")
    neighbour_use: str = one_of(
        "stack", NEIGHBOUR_USES, "neighbours as channels, the mean over them all, or the slice and that mean"
    )
    channel_layout: str = one_of(
        "product", CHANNEL_LAYOUTS, "every slice under every window, or slice i under window i"
    )
    normalisation: str = one_of(
        "none", NORMALISATIONS, "input in [-1, 1], or scaled by ImageNet's or the data's moments"
    )
    # the loss
    loss: str = name("bce", "a loss of `ichtune.training.losses.LOSSES`")
    loss_weights: tuple[float, ...] = label_weights(
        METRIC_WEIGHTS, "six weights in label order; [2, 1, 1, 1, 1, 1] is the metric itself"
    )
    focal_gamma: float = number(1.0, 0.0, 10.0, "how much less easy slices count in the focal loss")
    label_smoothing: float = number(0.0, 0.0, 0.4, "a label y is learnt as y (1 - s) + s / 2")
    boundary_softness: float = number(
        0.0, 0.0, 0.5, "the first and last slice of a bleed are learnt as 1 - s, those beside it as s"
    )
    neighbour_targets: float = number(0.0, 0.0, 2.0, "weight of the two adjacent slices' labels as further targets")
    positive_weights: tuple[float, ...] = label_weights(
        _NEUTRAL, "weight, above 0, of positive slices in each label's loss; needs `calibration`"
    )
    negative_share: float = number(
        1.0, 0.001, 1.0, "share of the slices without a bleed that an epoch draws; needs `calibration`"
    )
    slices_per_series: int = whole(0, 0, 10_000, "slices that an epoch draws from each series; 0 takes all")
    calibration: str = one_of("none", CALIBRATIONS, "what undoes positive_weights and negative_share")
    # the optimizer
    optimizer: str = name("adamw", "an optimizer of `ichtune.training.optimizers.OPTIMIZERS`")
    lr: float = number(1e-3, 1e-8, 100.0, "peak learning rate")
    weight_decay: float = number(1e-2, 0.0, 10.0, "weight decay; none on norms and biases")
    momentum: float = number(0.9, 0.0, 0.9999, "momentum of SGD; other optimizers do not read it")
    beta1: float | None = number(None, 0.0, 0.9999, "first beta; none: the optimizer's own; SGD has none")
    beta2: float | None = number(None, 0.0, 0.999999, "second beta; none: the optimizer's own")
    eps: float | None = number(None, 1e-16, 0.1, "term in the denominator; none: the optimizer's own")
    layer_lr_decay: float = number(1.0, 0.01, 1.0, "learning rate of each layer as a share of the layer's after it")
    grad_clip: float = number(0.0, 0.0, 1e6, "largest norm of the gradient; 0 does not clip")
    accumulation: int = whole(1, 1, 4096, "parts in which a batch passes through the network, to save memory")
    batch_size: int = whole(64, 1, _ANY, "slices a step")
    # the schedule
    lr_schedule: str = name("flat_cosine", "a schedule of `ichtune.training.lr_schedules.LR_SCHEDULES`")
    anneal_start: float = number(0.7, 0.0, 1.0, "share of the run after which the flat learning rate is annealed")
    warmup: float = number(0.05, 0.0, 0.9, "share of the run over which the learning rate rises")
    cycles: int = whole(1, 1, 1000, "cycles of `cosine_restarts`, of one length")
    cycle_decay: float = number(1.0, 0.01, 1.0, "peak of each cycle as a share of that of the cycle before")
    lr_decay: float = number(0.5, 0.01, 1.0, "factor of `step` after each epoch, of `plateau` when nothing improves")
    patience: int = whole(0, 0, 1000, "`plateau`: epochs without gain that are borne before the rate falls")
    epochs: int = whole(4, 1, _ANY, "passes over the training slices; also the length of the schedule")
    frozen_epochs: int = whole(0, 0, 10_000, "of these, the first in which only head and norms learn, by a one-cycle")
    frozen_lr: float = number(1e-3, 1e-8, 100.0, "peak learning rate of the frozen epochs")
    # augmentation: on single slices by albumentations, and batched on the device
    augmentation: str = special("none", "a policy of `ichtune.data.augment.AUGMENTATIONS`, or albumentations in full")
    flip: float = number(0.5, 0.0, 1.0, "probability of mirroring left and right")
    flip_vertical: float = number(0.0, 0.0, 1.0, "probability of mirroring front and back")
    flip_slices: float = number(0.0, 0.0, 1.0, "probability of reversing the order of the neighbouring slices")
    transpose: float = number(0.0, 0.0, 1.0, "probability of exchanging rows and columns")
    rotate_deg: float = number(0.0, 0.0, 360.0, "rotation by up to this many degrees either way")
    shift: float = number(0.0, 0.0, 0.5, "shift by up to this share of the side, each way")
    zoom: float = number(0.0, 0.0, 0.9, "scale between 1 - zoom and 1 + zoom")
    geometry_share: float = number(1.0, 0.0, 1.0, "share of the slices that rotation, shift and zoom act on")
    cutout: float = number(0.0, 0.0, 1.0, "probability that squares of a slice are blanked")
    cutout_holes: int = whole(4, 1, 64, "largest number of blanked squares")
    cutout_size: float = number(0.15, 0.01, 0.9, "largest side of a blanked square as a share of the image's")
    noise_hu: float = number(0.0, 0.0, 200.0, "standard deviation of added noise, HU")
    gain_jitter: float = number(0.0, 0.0, 0.5, "HU of a slice are multiplied by a factor within 1 +- this")
    mixup: float = number(0.0, 0.0, 10.0, "alpha of mixup's Beta distribution; 0 mixes nothing")
    cutmix: float = number(
        0.0, 0.0, 10.0, "alpha of cutmix's Beta distribution; with mixup, each acts on half the batches"
    )
    # the weights that predict, and how
    ema_decay: float = number(0.0, 0.0, 0.99999, "decay a step of the average of the weights that predicts; 0: none")
    swa_start: float = number(1.0, 0.0, 1.0, "share of the run after which each epoch's weights are averaged; 1: none")
    snapshots: int = whole(1, 1, 100, "last epochs whose models predict together, probabilities averaged")
    tta: str = name("none", "views of each slice that are averaged: one of `ichtune.training.tta.VIEWS`")
    # labels from another model
    pseudo_labels: str = name("", "a recipe whose predictions teach the unlabelled slices: its name or recipe_id")
    pseudo_threshold: float = number(0.0, 0.0, 1.0, "above it a pseudo-label is 1, else 0; 0 keeps probabilities")
    pseudo_weight: float = number(1.0, 0.0, 10.0, "weight of a pseudo-labelled slice beside a labelled one")
    # the machine
    compile: bool = switch(False, "compile the network; where that fails it runs as it is, and the run says why")
    seed: int = whole(7, 0, 2**31 - 1, "seed of initial weights, order and augmentation")

    def __post_init__(self) -> None:
        object.__setattr__(self, "windows", resolve_windows(self.windows))
        object.__setattr__(self, "augmentation", canonical_augmentation(self.augmentation))
        for spec in fields(self):
            object.__setattr__(self, spec.name, checked(spec, getattr(self, spec.name)))
        for key in _without_effect(self):
            object.__setattr__(self, key, _FIELDS[key].default)
        if not isinstance(self.pretrained, bool | str):
            raise ConfigError(f"recipe key 'pretrained' must be true, false or a path, got {self.pretrained!r}")
        _check_together(self)

    @property
    def recipe_id(self) -> str:
        """Hash of every key that is not at its default; the run's name on disk and in every table.

        Defaults are left out so that a key which a later version adds changes no id of an earlier one.
        """
        told = {key: value for key, value in _explicit(self).items() if value != _DEFAULTS[key]}
        text = json.dumps(told, sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(text.encode()).hexdigest()[:ID_DIGITS]

    @property
    def offsets(self) -> tuple[int, ...]:
        """Places of the slices that are seen, in the series, with the slice itself at 0; ascending."""
        steps = range(-self.neighbours, self.neighbours + 1)
        wanted = {"both": steps, "below": range(-self.neighbours, 1), "above": range(0, self.neighbours + 1)}
        return tuple(step * self.neighbour_stride for step in wanted[self.neighbour_side])

    @property
    def n_targets(self) -> int:
        """Slices whose labels are learnt from one: itself, and with ``neighbour_targets`` the two beside it."""
        return 3 if self.neighbour_targets > 0 else 1

    @property
    def n_channels(self) -> int:
        """Input channels of the network: windows times images of slices."""
        if self.channel_layout == "paired":
            return len(self.windows)
        n_images = {"stack": len(self.offsets), "mean": 1, "slice_and_mean": 2}[self.neighbour_use]
        return len(self.windows) * n_images

    @property
    def summary(self) -> str:
        """One short line for tables, logs and the dashboard."""
        neighbours = f"|{SIDE_SIGNS[self.neighbour_side]}{self.neighbours}" if self.neighbours else ""
        size = f"{self.image_px}px" + ("" if self.crop == CROPS[0] else f" {self.crop}")
        return f"{self.architecture}|{window_set_name(self.windows)}{neighbours}|{size}|lr={self.lr:.1e}"

    @property
    def n_epochs(self) -> int:
        """Epochs of a run on one fold."""
        return self.epochs

    @property
    def kind(self) -> tuple[object, ...]:
        """What sets it apart from others beside its optimisation."""
        return (self.architecture, self.windows, self.neighbours, self.image_px, self.crop)

    def to_dict(self) -> dict[str, Any]:
        """Return plain values for YAML or JSON; a window set that has a name is written by it."""
        plain = _explicit(self)
        set_name = window_set_name(self.windows)
        if set_name in WINDOW_SETS:
            plain["windows"] = set_name
        return {key: value for key, value in plain.items() if value is not None}

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
    plain = {spec.name: getattr(recipe, spec.name) for spec in fields(recipe)}
    plain["windows"] = plain_windows(recipe.windows)
    plain["loss_weights"] = list(recipe.loss_weights)
    plain["positive_weights"] = list(recipe.positive_weights)
    if recipe.augmentation.startswith("["):
        plain["augmentation"] = json.loads(recipe.augmentation)
    return plain


def canonical_augmentation(value: Any) -> Any:
    """Return a policy's name as it is, and a list of transforms as canonical JSON.

    Raises:
        ConfigError: neither a name nor a list of ``{Name: {parameter: value}}``.
    """
    if isinstance(value, str):
        if not value.startswith("["):
            return value
        try:
            value = json.loads(value)
        except ValueError as error:
            raise ConfigError(f"recipe key 'augmentation' is no JSON list: {error}") from error
    is_list = isinstance(value, list | tuple) and all(
        isinstance(step, Mapping) and len(step) == 1 and isinstance(next(iter(step.values())), Mapping | None)
        for step in value
    )
    if not is_list or not value:
        raise ConfigError(
            f"recipe key 'augmentation' must be a policy's name or a list of albumentations, each as "
            f"{{Name: {{parameter: value}}}}, got {value!r}"
        )
    try:
        return json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False)
    except (TypeError, ValueError) as error:
        raise ConfigError(f"recipe key 'augmentation' must hold plain values only: {error}") from error


def _without_effect(recipe: Recipe) -> list[str]:
    """Keys that another key's value makes idle: at their defaults, the same run has one id."""
    idle = ["neighbour_side", "neighbour_stride"] if recipe.neighbours == 0 else []
    return [*idle, "calibration"] if not _shifted(recipe) else idle


def _shifted(recipe: Recipe) -> list[str]:
    """The keys by which the recipe moves probabilities away from the label rates."""
    neutral = {"positive_weights": _NEUTRAL, "negative_share": 1.0}
    return [key for key, value in neutral.items() if getattr(recipe, key) != value]


def _check_together(recipe: Recipe) -> None:
    """Refuse keys that contradict each other."""
    if recipe.lr_schedule == "flat_cosine" and recipe.anneal_start < recipe.warmup:
        raise ConfigError(
            f"recipe key 'anneal_start' must not lie before the end of 'warmup', got anneal_start "
            f"{recipe.anneal_start:g} and warmup {recipe.warmup:g}"
        )
    _check_shift(recipe)
    if recipe.frozen_epochs >= recipe.epochs and recipe.frozen_epochs:
        raise ConfigError(
            f"recipe key 'frozen_epochs' must be less than 'epochs', of which they are the first, got "
            f"{recipe.frozen_epochs} of {recipe.epochs}"
        )
    if recipe.snapshots > recipe.epochs:
        raise ConfigError(f"recipe key 'snapshots' must not exceed 'epochs', got {recipe.snapshots} of {recipe.epochs}")
    _check_averages(recipe)
    _check_neighbours(recipe)


def _check_shift(recipe: Recipe) -> None:
    """Refuse shifted probabilities that nothing undoes, or that nothing can undo exactly."""
    if min(recipe.positive_weights) <= 0:
        raise ConfigError(f"recipe key 'positive_weights' must be above 0, got {list(recipe.positive_weights)}")
    for key in _shifted(recipe):
        value = getattr(recipe, key)
        if recipe.calibration == "none":
            told = list(value) if isinstance(value, tuple) else value
            raise ConfigError(
                f"recipe key {key!r} shifts every probability, which costs more log loss than it gains, got {told}; "
                f"leave it out, or name what undoes it: calibration: prior_shift"
            )
        if recipe.loss != "bce":
            raise ConfigError(
                f"recipe key {key!r} is undone exactly for loss: bce only, got loss: {recipe.loss}; leave one out"
            )
    conflicts = (
        ("negative_share", recipe.negative_share < 1, "pseudo_labels", bool(recipe.pseudo_labels)),
        ("negative_share", recipe.negative_share < 1, "slices_per_series", recipe.slices_per_series > 0),
        ("positive_weights", recipe.positive_weights != _NEUTRAL, "any_rule", recipe.any_rule != "own"),
    )
    for one, has_one, other, has_other in conflicts:
        if has_one and has_other:
            raise ConfigError(
                f"recipe keys {one!r} and {other!r} together shift probabilities in a way that nothing undoes exactly; "
                f"leave one of them out"
            )


def _check_averages(recipe: Recipe) -> None:
    asked = [k for k, on in (("ema_decay", recipe.ema_decay > 0), ("swa_start", recipe.swa_start < 1)) if on]
    if len(asked) == 2:
        raise ConfigError(f"recipe keys {' and '.join(asked)} both say which weights predict; keep one of them")
    if recipe.warm_start and recipe.pretrained is not False:
        raise ConfigError("recipe keys 'warm_start' and 'pretrained' both say what to start from; keep one of them")


def _check_neighbours(recipe: Recipe) -> None:
    has_pairs = recipe.neighbour_use == "stack" and len(recipe.offsets) == len(recipe.windows)
    if recipe.channel_layout == "paired" and not has_pairs:
        raise ConfigError(
            f"recipe key 'channel_layout' paired needs a window for each slice, got {len(recipe.windows)} windows "
            f"and {len(recipe.offsets)} slices ({recipe.neighbour_use}); write product, or as many windows"
        )
    if recipe.neighbour_use != "stack" and recipe.neighbours == 0:
        raise ConfigError(f"recipe key 'neighbour_use' {recipe.neighbour_use} needs 'neighbours' of at least 1, got 0")


_FIELDS = {spec.name: spec for spec in fields(Recipe)}
_DEFAULTS = _explicit(Recipe())
