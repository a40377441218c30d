"""Slices of different patients that are nearly the same picture: candidates by hash, confirmed on the pixels."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache

import cv2
import numpy as np
import pandas as pd

from ichtune.data.audit.hash_pairs import close_pairs
from ichtune.data.audit.leaks import NO_FOLD, Split

#: Two slices are nearly the same when their mean absolute difference inside the head is at most this many HU. Slices
#: 1 mm apart in one head differ by more than 6, slices of different heads by more than 8, a recompressed or resized
#: copy by less than 3.
NEAR_HU = 5.0
#: Values are compared between air and just above blood; a bone's edge would drown everything else.
COMPARED_HU = (-50, 150)
#: Side of the pictures that are compared, whatever the size of the cache.
COMPARED_PX = 128
#: A hash with fewer bits set shows too little of a head to be compared.
MIN_BITS = 8
_COARSE_PX = 16
_KEPT_PICTURES = 2048
_PROGRESS_STEP = 500

ReadSlice = Callable[[int], np.ndarray]
OnProgress = Callable[[int, int], None]


@dataclass(frozen=True)
class NearDuplicates:
    """What was found among slices of different patients.

    Attributes:
        pairs: one row a pair: image_id_a, image_id_b, patient_id_a, patient_id_b, difference_hu, n_bits_apart,
            is_identical, row_a, row_b; the most alike first.
        n_compared: slices whose hashes were compared.
        n_candidates: pairs with close hashes, all of which were looked at.
        n_dropped: pairs with close hashes beyond the limit, which were not.
        n_crowded: slices with so many close hashes that not every one was compared.
    """

    pairs: pd.DataFrame
    n_compared: int
    n_candidates: int
    n_dropped: int
    n_crowded: int


def near_duplicates(slices: pd.DataFrame, read: ReadSlice, on_progress: OnProgress | None = None) -> NearDuplicates:
    """Find nearly equal slices of different patients.

    Blank slices and those that show next to nothing of a head are left out. Every pair is confirmed on pixels, so
    that what is listed is a near-duplicate; one whose hashes are further apart is not found.

    Args:
        slices: a SliceTable.
        read: gives the HU of a row, int16 (H, W), of any size.
        on_progress: called with slices done and slices in all.
    """
    rows = _comparable(slices)
    hashes = _hashes(slices["near_hash"].iloc[rows])
    tells = (np.bitwise_count(hashes) >= MIN_BITS) & (np.bitwise_count(hashes) <= 64 - MIN_BITS)
    rows, hashes = rows[tells], hashes[tells]
    found = close_pairs(hashes, pd.factorize(slices["patient_id"].iloc[rows])[0])
    first, second = rows[found.first], rows[found.second]
    content = pd.factorize(slices["content_hash"])[0]
    is_identical = content[first] == content[second]
    difference = np.where(is_identical, 0.0, np.inf)
    is_open = ~is_identical
    picture = lru_cache(maxsize=_KEPT_PICTURES)(lambda row: _picture(read(row)))
    if is_open.any():
        is_open &= _may_be_near(first, second, is_open, picture, on_progress)
    for place in np.flatnonzero(is_open):
        difference[place] = _difference_hu(picture(int(first[place])), picture(int(second[place])))
    near = np.flatnonzero(difference <= NEAR_HU)
    pairs = pd.DataFrame(
        {
            **{f"image_id_{side}": _at(slices, "image_id", at[near]) for side, at in (("a", first), ("b", second))},
            **{f"patient_id_{side}": _at(slices, "patient_id", at[near]) for side, at in (("a", first), ("b", second))},
            "difference_hu": difference[near].round(3),
            "n_bits_apart": found.n_bits_apart[near],
            "is_identical": is_identical[near],
            "row_a": first[near],
            "row_b": second[near],
        }
    ).sort_values(["difference_hu", "row_a", "row_b"], ignore_index=True)
    return NearDuplicates(pairs, len(rows), len(first), found.n_dropped, found.n_crowded)


def with_sides(pairs: pd.DataFrame, split: Split) -> pd.DataFrame:
    """Add where the two slices of each pair lie.

    Args:
        pairs: ``NearDuplicates.pairs``.
        split: of the same SliceTable.

    Returns:
        The pairs with side_a and side_b (``train, fold 0``) in place of the rows, and straddles: whether fold or side
        differ.
    """
    names = np.array([*split.fold_names, ""], dtype=object)

    def described(rows: np.ndarray) -> list[str]:
        kinds = np.where(split.is_test[rows], "test", np.where(split.is_train[rows], "train", "no label"))
        folds = names[np.where(split.fold[rows] == NO_FOLD, len(names) - 1, split.fold[rows])]
        return [", ".join(filter(None, parts)) for parts in zip(kinds.tolist(), folds.tolist(), strict=True)]

    row_a, row_b = pairs["row_a"].to_numpy(np.int64), pairs["row_b"].to_numpy(np.int64)
    table = pairs.drop(columns=["row_a", "row_b"])
    table["side_a"], table["side_b"] = described(row_a), described(row_b)
    return table.assign(straddles=table["side_a"] != table["side_b"])


def _comparable(slices: pd.DataFrame) -> np.ndarray:
    is_ok = (slices["status"] == "ok").to_numpy(bool)
    return np.flatnonzero(is_ok & ~slices["is_blank"].to_numpy(bool) & (slices["near_hash"] != "").to_numpy(bool))


def _hashes(texts: pd.Series) -> np.ndarray:
    """uint64 (n,) from 16 hexadecimal digits each."""
    return np.frombuffer(bytes.fromhex("".join(texts.tolist())), dtype=">u8").astype(np.uint64)


def _at(slices: pd.DataFrame, column: str, rows: np.ndarray) -> np.ndarray:
    return slices[column].to_numpy(object)[rows]


def _picture(hu: np.ndarray) -> np.ndarray:
    """float32 (COMPARED_PX, COMPARED_PX), HU, clipped to what is compared."""
    clipped = np.clip(hu, *COMPARED_HU).astype(np.float32)
    return cv2.resize(clipped, (COMPARED_PX, COMPARED_PX), interpolation=cv2.INTER_AREA)


def _difference_hu(one: np.ndarray, other: np.ndarray) -> float:
    """Mean absolute difference where at least one of the two is not air; outside both are equal."""
    n_inside = int(((one > COMPARED_HU[0]) | (other > COMPARED_HU[0])).sum())
    return float(np.abs(one - other).sum() / max(n_inside, 1))


def _may_be_near(
    first: np.ndarray, second: np.ndarray, is_open: np.ndarray, picture: ReadSlice, on_progress: OnProgress | None
) -> np.ndarray:
    """Which pairs a 16 x 16 picture cannot rule out: block means never differ by more than their pixels do."""
    rows = np.unique(np.r_[first[is_open], second[is_open]])
    coarse = np.empty((len(rows), _COARSE_PX * _COARSE_PX), dtype=np.float32)
    n_inside = np.empty(len(rows))
    for place, row in enumerate(rows.tolist()):
        full = picture(row)
        coarse[place] = cv2.resize(full, (_COARSE_PX, _COARSE_PX), interpolation=cv2.INTER_AREA).ravel()
        n_inside[place] = (full > COMPARED_HU[0]).sum()
        if on_progress and (place % _PROGRESS_STEP == 0 or place == len(rows) - 1):
            on_progress(place + 1, len(rows))
    at_first, at_second = np.searchsorted(rows, first), np.searchsorted(rows, second)
    may_be = np.zeros(len(first), dtype=bool)
    open_pairs = np.flatnonzero(is_open)
    for chunk in np.array_split(open_pairs, max(len(open_pairs) // 10_000, 1)):
        one, other = at_first[chunk], at_second[chunk]
        total = np.abs(coarse[one] - coarse[other]).sum(axis=1) * (COMPARED_PX // _COARSE_PX) ** 2
        most_inside = np.clip(n_inside[one] + n_inside[other], 1, COMPARED_PX**2)
        may_be[chunk] = total / most_inside <= NEAR_HU
    return may_be
