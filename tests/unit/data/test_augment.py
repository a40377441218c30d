"""Augmentation: seeded, registered over neighbours, and filled with air."""

import numpy as np
import pytest

from ichtune.data.augment import augment_batch, find_augmentation
from ichtune.data.cache.resize import AIR_HU
from ichtune.errors import ConfigError


def batch(n: int = 6, channels: int = 3, size: int = 24) -> np.ndarray:
    return np.random.default_rng(0).uniform(-500, 2000, (n, channels, size, size)).astype(np.float32)


def test_none_gives_the_batch_itself() -> None:
    hu = batch()
    np.testing.assert_array_equal(augment_batch(hu, "none", 1), hu)


def test_flip_mirrors_some_slices_left_and_right_and_leaves_the_others() -> None:
    hu = batch(n=40)
    out = augment_batch(hu, "flip", 5)
    mirrored = np.array([np.array_equal(o, h[..., ::-1]) for o, h in zip(out, hu, strict=True)])
    kept = np.array([np.array_equal(o, h) for o, h in zip(out, hu, strict=True)])
    assert (mirrored ^ kept).all()
    assert 10 <= mirrored.sum() <= 30


def test_neighbours_stay_registered() -> None:
    one = batch(channels=1)
    out = augment_batch(np.repeat(one, 7, axis=1), "affine_cutout", 3)
    np.testing.assert_array_equal(out, np.repeat(out[:, :1], 7, axis=1))
    assert not np.array_equal(out[:, :1], one)


@pytest.mark.parametrize("channels", [1, 2, 5, 17])
def test_what_moves_in_from_outside_is_air_in_every_channel(channels: int) -> None:
    bone = np.full((16, channels, 24, 24), 3000.0, dtype=np.float32)
    out = augment_batch(bone, "affine", 2)
    assert (out.min(axis=(0, 2, 3)) == AIR_HU).all()
    assert out.max() == 3000.0


def test_a_batch_depends_on_its_seed_alone() -> None:
    hu = batch()
    first = augment_batch(hu, "affine_cutout", 11)
    augment_batch(batch(n=3), "affine_cutout", 4)
    np.random.seed(99)  # the global state must not matter
    np.testing.assert_array_equal(augment_batch(hu, "affine_cutout", 11), first)
    assert not np.array_equal(augment_batch(hu, "affine_cutout", 12), first)


def test_a_misspelt_policy_is_answered_with_the_nearest() -> None:
    with pytest.raises(ConfigError, match=r"unknown augmentation 'flips'. Did you mean 'flip'"):
        find_augmentation("flips")
