"""Near-duplicates: a worked-over copy under another patient is listed, another head and the same patient are not."""

import cv2
import numpy as np
import pandas as pd
import pytest

from ichtune.data.audit.leaks import NO_FOLD, Split
from ichtune.data.audit.near_duplicates import NEAR_HU, near_duplicates, with_sides
from ichtune.data.content_hash import fingerprint


def head(seed: int, px: int = 256) -> np.ndarray:
    """int16 (px, px): bone around tissue with structure, air outside."""
    rng = np.random.default_rng(seed)
    tissue = cv2.resize(rng.normal(35, 15, (12, 12)).astype(np.float32), (px, px), interpolation=cv2.INTER_CUBIC)
    y, x = np.mgrid[:px, :px] / px - 0.5
    radius = np.hypot(x / 0.38, y / 0.46)
    hu = np.where(radius < 0.92, tissue + rng.normal(0, 3, (px, px)), np.where(radius < 1, 900, -1000))
    return np.rint(hu).astype(np.int16)


def table(pictures: list[np.ndarray], patients: str) -> pd.DataFrame:
    seen = [fingerprint(hu) for hu in pictures]
    return pd.DataFrame(
        {
            "image_id": [f"ID_{row}" for row in range(len(pictures))],
            "patient_id": list(patients),
            "status": "ok",
            "content_hash": [s.content_hash for s in seen],
            "near_hash": [s.near_hash for s in seen],
            "is_blank": [s.is_blank for s in seen],
        }
    )


def found(pictures: list[np.ndarray], patients: str, slices: pd.DataFrame | None = None):
    slices = table(pictures, patients) if slices is None else slices
    return near_duplicates(slices, lambda row: pictures[row])


def test_a_noisy_copy_of_another_patient_is_listed_with_its_difference():
    noisy = head(0) + np.random.default_rng(1).integers(-2, 3, (256, 256)).astype(np.int16)
    result = found([head(0), head(1), noisy], "ABC")
    assert result.pairs[["image_id_a", "image_id_b", "patient_id_a", "patient_id_b"]].to_numpy().tolist() == [
        ["ID_0", "ID_2", "A", "C"]
    ]
    assert 0 < result.pairs["difference_hu"].iloc[0] < NEAR_HU
    assert not result.pairs["is_identical"].iloc[0]
    assert result.n_compared == 3


def test_another_size_is_no_hindrance():
    smaller = cv2.resize(head(0), (192, 192), interpolation=cv2.INTER_AREA)
    assert len(found([head(0), smaller], "AB").pairs) == 1


def test_the_same_patient_is_not_compared_with_itself():
    assert len(found([head(0), head(0)], "AA").pairs) == 0


def test_identical_pictures_come_first_and_are_not_read():
    slices = table([head(0), head(0)], "AB")
    result = near_duplicates(slices, lambda row: pytest.fail("was read"))
    assert result.pairs[["difference_hu", "is_identical"]].to_numpy().tolist() == [[0.0, True]]


def test_hashes_that_agree_by_chance_are_refuted_by_the_pixels():
    pictures = [head(0), head(1), head(2)]
    slices = table(pictures, "ABC").assign(near_hash="0123456789abcdef")
    result = found(pictures, "", slices)
    assert len(result.pairs) == 0
    assert result.n_candidates == 3


def test_a_local_difference_that_block_means_hide_is_seen_on_the_pixels():
    checkered = head(0).copy()
    checkered[::4, ::4] += 60  # 16 x 16 block means hardly change, the pixels' mean difference does
    checkered[2::4, ::4] -= 60
    checkered[1::4, 1::4] += 60
    checkered[3::4, 1::4] -= 60
    slices = table([head(0), checkered], "AB").assign(near_hash="0123456789abcdef")
    result = found([head(0), checkered], "", slices)
    assert result.n_candidates == 1
    assert len(result.pairs) == 0


def test_blank_refused_and_featureless_slices_are_left_out():
    pictures = [head(0)] * 4
    slices = table(pictures, "ABCD").assign(is_blank=[True, False, False, False], status=["ok", "refused", "ok", "ok"])
    slices.loc[3, "near_hash"] = "000000000000007f"
    result = found(pictures, "", slices)
    assert (result.n_compared, len(result.pairs)) == (1, 0)
    assert found([], "", slices.iloc[:0]).n_compared == 0


def test_progress_ends_at_the_number_of_slices_that_were_read():
    calls: list[tuple[int, int]] = []
    pictures = [head(0), head(1)]
    slices = table(pictures, "AB").assign(near_hash="0123456789abcdef")
    near_duplicates(slices, lambda row: pictures[row], lambda done, total: calls.append((done, total)))
    assert calls[-1] == (2, 2)


def test_the_sides_of_each_pair_are_told():
    pairs = found([head(0), head(0), head(0)], "ABC").pairs
    is_test = np.array([False, False, True])
    split = Split("plan", np.array([0, 1, NO_FOLD]), ~is_test, is_test, ("fold 0", "fold 1"))
    sides = with_sides(pairs, split)
    assert sides[["side_a", "side_b"]].to_numpy().tolist() == [
        ["train, fold 0", "train, fold 1"],
        ["train, fold 0", "test"],
        ["train, fold 1", "test"],
    ]
    assert sides["straddles"].all()
    together = Split("plan", np.zeros(3, np.int64), ~is_test, is_test, ("fold 0",))
    assert with_sides(pairs, together)["straddles"].tolist() == [False, True, True]
