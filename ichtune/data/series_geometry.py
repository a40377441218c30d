"""Slices of a series in the order in which they lie in the head, not in which they were numbered."""

import math
from typing import NamedTuple

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from ichtune.labels import ANY, LABELS

#: How a series was ordered, best first: by position on the slice normal, by the z of the position where no slice says
#: its orientation, by slice location, by instance number.
ORDERED_BY = ("position", "position_z", "slice_location", "instance_number")
#: Heights closer than this are one position: less than any scanner's step, more than the rounding of a header.
SAME_POSITION_MM = 0.01
#: Normals further apart than this are two stacks of slices, which no order can mix.
SAME_STACK_DEG = 5.0
#: A gap that differs by more than this share of the median makes a series uneven.
UNEVEN_SHARE = 0.1
#: Stands between a series and the number of its second, third ... stack.
STACK_MARK = "~"
_UPRIGHT = (0.0, 0.0, 1.0)
#: What is told of a series comes from these columns of its slices.
_OF_SERIES = (
    "series_instance_uid",
    "patient_id",
    "image_id",
    "spacing_mm",
    "slice_thickness_mm",
    "tilt_deg",
    "ordered_by",
    "is_labelled",
    *LABELS,
)


def add_series_geometry(table: pd.DataFrame) -> None:
    """Fill slice_rank, z_mm, spacing_mm, n_at_position and ordered_by, and part stacks of a series, in place.

    A series that holds slices of several orientations, or some with and some without one, is parted into stacks of
    parallel slices: the largest keeps the series' name, the others are called ``name~2``, ``name~3``, and each is a
    series of its own from here on, so that no order, spacing or neighbour crosses from one to the other.

    The slices of one series that are ``ok`` are ordered by their position projected on the slice normal. Those within
    ``SAME_POSITION_MM`` lie at one position and go by instance number, then by image_id. Without any orientation the
    z of the position stands in. Where a slice of the series has no position the whole series goes by slice location,
    and failing that by instance number, and z_mm is then the slice location or NaN: two scales are never mixed within
    a series. spacing_mm is the distance to the next position, for the last one to the position before it.

    n_at_position counts the slices of the series at one position; it is 1 where positions are unknown, and 0 for
    files that are not ``ok``.

    Args:
        table: one row a slice, with status, image_id, series_instance_uid and the columns of ``index.ROW_COLUMNS``.

    Source: DICOM PS3.3 C.7.6.2.1.1 (position and orientation); instance numbers carry no geometry.
    """
    ok = np.flatnonzero((table["status"] == "ok").to_numpy(bool))
    _part_stacks(table, ok)
    series = pd.factorize(table["series_instance_uid"].to_numpy()[ok])[0]
    height, ordered_by = _heights(table, ok, series)
    numbers = table["instance_number"].to_numpy(float)[ok]
    names = _alphabetical(table["image_id"].to_numpy()[ok])
    z_mm = np.where(ordered_by == "instance_number", np.nan, height)  # numbers are no distances
    order = np.lexsort((names, numbers, height, series))
    at = np.empty(len(ok), dtype=np.int64)
    at[order] = _position_numbers(series[order], z_mm[order])
    order = np.lexsort((names, numbers, at))
    rank, n_at = _rank_within(series[order]), np.bincount(at)[at] if len(at) else at
    filled = {
        "slice_rank": (np.int32(-1), rank, ok[order]),
        "z_mm": (np.nan, z_mm, ok),
        "spacing_mm": (np.nan, _gaps(z_mm[order], series[order], at[order]), ok[order]),
        "n_at_position": (np.int32(0), n_at, ok),
        "ordered_by": ("", ordered_by, ok),
    }
    for column, (empty, values, rows) in filled.items():
        whole = np.full(len(table), empty, dtype=object if column == "ordered_by" else None)
        whole[rows] = values
        table[column] = whole


def normal_tilt_deg(normal: tuple[float, float, float]) -> float:
    """Return the gantry tilt: the angle of a slice's normal in the sagittal plane against the body's axis."""
    tilt = math.degrees(math.atan2(normal[1], normal[2]))
    return 0.0 if tilt == 0 else tilt


def whole_series(series_instance_uids: pd.Series) -> pd.Series:
    """Return the series that each stack was parted from: the name as the files gave it."""
    return series_instance_uids.str.replace(rf"{STACK_MARK}\d+$", "", regex=True)


class SeriesOrder(NamedTuple):
    """Ranked slices, series after series; three int64 arrays of one length.

    Attributes:
        rows: rows of the SliceTable.
        series: number of the series of each row.
        position: number of its position within the series, from 0; slices at one position share it.
    """

    rows: np.ndarray
    series: np.ndarray
    position: np.ndarray


def series_order(slices: pd.DataFrame) -> SeriesOrder:
    """Return the usable slices of a SliceTable in the order of series and slice_rank, with their positions."""
    rows = np.flatnonzero(slices["slice_rank"].to_numpy() >= 0)
    series = pd.factorize(slices["series_instance_uid"].to_numpy()[rows])[0].astype(np.int64)
    order = np.lexsort((slices["slice_rank"].to_numpy()[rows], series))
    rows, series = rows[order], series[order]
    # Each of n slices at a position adds 1/n, so that whole numbers are reached where a position ends.
    share = 1.0 / np.maximum(slices["n_at_position"].to_numpy()[rows], 1)
    before = np.cumsum(share) - share
    position = np.floor(before - before[_starts(series)][series] + 1e-6) if len(rows) else before
    return SeriesOrder(rows, series, position.astype(np.int64))


def series_table(slices: pd.DataFrame) -> pd.DataFrame:
    """Describe every series of a SliceTable.

    Args:
        slices: a SliceTable; its ranked rows count.

    Returns:
        One row a series in order of its first file: series_instance_uid, patient_id, n_slices, n_positions,
        spacing_median_mm, spacing_min_mm and spacing_max_mm between positions (NaN with one position), is_uneven (a
        gap differs by more than 10 % from the median), slice_thickness_mm and tilt_deg (medians), ordered_by,
        is_stack (parted from a series of several orientations), n_labelled, and the six labels: 1 where a slice
        has it, NaN where no slice of the series is labelled.
    """
    rows, series, position = series_order(slices)
    chosen = slices[list(_OF_SERIES)].iloc[rows].reset_index(drop=True)
    table = chosen.groupby(series).agg(
        series_instance_uid=("series_instance_uid", "first"),
        patient_id=("patient_id", "first"),
        n_slices=("image_id", "size"),
        slice_thickness_mm=("slice_thickness_mm", "median"),
        tilt_deg=("tilt_deg", "median"),
        ordered_by=("ordered_by", "first"),
        n_labelled=("is_labelled", "sum"),
        **{label: (label, "max") for label in LABELS},
    )
    table.insert(3, "n_positions", pd.Series(position).groupby(series).max() + 1)
    spacing = _spacing_by_series(chosen["spacing_mm"].to_numpy(float), series, position).reindex(table.index)
    for offset, column in enumerate(spacing):
        table.insert(4 + offset, str(column), spacing[column])
    table["is_uneven"] = table["is_uneven"].fillna(False).astype(bool)
    table.insert(list(table.columns).index(ANY), "is_stack", table["series_instance_uid"].str.contains(STACK_MARK))
    return table.reset_index(drop=True)


def _spacing_by_series(spacing_mm: np.ndarray, series: np.ndarray, position: np.ndarray) -> pd.DataFrame:
    """Median, least and largest gap of each series, one gap between two positions, and whether they are uneven."""
    if not len(series):
        return pd.DataFrame(columns=["spacing_median_mm", "spacing_min_mm", "spacing_max_mm", "is_uneven"])
    is_last_there = np.r_[(series[1:] != series[:-1]) | (position[1:] != position[:-1]), True]
    has_next = np.r_[series[1:] == series[:-1], False]
    taken = is_last_there & has_next
    gaps = pd.Series(spacing_mm[taken]).groupby(series[taken])
    table = gaps.agg(["median", "min", "max"])
    table.columns = pd.Index(["spacing_median_mm", "spacing_min_mm", "spacing_max_mm"])
    furthest = np.maximum(
        table["spacing_max_mm"] - table["spacing_median_mm"], table["spacing_median_mm"] - table["spacing_min_mm"]
    )
    return table.assign(is_uneven=furthest > UNEVEN_SHARE * table["spacing_median_mm"])


def _part_stacks(table: pd.DataFrame, ok: np.ndarray) -> None:
    """Give stacks of another orientation than the largest of their series a name of their own."""
    names = table["series_instance_uid"].to_numpy(object, copy=True)
    normals = table[[f"normal_{axis}" for axis in "xyz"]].to_numpy(float)[ok]
    series = pd.factorize(names[ok])[0]
    is_known = np.isfinite(normals).all(axis=1)
    first = normals[_starts_anywhere(series)][series]
    with np.errstate(invalid="ignore"):
        is_parallel = (normals * first).sum(axis=1) > math.cos(math.radians(SAME_STACK_DEG))
    is_like_first = is_parallel | (~is_known & ~np.isfinite(first).all(axis=1))
    if is_like_first.all():
        return
    taken = set(names.tolist())
    for number in np.unique(series[~is_like_first]):
        members = np.flatnonzero(series == number)
        for count, stack in enumerate(_stacks(normals[members])[1:], start=2):
            name = f"{names[ok[members[0]]].partition(STACK_MARK)[0]}{STACK_MARK}{count}"
            while name in taken:
                name += str(count)
            taken.add(name)
            names[ok[members[stack]]] = name
    table["series_instance_uid"] = names


def _stacks(normals: np.ndarray) -> list[np.ndarray]:
    """Members of each group of parallel normals, the largest first; those without a normal are a group too."""
    is_open = np.isfinite(normals).all(axis=1)
    groups = [np.flatnonzero(~is_open)] if not is_open.all() else []
    while is_open.any():
        near = normals @ normals[int(np.argmax(is_open))] > math.cos(math.radians(SAME_STACK_DEG))
        groups.append(np.flatnonzero(is_open & near))
        is_open &= ~near
    return sorted(groups, key=lambda group: (-len(group), int(group[0])))


def _heights(table: pd.DataFrame, ok: np.ndarray, series: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Where each usable slice lies along its series, mm, and by which column that is known."""
    positions = table[[f"position_{axis}_mm" for axis in "xyz"]].to_numpy(float)[ok]
    normals = table[[f"normal_{axis}" for axis in "xyz"]].to_numpy(float)[ok]
    one_normal = normals[_starts_anywhere(series)][series]  # one a series, or heights would not compare
    candidates = {
        "position": np.einsum("na,na->n", positions, one_normal),
        "position_z": positions @ np.array(_UPRIGHT),
        "slice_location": table["slice_location_mm"].to_numpy(float)[ok],
        "instance_number": table["instance_number"].to_numpy(float)[ok],
    }
    height = np.full(len(ok), np.nan)
    ordered_by = np.full(len(ok), "", dtype=object)
    is_open = np.ones(len(ok), dtype=bool)
    for name in ORDERED_BY:
        n_unknown = np.bincount(series, ~np.isfinite(candidates[name]), minlength=1)
        take = is_open & ((n_unknown[series] == 0) | (name == ORDERED_BY[-1]))
        height[take], ordered_by[take] = candidates[name][take], name
        is_open &= ~take
    return height, ordered_by


def _alphabetical(names: np.ndarray) -> np.ndarray:
    """Place of each name in the alphabet."""
    place = np.empty(len(names), dtype=np.int64)
    place[pc.array_sort_indices(pa.array(names, pa.string())).to_numpy()] = np.arange(len(names))
    return place


def _position_numbers(series: np.ndarray, z_mm: np.ndarray) -> np.ndarray:
    """Number the positions of slices in order, through all series; an unknown height is a position of its own."""
    if not len(series):
        return np.empty(0, dtype=np.int64)
    is_same = (series[1:] == series[:-1]) & (np.diff(z_mm) <= SAME_POSITION_MM)
    return np.cumsum(np.r_[False, ~is_same])


def _starts(series: np.ndarray) -> np.ndarray:
    """Where each run of equal numbers starts."""
    return np.flatnonzero(np.r_[True, series[1:] != series[:-1]]) if len(series) else np.empty(0, dtype=np.int64)


def _starts_anywhere(series: np.ndarray) -> np.ndarray:
    """First row of each series number, in order of the numbers."""
    return np.unique(series, return_index=True)[1]


def _rank_within(series: np.ndarray) -> np.ndarray:
    starts = _starts(series)
    return np.arange(len(series)) - np.repeat(starts, np.diff(np.r_[starts, len(series)]))


def _gaps(z_mm: np.ndarray, series: np.ndarray, at: np.ndarray) -> np.ndarray:
    """Distance of each slice, in order, to the next position of its series; of the last one to the one before."""
    starts = _starts(at)
    if len(starts) < 2:
        return np.full(len(z_mm), np.nan)
    gaps = np.abs(np.diff(z_mm[starts]))
    gaps[series[starts][1:] != series[starts][:-1]] = np.nan
    to_next, to_previous = np.r_[gaps, np.nan], np.r_[np.nan, gaps]
    by_position = np.where(np.isnan(to_next), to_previous, to_next)
    return np.repeat(by_position, np.diff(np.r_[starts, len(at)]))
