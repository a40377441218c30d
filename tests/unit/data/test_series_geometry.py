import math

import numpy as np
import pandas as pd
import pytest

from ichtune.data.series_geometry import add_series_geometry, normal_tilt_deg

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
    assert table["spacing_mm"].tolist() == [0, 0, 0, 5]


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


def test_a_missing_orientation_counts_as_upright():
    table = ordered(series([3, 1], normal=(NAN, NAN, NAN), y=100.0))
    assert table["z_mm"].tolist() == [3, 1]


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
