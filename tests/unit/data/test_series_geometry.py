import math

import numpy as np
import pandas as pd
import pytest

from ichtune.data.series_geometry import (
    add_series_geometry,
    normal_tilt_deg,
    series_order,
    series_table,
    whole_series,
)
from ichtune.labels import LABELS

NAN = math.nan


def series(z, number=None, location=None, normal=(0.0, 0.0, 1.0), y=0.0, name="s", status="ok") -> pd.DataFrame:
    """Rows of one series at heights ``z``."""
    n = len(z)
    return pd.DataFrame(
        {
            "image_id": [f"{name}{i}" for i in range(n)],
            "status": status,
            "series_instance_uid": name,
            "instance_number": np.array(range(n) if number is None else number, float),
            "slice_location_mm": np.full(n, NAN) if location is None else np.array(location, float),
            "position_x_mm": 0.0,
            "position_y_mm": y,
            "position_z_mm": np.array(z, float),
            **{f"normal_{axis}": value for axis, value in zip("xyz", normal, strict=True)},
        }
    )


def ordered(*parts) -> pd.DataFrame:
    table = pd.concat(parts, ignore_index=True)
    add_series_geometry(table)
    return table


def test_slices_are_ranked_by_position_not_by_number():
    table = ordered(series([30, 10, 20], number=[1, 2, 3]))
    assert table["slice_rank"].tolist() == [2, 0, 1]
    assert table["z_mm"].tolist() == [30, 10, 20]


def test_each_series_has_ranks_of_its_own():
    table = ordered(series([5, 0], name="a"), series([1, 3, 2], name="b"))
    assert table["slice_rank"].tolist() == [1, 0, 0, 2, 1]


def test_a_tilted_series_is_measured_along_its_normal():
    tilt = math.radians(18.5)
    normal = (0.0, math.sin(tilt), math.cos(tilt))
    heights = np.array([0, 5, 10]) / math.cos(tilt)
    table = ordered(series(heights, normal=normal))
    assert table["spacing_mm"].tolist() == pytest.approx([5, 5, 5])
    assert normal_tilt_deg(normal) == pytest.approx(18.5)


def test_spacing_is_the_distance_to_the_next_slice():
    table = ordered(series([0, 1, 8, 10]))
    assert table["spacing_mm"].tolist() == [1, 7, 2, 2]


def test_slices_at_one_position_go_by_number_and_then_by_id():
    table = ordered(series([5, 5, 5, 0], number=[3, 1, 1, 9]))
    assert table["slice_rank"].tolist() == [3, 1, 2, 0]
    assert table["spacing_mm"].tolist() == [5, 5, 5, 5]
    assert table["n_at_position"].tolist() == [3, 3, 3, 1]


def test_36_slices_at_28_positions_keep_their_28_positions():
    doubled = np.arange(10, 18)
    heights = np.r_[np.arange(28), doubled] * 5.0
    table = ordered(series(heights + np.r_[np.zeros(28), np.full(8, 0.004)], number=np.arange(1, 37)))
    assert sorted(table["slice_rank"]) == list(range(36))
    assert table["n_at_position"].tolist() == [2 if 10 <= p < 18 else 1 for p in [*range(28), *doubled]]
    assert table["spacing_mm"].to_numpy() == pytest.approx(np.full(36, 5.0), abs=0.01)
    first, second = table.loc[10:17, "slice_rank"].to_numpy(), table.loc[28:, "slice_rank"].to_numpy()
    np.testing.assert_array_equal(second, first + 1)  # of two at one position the lower number goes first
    assert series_order(table).position.tolist() == sorted([*range(28), *doubled])
    assert described(table)[["n_slices", "n_positions"]].tolist() == [36, 28]
    assert not described(table)["is_uneven"]


def test_one_missing_position_sends_the_whole_series_to_slice_location():
    table = ordered(series([0, NAN, 2], location=[7, 3, 5]), series([4, 2], name="other"))
    assert table["slice_rank"].tolist() == [2, 0, 1, 1, 0]
    assert table["z_mm"].tolist() == [7, 3, 5, 4, 2]
    assert table["ordered_by"].tolist() == ["slice_location"] * 3 + ["position"] * 2


def test_without_any_position_the_number_orders_and_is_no_distance():
    table = ordered(series([NAN, NAN], number=[2, 1]))
    assert table["slice_rank"].tolist() == [1, 0]
    assert table["z_mm"].isna().all()
    assert table["spacing_mm"].isna().all()


def test_without_any_orientation_the_z_of_the_position_stands_in_and_is_said_so():
    table = ordered(series([3, 1], normal=(NAN, NAN, NAN), y=100.0))
    assert table["z_mm"].tolist() == [3, 1]
    assert table["ordered_by"].tolist() == ["position_z", "position_z"]


def leaning(degrees: float) -> tuple[float, float, float]:
    return (0.0, math.sin(math.radians(degrees)), math.cos(math.radians(degrees)))


def test_slices_of_another_orientation_are_a_series_of_their_own():
    table = ordered(
        series([0, 5], normal=leaning(20)),
        series([2, 7, 4], normal=leaning(0)).assign(image_id=["u0", "u1", "u2"]),
        series([9], normal=(NAN, NAN, NAN)).assign(image_id="w"),
    )
    assert table["series_instance_uid"].tolist() == ["s~2", "s~2", "s", "s", "s", "s~3"]
    assert table["slice_rank"].tolist() == [0, 1, 0, 2, 1, 0]
    assert table["ordered_by"].tolist() == ["position"] * 5 + ["position_z"]
    assert table["spacing_mm"].tolist()[2:5] == [2, 3, 3]
    assert whole_series(table["series_instance_uid"]).unique().tolist() == ["s"]
    assert series_table(complete(table))["is_stack"].tolist() == [True, False, True]


def test_a_normal_that_points_the_other_way_is_another_orientation():
    table = ordered(series([0, 1, 2]), series([3], normal=(0.0, 0.0, -1.0)).assign(image_id="x"))
    assert table["series_instance_uid"].tolist() == ["s", "s", "s", "s~2"]


def test_a_jitter_of_the_normal_is_no_other_orientation():
    table = ordered(series([0, 5], normal=leaning(18.5)), series([10], normal=leaning(18.9)).assign(image_id="x"))
    assert set(table["series_instance_uid"]) == {"s"}
    assert table["slice_rank"].tolist() == [0, 1, 2]


def test_a_stacks_name_is_never_one_that_is_taken():
    table = ordered(
        series([0, 1]),
        series([3], normal=leaning(30)).assign(image_id="x"),
        series([0], name="s~2").assign(image_id="y"),
    )
    assert table["series_instance_uid"].tolist() == ["s", "s", "s~22", "s~2"]


def complete(table: pd.DataFrame) -> pd.DataFrame:
    """Add what a SliceTable holds beyond geometry."""
    return table.assign(
        patient_id="P", slice_thickness_mm=5.0, tilt_deg=0.0, is_labelled=False, **dict.fromkeys(LABELS, NAN)
    )


def described(table: pd.DataFrame) -> pd.Series:
    return series_table(complete(table)).iloc[0]


def test_a_series_is_described_by_the_gaps_between_its_positions():
    row = described(ordered(series([0, 5, 10, 20, 10])))
    assert row[["n_slices", "n_positions", "spacing_median_mm", "spacing_min_mm", "spacing_max_mm"]].tolist() == [
        5,
        4,
        5.0,
        5.0,
        10.0,
    ]
    assert row["is_uneven"]
    assert row["ordered_by"] == "position"


@pytest.mark.parametrize(("last", "is_uneven"), [(15.4, False), (15.6, True), (14.4, True)])
def test_a_gap_that_differs_by_more_than_a_tenth_is_uneven(last, is_uneven):
    assert bool(described(ordered(series([0, 5, 10, last])))["is_uneven"]) == is_uneven


def test_every_series_is_one_row_with_its_labels():
    table = complete(ordered(series([0, 1], name="b"), series([7], name="a"), series([0], name="c", status="refused")))
    table.loc[0, ["is_labelled", *LABELS]] = [True, 1, 0, 0, 0, 0, 1]
    rows = series_table(table)
    assert rows["series_instance_uid"].tolist() == ["b", "a"]
    assert rows["n_labelled"].tolist() == [1, 0]
    assert rows.loc[0, list(LABELS)].tolist() == [1, 0, 0, 0, 0, 1]
    assert rows.loc[1, list(LABELS)].isna().all()
    assert math.isnan(rows.loc[1, "spacing_median_mm"])
    assert not rows.loc[1, "is_uneven"]
    assert len(series_table(table[table["status"] == "refused"])) == 0


def test_only_usable_slices_are_ranked():
    table = ordered(series([0, 1]), series([0.5], name="s", status="refused").assign(image_id="x"))
    assert table["slice_rank"].tolist() == [0, 1, -1]
    assert table["spacing_mm"].tolist()[:2] == [1, 1]
    assert math.isnan(table["z_mm"].iloc[2])


def test_a_series_of_one_slice_has_no_spacing():
    table = ordered(series([7]))
    assert table["slice_rank"].tolist() == [0]
    assert table["spacing_mm"].isna().all()


def test_no_usable_slice_at_all_is_no_error():
    assert ordered(series([0], status="refused"))["slice_rank"].tolist() == [-1]
