"""Augmentation: seeded, registered over neighbours, filled with air, and refused in time where it does not suit HU."""

import json
import threading
from typing import Any

import albumentations
import numpy as np
import pytest

from ichtune.data.augment import AUGMENTATIONS, augment_batch, find_augmentation
from ichtune.data.cache.resize import AIR_HU
from ichtune.errors import ConfigError
from ichtune.recipe import Recipe


def batch(n: int = 6, slices: int = 3, size: int = 24) -> np.ndarray:
    return np.random.default_rng(0).integers(-500, 2000, (n, slices, size, size)).astype(np.float32)


def policy(*steps: dict[str, Any]) -> str:
    """Steps as a recipe holds them."""
    return Recipe(augmentation=list(steps)).augmentation


def test_none_gives_the_batch_itself() -> None:
    hu = batch()
    assert augment_batch(hu, "none", 1) is hu


@pytest.mark.parametrize("name", [name for name in AUGMENTATIONS if name != "none"])
def test_a_shipped_policy_is_what_a_recipe_could_write(name: str) -> None:
    written = policy(*AUGMENTATIONS[name])
    assert find_augmentation(written) == json.loads(written)
    np.testing.assert_array_equal(augment_batch(batch(), written, 5), augment_batch(batch(), name, 5))


def test_a_transform_with_one_outcome_gives_what_numpy_gives() -> None:
    hu = batch()
    np.testing.assert_array_equal(augment_batch(hu, policy({"HorizontalFlip": {"p": 1.0}}), 1), hu[..., ::-1])
    np.testing.assert_array_equal(augment_batch(hu, policy({"Transpose": {"p": 1.0}}), 1), hu.swapaxes(2, 3))
    np.testing.assert_array_equal(augment_batch(hu, policy({"VerticalFlip": {"p": 0.0}}), 1), hu)


def test_a_step_gives_what_the_library_gives_with_air_outside() -> None:
    hu = batch(n=1, slices=1)
    angle = {"rotate": [15, 15], "p": 1.0}
    rotation = albumentations.Affine(rotate=(15, 15), fill=AIR_HU, border_mode=0, p=1.0)
    expected = rotation(image=hu[0].transpose(1, 2, 0))["image"].reshape(1, 1, 24, 24)
    np.testing.assert_allclose(augment_batch(hu, policy({"Affine": angle}), 1), expected, atol=1e-2)


def test_neighbours_stay_registered() -> None:
    one = batch(slices=1)
    out = augment_batch(np.repeat(one, 7, axis=1), "affine_cutout", 3)
    np.testing.assert_array_equal(out, np.repeat(out[:, :1], 7, axis=1))
    assert not np.array_equal(out[:, :1], one)


@pytest.mark.parametrize("slices", [1, 2, 5, 17])
@pytest.mark.parametrize("step", ["Affine", "GridDistortion", "ElasticTransform", "OpticalDistortion", "CoarseDropout"])
def test_what_moves_in_from_outside_is_air_in_every_slice(step: str, slices: int) -> None:
    strong = {
        "Affine": {"rotate": [-20, 20]},
        "ElasticTransform": {"alpha": 300, "sigma": 10},
        "OpticalDistortion": {"distort_limit": [-0.9, 0.9]},
    }
    bone = np.full((16, slices, 24, 24), 3000.0, dtype=np.float32)
    out = augment_batch(bone, policy({step: strong.get(step, {}) | {"p": 1.0}}), 2)
    assert (out.min(axis=(0, 2, 3)) == AIR_HU).all()
    assert out.max() == 3000.0


def test_another_fill_than_air_is_in_hu() -> None:
    steps = policy({"CoarseDropout": {"fill": 40, "p": 1.0}}, {"PixelDropout": {"drop_value": 80, "p": 1.0}})
    assert set(np.unique(augment_batch(np.full((4, 3, 24, 24), 900.0, np.float32), steps, 1))) == {40, 80, 900}


def test_what_comes_from_below_air_is_air() -> None:
    assert augment_batch(np.full((1, 1, 8, 8), -2000, np.float32), "affine", 1).max() == AIR_HU


def test_a_batch_depends_on_its_seed_alone() -> None:
    hu = batch()
    first = augment_batch(hu, "affine_cutout", 11)
    augment_batch(batch(n=3), "affine_cutout", 4)
    np.random.seed(99)  # the global state must not matter
    np.testing.assert_array_equal(augment_batch(hu, "affine_cutout", 11), first)
    assert not np.array_equal(augment_batch(hu, "affine_cutout", 12), first)


def test_threads_do_not_disturb_each_other() -> None:
    hu = batch(n=30)
    alone = [augment_batch(hu, "affine_cutout", seed) for seed in range(2)]
    found: dict[int, list[np.ndarray]] = {0: [], 1: []}

    def work(seed: int) -> None:
        found[seed] = [augment_batch(hu, "affine_cutout", seed) for _ in range(5)]

    threads = [threading.Thread(target=work, args=(seed,)) for seed in found]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert all(np.array_equal(out, alone[seed]) for seed, outs in found.items() for out in outs)


def test_steps_draw_independently_of_each_other() -> None:
    """Of two coin tosses with p = 1/2, all four outcomes come up."""
    steps = policy({"HorizontalFlip": {"p": 0.5}}, {"VerticalFlip": {"p": 0.5}})
    hu = np.repeat(batch(n=1, slices=1), 80, axis=0)
    outcomes = [hu[0], hu[0, :, :, ::-1], hu[0, :, ::-1], hu[0, :, ::-1, ::-1]]
    counts = [sum(np.array_equal(out, wanted) for out in augment_batch(hu, steps, 3)) for wanted in outcomes]
    assert sum(counts) == 80
    assert min(counts) >= 8


def test_one_of_a_group_acts_at_its_probability() -> None:
    one_of = {"OneOf": {"transforms": [{"HorizontalFlip": None}, {"VerticalFlip": {}}], "p": 0.5}}
    hu = np.repeat(batch(n=1, slices=1), 200, axis=0)
    out = augment_batch(hu, policy(one_of), 3)
    counts = [int((out == wanted).all(axis=(1, 2, 3)).sum()) for wanted in (hu[:1], hu[:1, ..., ::-1], hu[:1, :, ::-1])]
    assert sum(counts) == 200
    assert abs(counts[0] - 100) < 30
    assert min(counts[1:]) > 25


def test_a_size_that_is_left_out_is_that_of_the_image() -> None:
    steps = policy({"RandomResizedCrop": {"scale": [0.5, 0.5], "p": 1.0}})
    find_augmentation(steps)
    assert augment_batch(batch(size=24), steps, 1).shape[2:] == (24, 24)
    assert augment_batch(batch(size=40), steps, 1).shape[2:] == (40, 40)


def test_a_step_that_changes_the_size_later_is_told() -> None:
    steps = policy({"CenterCrop": {"height": 64, "width": 64, "p": 1.0}})
    find_augmentation(steps)  # 64 pixels are the size on which steps are tried
    with pytest.raises(ConfigError, match=r"gives 64 x 64 x 3 values for 80 x 80 pixels"):
        augment_batch(batch(n=2, size=80), steps, 1)


def test_a_misspelt_policy_is_answered_with_the_nearest() -> None:
    with pytest.raises(ConfigError, match=r"unknown augmentation 'afine'. Did you mean 'affine'"):
        find_augmentation("afine")


def test_flip_is_a_key_of_its_own() -> None:
    with pytest.raises(ConfigError, match=r"write `flip: 0.5`"):
        find_augmentation("flip")


@pytest.mark.parametrize(
    ("step", "message"),
    [
        ({"Afine": {}}, r"unknown albumentations transform 'Afine'. Did you mean 'Affine'"),
        ({"Compose": {"transforms": []}}, r"unknown albumentations transform 'Compose'"),
        ({"CoarseDropout3D": {}}, r"unknown albumentations transform 'CoarseDropout3D'"),
        ({"ToTensorV2": {}}, r"unknown albumentations transform 'ToTensorV2'"),
        ({"Affine": {"rotation": 20}}, r"unknown parameter 'rotation' of augmentation Affine. Did you mean 'rotate'"),
        ({"RandomRotate90": {"k": 1}}, r"unknown parameter 'k' of augmentation RandomRotate90"),
        ({"Affine": {"p": 2}}, r"augmentation Affine cannot be made from .*less than or equal to 1"),
        ({"Affine": {"scale": "large"}}, r"augmentation Affine cannot be made from"),
        ({"CropAndPad": {}}, r"CropAndPad cannot be made from"),
        ({"GaussNoise": {}}, r"GaussNoise does not suit slices in HU .*range of 1 of 2524 HU"),
        ({"CLAHE": {}}, r"CLAHE does not suit .*\[0, 255\]"),
        ({"RandomGamma": {}}, r"RandomGamma does not suit"),
        ({"FromFloat": {}}, r"FromFloat does not suit .*gives uint8 values"),
        ({"ToGray": {}}, r"ToGray does not suit .*fails on 5 slices: .*expects 3-channel images"),
        ({"ChannelShuffle": {}}, r"ChannelShuffle does not suit .*exchanges slices"),
        ({"InvertImg": {}}, r"InvertImg does not suit .*makes dark what was bright"),
        ({"RandomScale": {"scale_limit": [0.2, 0.2]}}, r"RandomScale does not suit .*gives 76 x 76 x 1 values"),
        ({"MaskDropout": {}}, r"MaskDropout does not suit .*fails on 1 slices"),
        ({"OneOf": {"transforms": [{"Afine": {}}]}}, r"unknown albumentations transform 'Afine'"),
        ({"OneOf": {"transforms": [{"GaussNoise": {"p": 0.1}}]}}, r"GaussNoise does not suit"),
        ({"OneOf": {"transforms": "Affine"}}, r"OneOf needs 'transforms'"),
        ({"OneOf": {"transforms": [{"Affine": {}}], "q": 1}}, r"unknown parameter 'q' of augmentation OneOf"),
        ({"SomeOf": {"transforms": [{"Affine": {}}], "p": 3}}, r"SomeOf: p must be a probability"),
    ],
)
def test_what_cannot_be_used_is_refused_before_time_is_spent(step: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        find_augmentation(policy(step))


@pytest.mark.parametrize("text", ["[", "[1]", "[]", '[{"Affine": 3}]', '[{"Affine": {}, "Rotate": {}}]'])
def test_what_is_no_list_of_steps_is_refused(text: str) -> None:
    with pytest.raises(ConfigError, match=r"must be a list|is no JSON list"):
        find_augmentation(text)
