"""Fingerprints: equal content is equal, a copy that was worked over stays near, blank is blank."""

import cv2
import numpy as np
import pytest

from ichtune.data.content_hash import content_hash, fingerprint, is_blank, near_hash


def head(seed: int = 0, px: int = 256) -> np.ndarray:
    """int16 (px, px): bone around smooth tissue with structure, air outside."""
    rng = np.random.default_rng(seed)
    tissue = cv2.resize(rng.normal(35, 15, (12, 12)).astype(np.float32), (px, px), interpolation=cv2.INTER_CUBIC)
    y, x = np.mgrid[:px, :px] / px - 0.5
    radius = np.hypot(x / 0.38, y / 0.46)
    hu = np.where(radius < 0.92, tissue + rng.normal(0, 3, (px, px)), np.where(radius < 1, 900, -1000))
    return np.rint(hu).astype(np.int16)


def n_bits_apart(a: str, b: str) -> int:
    return (int(a, 16) ^ int(b, 16)).bit_count()


def test_equal_slices_and_only_they_share_the_content_hash() -> None:
    hu = head()
    assert content_hash(hu) == content_hash(hu.copy()) == content_hash(np.asfortranarray(hu))
    assert len(content_hash(hu)) == 32
    other = hu.copy()
    other[100, 100] += 1
    assert content_hash(other) != content_hash(hu)


def test_the_same_values_in_another_shape_are_another_slice() -> None:
    assert content_hash(np.zeros((4, 9), np.int16)) != content_hash(np.zeros((6, 6), np.int16))
    assert content_hash(np.zeros((4, 9), np.int16)) != content_hash(np.zeros((9, 4), np.int16))


@pytest.mark.parametrize(
    "change",
    [
        lambda hu: (hu + np.random.default_rng(1).normal(0, 2, hu.shape)).astype(np.int16),
        lambda hu: cv2.resize(hu, (192, 192), interpolation=cv2.INTER_AREA),
        lambda hu: np.where(hu == -1000, -2000, hu).astype(np.int16),
        lambda hu: np.minimum(hu, 600),
    ],
    ids=["noise", "resized", "padding", "bone"],
)
def test_a_worked_over_copy_is_near_and_another_head_is_not(change) -> None:
    copy = change(head())
    assert n_bits_apart(near_hash(copy), near_hash(head())) <= 5
    assert n_bits_apart(near_hash(head(1)), near_hash(head())) > 15
    assert content_hash(copy) != content_hash(head())


def test_the_near_hash_is_64_bits_for_any_matrix() -> None:
    for shape in [(1, 1), (5, 700), (512, 512), (768, 436)]:
        assert len(near_hash(np.zeros(shape, np.int16))) == 16
    assert int(near_hash(np.zeros((64, 64), np.int16)), 16) == 0


def test_each_bit_says_that_a_cell_is_brighter_than_its_left_neighbour() -> None:
    ramp = np.tile(np.arange(0, 80, 80 / 512), (512, 1)).astype(np.int16)
    assert near_hash(ramp) == "f" * 16
    assert near_hash(ramp[:, ::-1]) == "0" * 16


@pytest.mark.parametrize(
    ("values", "expected"),
    [([-1000, 60], True), ([-1000, 61], False), ([20, 80], True), ([90, 3000], True), ([-5, -3000], True)],
)
def test_blank_is_a_range_of_at_most_60_hu_in_the_brain_window(values: list[int], expected: bool) -> None:
    assert is_blank(np.array([values], np.int16)) == expected


def test_one_bright_pixel_that_the_sample_misses_is_seen() -> None:
    hu = np.full((300, 300), -1000, np.int16)
    assert fingerprint(hu).is_blank
    hu[0, 0] = 70
    assert not fingerprint(hu).is_blank


def test_the_fingerprint_is_its_three_parts() -> None:
    hu = head()
    assert fingerprint(hu) == (content_hash(hu), near_hash(hu), False)
    assert fingerprint(hu[:, ::-1]) == (content_hash(hu[:, ::-1]), near_hash(hu[:, ::-1]), False)
