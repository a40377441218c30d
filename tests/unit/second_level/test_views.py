"""A view: slices in the order of their series, and parts of it that stay one."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from ichtune.errors import DataError
from ichtune.second_level.views import METADATA_COLUMNS, SeriesView, in_series_order, view_of


def slices(series: list[str], ranks: list[int]) -> pd.DataFrame:
    n = len(series)
    return pd.DataFrame(
        {
            "image_id": [f"{uid}{rank}" for uid, rank in zip(series, ranks, strict=True)],
            "patient_id": [f"P{uid}" for uid in series],
            "series_instance_uid": series,
            "slice_rank": ranks,
            "z_mm": [5.0 * rank for rank in ranks],
            **{column: np.arange(n, dtype=float) for column in METADATA_COLUMNS},
        }
    ).convert_dtypes({"series_instance_uid": "string"})


def view(series: list[str], ranks: list[int]) -> SeriesView:
    frame = slices(series, ranks)
    return view_of(frame, np.arange(2 * len(frame) * 6, dtype=float).reshape(2, len(frame), 6))


def test_slices_are_sorted_by_series_and_place() -> None:
    frame = slices(["b", "a", "b", "a", "a"], [1, 10, 0, 9, 2])
    assert frame["image_id"].iloc[in_series_order(frame)].tolist() == ["a2", "a9", "a10", "b0", "b1"]


def test_a_slice_without_a_place_is_refused() -> None:
    with pytest.raises(DataError, match=r"slice 'a-1' has no place in its series; run `ichtune prepare`"):
        in_series_order(slices(["a", "a"], [0, -1]))


def test_series_are_counted() -> None:
    made = view(["a", "a", "a", "b", "c", "c"], [0, 1, 5, 2, 0, 1])
    assert made.series_R.tolist() == [0, 0, 0, 1, 2, 2]
    assert made.starts.tolist() == [0, 3, 4]
    assert made.lengths.tolist() == [3, 1, 2]
    assert made.places.tolist() == [0, 1, 2, 0, 0, 1]
    assert made.z_mm_R.tolist() == [0, 5, 25, 10, 0, 5]
    assert made.patient_R.tolist() == ["Pa", "Pa", "Pa", "Pb", "Pc", "Pc"]


@pytest.mark.parametrize("rows", [np.array([1, 2, 4]), np.array([False, True, True, False, True, False])])
def test_some_rows_make_a_view_of_their_own(rows: np.ndarray) -> None:
    made = replace(view(["a", "a", "a", "b", "c", "c"], [0, 1, 5, 2, 0, 1]), e_RD=np.arange(12.0).reshape(6, 2))
    part = made.take(rows)
    assert part.image_ids.tolist() == ["a1", "a5", "c0"]
    assert part.series_R.tolist() == [0, 0, 1]
    assert part.places.tolist() == [0, 1, 0]
    np.testing.assert_array_equal(part.p_MRL, made.p_MRL[:, [1, 2, 4]])
    np.testing.assert_array_equal(part.metadata_RC, made.metadata_RC[[1, 2, 4]])
    assert part.e_RD is not None
    np.testing.assert_array_equal(part.e_RD, [[2, 3], [4, 5], [8, 9]])


def test_nothing_is_a_view_too() -> None:
    nothing = view(["a"], [0]).take(np.array([], dtype=np.int64))
    assert (len(nothing), len(nothing.starts), len(nothing.lengths), len(nothing.places)) == (0, 0, 0, 0)


@pytest.mark.parametrize("series_R", [[1, 1], [0, 2], [1, 0], [0, 1, 0]])
def test_series_must_be_numbered_in_order(series_R: list[int]) -> None:
    made = view(["a"] * len(series_R), list(range(len(series_R))))
    with pytest.raises(DataError, match="sorted by series, numbered from 0 without a gap"):
        replace(made, series_R=np.array(series_R))


def test_the_same_slices_may_be_seen_by_other_models() -> None:
    made = view(["a", "b"], [0, 0])
    other = made.with_predictions(1.0 - made.p_MRL, np.ones((2, 3)))
    assert other.image_ids is made.image_ids
    np.testing.assert_array_equal(other.p_MRL, 1.0 - made.p_MRL)
    assert made.e_RD is None
