"""Train-time augmentation of single slices; the only importer of albumentations.

A policy is plain data, the same in the table below as in a recipe: a list of steps, each ``{Name: {parameter: value}}``
with a class of albumentations. What acts on a whole batch at once (mirrors, rotation, noise) has keys of its own in the
recipe and runs on the device.

Dimension key: B batch, S slices seen, H height, W width.
"""

import inspect
import json
import os
import random
import threading
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import lru_cache
from typing import Any

import numpy as np

from ichtune.data.cache.resize import AIR_HU
from ichtune.errors import ConfigError, nearest

Step = Mapping[str, Mapping[str, Any] | None]

_AFFINE: Step = {
    "Affine": {"rotate": [-20, 20], "translate_percent": [-0.05, 0.05], "scale": [0.9, 1.1], "p": 0.7},
}
_CUTOUT: Step = {
    "CoarseDropout": {
        "num_holes_range": [1, 6],
        "hole_height_range": [0.05, 0.15],
        "hole_width_range": [0.05, 0.15],
        "p": 0.5,
    },
}
_DISTORTIONS: list[Step] = [{"ElasticTransform": {}}, {"GridDistortion": {}}, {"OpticalDistortion": {}}]
#: Policies by name. ``elastic`` follows the competition's fifth team, ``crops`` its eleventh.
AUGMENTATIONS: dict[str, Sequence[Step]] = {
    "none": (),
    "affine": (_AFFINE,),
    "affine_cutout": (_AFFINE, _CUTOUT),
    "elastic": ({"OneOf": {"transforms": _DISTORTIONS, "p": 0.3}}, _AFFINE),
    "crops": (
        {"RandomResizedCrop": {"scale": [0.7, 1.0], "ratio": [0.9, 1.1], "p": 1.0}},
        {"Affine": {"rotate": [-30, 30], "p": 0.5}},
    ),
}
#: Transforms that hold others.
_GROUPS = ("OneOf", "SomeOf", "Sequential")
#: Where a policy is silent, what moves in from outside is air, never a mirror image.
_BORDER_CONSTANT = 0
#: Parameters that are values of pixels.
_IN_HU = ("fill", "drop_value")
#: What a transform that needs these parameters gets where a policy leaves them out.
_SIZES: dict[str, Callable[[int, int], Any]] = {
    "size": lambda height, width: (height, width),
    "height": lambda height, width: height,
    "width": lambda height, width: width,
}
_TRIAL_PX = 64
_TRIAL_SEEDS = (1, 2, 3, 4)


def find_augmentation(augmentation: str) -> Sequence[Step]:
    """Return the steps of a policy, each of them tried on a small image in HU.

    Args:
        augmentation: a name in ``AUGMENTATIONS``, or a JSON list of ``{Name: {parameter: value}}``.

    Raises:
        ConfigError: an unknown policy, transform or parameter, or a transform that does not suit slices in HU: one
            that needs three colours or whole numbers, clips to [0, 1], or changes the image's size.
    """
    steps = _steps(augmentation)
    if augmentation not in AUGMENTATIONS:
        _try_out(augmentation)
    return steps


def augment_batch(hu_BSHW: np.ndarray, augmentation: str, seed: int) -> np.ndarray:
    """Augment a training batch; the same seed gives the same batch.

    Args:
        hu_BSHW: float32 (B, S, H, W) in HU; the S slices of a sample stay registered.
        augmentation: a policy, as ``find_augmentation`` takes it.
        seed: seed of this batch.

    Returns:
        float32 (B, S, H, W) in HU, nothing below air; the batch itself where the policy does nothing.

    Raises:
        ConfigError: as ``find_augmentation``, or a step that changes images of this size.
    """
    if not _steps(augmentation):
        return hu_BSHW
    pipeline = _pipeline(augmentation, *hu_BSHW.shape[2:], threading.get_ident())
    # One generator for all steps: seeded one by one, each would draw the same numbers as the next.
    pipeline.set_random_state(np.random.default_rng(seed), random.Random(seed))
    # Air becomes 0: of several slices, some transforms fill all but the first with 0, whatever `fill` says.
    out = hu_BSHW - np.float32(AIR_HU)
    for sample_SHW in out:
        changed_HWS = _applied(pipeline, sample_SHW)
        if changed_HWS.shape[:2] != sample_SHW.shape[1:]:
            raise ConfigError(f"augmentation {augmentation!r} {_size_changed(changed_HWS, sample_SHW)}")
        sample_SHW[:] = changed_HWS.transpose(2, 0, 1)
    np.maximum(out, 0, out=out)
    out += AIR_HU
    return out


def _applied(transform: Any, sample_SHW: np.ndarray) -> np.ndarray:
    """One sample above air through a transform, (H, W, S)."""
    changed = transform(image=np.ascontiguousarray(sample_SHW.transpose(1, 2, 0)))["image"]
    return changed[:, :, None] if changed.ndim == 2 else changed


def _steps(augmentation: str) -> Sequence[Step]:
    if augmentation.startswith("["):
        try:
            steps = json.loads(augmentation)
        except ValueError as error:
            raise ConfigError(f"augmentation {augmentation!r} is no JSON list: {error}") from error
        if not _is_list_of_steps(steps):
            raise ConfigError(f"augmentation must be a list of {{Name: {{parameter: value}}}}, got {augmentation!r}")
        return list(steps)
    if augmentation == "flip":
        raise ConfigError("the augmentation 'flip' is a recipe key of its own: leave it out here and write `flip: 0.5`")
    if augmentation not in AUGMENTATIONS:
        raise ConfigError(
            f"unknown augmentation {augmentation!r}. {nearest(augmentation, AUGMENTATIONS)} Or write a list of "
            f"albumentations, each as {{Name: {{parameter: value}}}}"
        )
    return AUGMENTATIONS[augmentation]


@lru_cache(maxsize=16)
def _pipeline(augmentation: str, height: int, width: int, thread: int) -> Any:
    """The steps as one transform; each thread has its own, since it holds the state of its generator."""
    return _library().Compose([_built(step, height, width) for step in _steps(augmentation)])


def _library() -> Any:
    os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")  # it asks the network for its newest version on import
    import albumentations

    return albumentations


def _built(step: Step, height: int, width: int) -> Any:
    """The transform of one step, for images of one size."""
    ((name, given),) = step.items()
    parameters = dict(given or {})
    if name in _GROUPS:
        return _group(name, parameters, height, width)
    kind = _transform_class(name)
    known = inspect.signature(kind).parameters
    _check_keys(name, parameters, known)
    if "border_mode" in known:
        parameters.setdefault("border_mode", _BORDER_CONSTANT)
    for key in _IN_HU:
        if key in known:
            parameters[key] = _above_air(parameters.get(key, AIR_HU))
    for key, size in _SIZES.items():
        if key in known and known[key].default is inspect.Parameter.empty:
            parameters.setdefault(key, size(height, width))
    try:
        with warnings.catch_warnings(action="ignore"):
            return kind(**parameters, **_strictness(kind))
    except (ValueError, TypeError) as error:
        raise ConfigError(f"augmentation {name} cannot be made from {dict(given or {})}: {_told(error)}") from error


def _strictness(kind: Any) -> dict[str, bool]:
    """What makes an error of what the library would only warn of; classes without a schema do not know it."""
    owner = next(base for base in kind.__mro__ if "__init__" in vars(base))
    return {"strict": True} if "InitSchema" in vars(owner) else {}


def _above_air(fill: Any) -> Any:
    """A fill value in HU as one above air; the name of a way to fill stays."""
    if isinstance(fill, list):
        return [_above_air(value) for value in fill]
    return fill - AIR_HU if isinstance(fill, int | float) else fill


def _check_keys(name: str, parameters: Mapping[str, Any], known: Iterable[str]) -> None:
    for key in parameters:
        if key not in known:
            raise ConfigError(f"unknown parameter {key!r} of augmentation {name}. {nearest(key, known)}")


def _group(name: str, parameters: dict[str, Any], height: int, width: int) -> Any:
    inner = parameters.pop("transforms", None)
    if not _is_list_of_steps(inner):
        raise ConfigError(f"augmentation {name} needs 'transforms', a list of {{Name: {{...}}}}, got {inner!r}")
    _check_keys(name, parameters, {"OneOf": ("p",), "SomeOf": ("p", "n", "replace"), "Sequential": ("p",)}[name])
    p = parameters.get("p", 0.5)
    if isinstance(p, bool) or not isinstance(p, int | float) or not 0 <= p <= 1:
        raise ConfigError(f"augmentation {name}: p must be a probability between 0 and 1, got {p!r}")
    try:
        return getattr(_library(), name)([_built(step, height, width) for step in inner], **parameters)
    except (ValueError, TypeError, ZeroDivisionError) as error:
        raise ConfigError(f"augmentation {name} cannot be made from {parameters}: {_told(error)}") from error


def _is_list_of_steps(inner: Any) -> bool:
    return (
        isinstance(inner, list)
        and bool(inner)
        and all(isinstance(step, Mapping) and len(step) == 1 for step in inner)
        and all(isinstance(next(iter(step.values())), Mapping | None) for step in inner)
    )


def _transform_class(name: str) -> Any:
    """The class of a transform that acts on images and needs nothing but an image."""
    library = _library()
    bases = (library.ImageOnlyTransform, library.DualTransform)
    known = {
        key: kind
        for key, kind in vars(library).items()
        if isinstance(kind, type)
        and issubclass(kind, bases)
        and not issubclass(kind, library.Transform3D)
        and kind not in (*bases, library.Transform3D, library.Lambda)
    }
    if name not in known:
        raise ConfigError(f"unknown albumentations transform {name!r}. {nearest(name, [*known, *_GROUPS])}")
    return known[name]


def _told(error: Exception) -> str:
    """An error of the library on one line."""
    return " ".join(str(error).split()).partition(" For further information")[0].rstrip(".")


@lru_cache(maxsize=64)
def _try_out(augmentation: str) -> None:
    """Let each step act on slices in HU, whatever its probability."""
    for step in _leaves(_steps(augmentation)):
        ((name, _),) = step.items()
        transform = _built(step, _TRIAL_PX, _TRIAL_PX)
        transform.p = 1.0
        problem = next(filter(None, (_problem(transform, sample_SHW) for sample_SHW in _trial_samples())), "")
        if problem:
            raise ConfigError(
                f"augmentation {name} does not suit slices in HU (float32): it {problem}. Leave it out; noise, gain, "
                f"rotation, shift, zoom, cutout and flips are recipe keys of their own"
            )


def _leaves(steps: Sequence[Step]) -> list[Step]:
    """The steps that hold no others, from all groups, once each group's own parameters are checked."""
    leaves: list[Step] = []
    for step in steps:
        ((name, given),) = step.items()
        if name in _GROUPS:
            _built(step, _TRIAL_PX, _TRIAL_PX)
            leaves += _leaves(list((given or {})["transforms"]))
        else:
            leaves.append(step)
    return leaves


def _problem(transform: Any, sample_SHW: np.ndarray) -> str:
    """Why a transform does not suit slices in HU, ``""`` where it does."""
    expected, widest = float(np.ptp(sample_SHW)), 0.0
    for seed in _TRIAL_SEEDS:
        transform.set_random_state(np.random.default_rng(seed), random.Random(seed))
        try:
            with warnings.catch_warnings(action="ignore"):
                changed_HWS = _applied(transform, sample_SHW)
        except Exception as error:  # noqa: BLE001 - whatever the library stumbles over, the policy cannot be used
            return f"fails on {len(sample_SHW)} slices: {_told(error)}"
        if changed_HWS.dtype != np.float32:
            return f"gives {changed_HWS.dtype} values"
        if changed_HWS.shape != sample_SHW.transpose(1, 2, 0).shape:
            return _size_changed(changed_HWS, sample_SHW)
        if not _keeps_slices(changed_HWS, sample_SHW):
            return "does not do the same to every slice, exchanges slices, or makes dark what was bright"
        widest = max(widest, float(np.ptp(changed_HWS)))
    if not expected / 4 < widest < expected * 2:
        return f"makes a range of {widest:.4g} of {expected:g} HU, as it is made for values in [0, 1] or [0, 255]"
    return ""


def _keeps_slices(changed_HWS: np.ndarray, sample_SHW: np.ndarray) -> bool:
    """Whether equal slices stay equal, and brighter ones brighter."""
    if (sample_SHW == sample_SHW[0]).all():
        return bool((changed_HWS == changed_HWS[..., :1]).all())
    return bool((np.diff(changed_HWS.mean(axis=(0, 1), dtype=np.float64)) >= 0).all())


def _size_changed(changed_HWS: np.ndarray, sample_SHW: np.ndarray) -> str:
    (height, width), n_slices = sample_SHW.shape[1:], len(sample_SHW)
    shape = " x ".join(map(str, changed_HWS.shape))
    return (
        f"gives {shape} values for {height} x {width} pixels of {n_slices} slices; the size must stay, and where a "
        f"transform needs it, it need not be given"
    )


def _trial_samples() -> list[np.ndarray]:
    """Brain and skull in air, float32 (S, 64, 64) above air: equal slices, and slices of which each is brighter."""
    row, column = np.mgrid[:_TRIAL_PX, :_TRIAL_PX] - _TRIAL_PX / 2
    radius = np.hypot(row, 1.2 * column)
    head_HW = np.where(radius < 24, np.where(radius < 20, 40.0 + row, 1500.0) - AIR_HU, 0.0).astype(np.float32)
    brighter_SHW = head_HW + np.arange(3, dtype=np.float32)[:, None, None] * 25
    return [*(np.repeat(head_HW[None], n_slices, axis=0) for n_slices in (1, 3, 5)), brighter_SHW]
