"""Train-time augmentation of single slices; the only importer of albumentations.

Dimension key: B batch, C neighbouring slices, H height, W width.
"""

import os
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np

from ichtune.data.cache.resize import AIR_HU
from ichtune.errors import ConfigError, nearest


@dataclass(frozen=True)
class Augmentation:
    """One policy: what it does to a batch of raw HU, before windows are applied.

    Attributes:
        mirror: mirror left and right with probability one half, a whole batch at once.
        build: builds the albumentations pipeline that acts on single slices, or None.
    """

    mirror: bool
    build: Callable[[], list[Any]] | None = None


def _affine() -> list[Any]:
    import albumentations

    return [
        albumentations.Affine(
            rotate=(-20, 20),
            translate_percent=(-0.05, 0.05),
            scale=(0.9, 1.1),
            fill=AIR_HU,
            border_mode=0,
            p=0.7,
        )
    ]


def _affine_cutout() -> list[Any]:
    import albumentations

    holes = albumentations.CoarseDropout(
        num_holes_range=(1, 6),
        hole_height_range=(0.05, 0.15),
        hole_width_range=(0.05, 0.15),
        fill=AIR_HU,
        p=0.5,
    )
    return [*_affine(), holes]


#: Policies by name. Order and neighbours are kept: every channel of one slice takes the same transform.
AUGMENTATIONS: dict[str, Augmentation] = {
    "none": Augmentation(mirror=False),
    "flip": Augmentation(mirror=True),
    "affine": Augmentation(mirror=True, build=_affine),
    "affine_cutout": Augmentation(mirror=True, build=_affine_cutout),
}


def find_augmentation(name: str) -> Augmentation:
    """Return a policy by name; ``ConfigError`` with the nearest one otherwise."""
    if name not in AUGMENTATIONS:
        raise ConfigError(f"unknown augmentation {name!r}. {nearest(name, AUGMENTATIONS)}")
    return AUGMENTATIONS[name]


@lru_cache(maxsize=8)
def _pipeline(name: str) -> Any:
    os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")  # it asks the network for its newest version on import
    import albumentations

    build = AUGMENTATIONS[name].build
    return albumentations.Compose(build() if build else [])


def augment_batch(hu_BCHW: np.ndarray, name: str, seed: int) -> np.ndarray:
    """Augment a training batch; the same seed gives the same batch.

    Args:
        hu_BCHW: float32 (B, C, H, W) in HU; C neighbouring slices that must stay registered.
        name: a policy of ``AUGMENTATIONS``.
        seed: seed of this batch.

    Returns:
        float32 (B, C, H, W) in HU, a new array unless the policy does nothing.
    """
    policy = find_augmentation(name)
    out = hu_BCHW
    if policy.build is not None:
        pipeline = _pipeline(name)
        pipeline.set_random_seed(seed)
        slices = [pipeline(image=np.ascontiguousarray(hu_CHW.transpose(1, 2, 0)))["image"] for hu_CHW in out]
        out = np.stack([np.atleast_3d(hu_HWC).transpose(2, 0, 1) for hu_HWC in slices])
    if policy.mirror:
        mirrored = np.random.default_rng(seed).random(len(out)) < 0.5
        out = np.where(mirrored[:, None, None, None], out[..., ::-1], out)
    return np.ascontiguousarray(out, dtype=np.float32)
