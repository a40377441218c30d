"""What each shipped policy makes of fixed slices: albumentations is frozen, and a change of its output must be seen.

Pixels are rounded to two levels before they are hashed. The level between them is one that no interpolation between two
values lands on, so that the last bits of another processor's sums change no hash.
"""

import hashlib

import numpy as np
import pytest

from ichtune.data.augment import AUGMENTATIONS, augment_batch
from ichtune.data.cache.resize import AIR_HU

BONE_HU = 1000.0
LEVEL = AIR_HU + 0.3701 * (BONE_HU - AIR_HU)
HASHES = {
    "none": "f2c7140b2659c408",
    "affine": "24952259e585a48c",
    "affine_cutout": "963ca856ebe5ea28",
    "elastic": "b622881502090de1",
    "crops": "98108bd6b7bcb941",
}


def blocks(n: int = 12, slices: int = 2, size: int = 48) -> np.ndarray:
    """Blocks of 4 x 4 pixels, of air or bone."""
    is_bone = np.random.default_rng(19).random((n, slices, size // 4, size // 4)) < 0.5
    return np.where(np.kron(is_bone, np.ones((4, 4))), BONE_HU, AIR_HU).astype(np.float32)


def test_every_shipped_policy_has_a_hash() -> None:
    assert list(HASHES) == list(AUGMENTATIONS)


@pytest.mark.parametrize("name", HASHES)
def test_a_policy_gives_the_pixels_that_it_always_gave(name: str) -> None:
    is_bright = augment_batch(blocks(), name, 2019) > LEVEL
    assert hashlib.sha256(np.packbits(is_bright).tobytes()).hexdigest()[:16] == HASHES[name]
