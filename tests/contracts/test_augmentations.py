"""Every augmentation in the table: same shape, still HU, seeded, and the same for every neighbour."""

import numpy as np
import pytest

from ichtune.data.augment import AUGMENTATIONS, augment_batch, find_augmentation
from ichtune.data.cache.resize import AIR_HU

pytestmark = pytest.mark.parametrize("name", AUGMENTATIONS)


def head(n: int = 6, slices: int = 3, size: int = 32) -> np.ndarray:
    hu = np.full((n, slices, size, size), AIR_HU, dtype=np.float32)
    hu[:, :, 8:24, 8:20] = np.random.default_rng(0).uniform(0, 80, (n, slices, 16, 12))
    return hu


def test_shape_type_and_range_stay(name: str) -> None:
    find_augmentation(name)
    hu = head()
    out = augment_batch(hu, name, 3)
    assert out.shape == hu.shape
    assert out.dtype == np.float32
    assert out.flags.c_contiguous
    assert out.min() >= AIR_HU
    assert out.max() <= hu.max() + 1e-2


def test_the_batch_that_comes_in_stays_as_it_was(name: str) -> None:
    hu = head()
    before = hu.copy()
    augment_batch(hu, name, 3)
    np.testing.assert_array_equal(hu, before)


def test_the_same_seed_gives_the_same_batch(name: str) -> None:
    np.testing.assert_array_equal(augment_batch(head(), name, 3), augment_batch(head(), name, 3))
    if name != "none":
        assert not np.array_equal(augment_batch(head(), name, 3), augment_batch(head(), name, 4))


@pytest.mark.parametrize("slices", [1, 3, 17])
def test_every_neighbour_takes_the_same_transform(name: str, slices: int) -> None:
    one = head(slices=1)
    out = augment_batch(np.repeat(one, slices, axis=1), name, 3)
    np.testing.assert_array_equal(out, np.repeat(out[:, :1], slices, axis=1))


def test_every_policy_but_none_changes_slices(name: str) -> None:
    hu = head(n=40)
    changed = (augment_batch(hu, name, 3) != hu).any(axis=(1, 2, 3)).mean()
    assert changed == 0 if name == "none" else 0.5 < changed <= 1


def test_the_head_is_still_there(name: str) -> None:
    hu = head(n=20)
    out = augment_batch(hu, name, 3)
    share = (out > -500).mean(axis=(1, 2, 3)) / (hu > -500).mean(axis=(1, 2, 3))
    assert (share > 0.5).all()
    assert (share < 1.6).all()
