"""Slices of a series in the order in which they lie in the head, not in which they were numbered."""

import math

import numpy as np
import pandas as pd

#: How a series was ordered, best first.
ORDERED_BY = ("position", "slice_location", "instance_number")
_UPRIGHT = (0.0, 0.0, 1.0)


def add_series_geometry(table: pd.DataFrame) -> None:
    """Fill slice_rank, z_mm, spacing_mm and ordered_by, in place.

    The slices of one series that are ``ok`` are ordered by their position projected on the slice normal; ties
    go by instance number, then by image_id. Where a slice of the series has no position the whole series goes
    by slice location, and failing that by instance number, and z_mm is then the slice location or NaN: the
    two scales are never mixed within a series. spacing_mm is the distance to the next slice, for the last one
    to the slice before it; 0 where two slices lie at one position.

    Args:
        table: one row a file, with status, image_id, series_instance_uid and the columns of
            ``index.ROW_COLUMNS``.

    Source: DICOM PS3.3 C.7.6.2.1.1 (position and orientation); instance numbers carry no geometry.
    """
    ok = np.flatnonzero((table["status"] == "ok").to_numpy(bool))
    z_mm, ordered_by = _heights(table, ok)
    rank = np.full(len(table), -1, dtype=np.int32)
    spacing_mm = np.full(len(table), np.nan)
    keys = pd.DataFrame(
        {
            "series": table["series_instance_uid"].to_numpy()[ok],
            "z": z_mm[ok],
            "number": table["instance_number"].to_numpy(float)[ok],
            "image_id": table["image_id"].to_numpy()[ok],
        }
    )
    order = keys.sort_values(["series", "z", "number", "image_id"], kind="stable").index.to_numpy()
    rows = ok[order]
    series = pd.factorize(keys["series"].to_numpy()[order])[0]
    starts = np.flatnonzero(np.r_[True, series[1:] != series[:-1]]) if len(rows) else np.array([], int)
    rank[rows] = np.arange(len(rows)) - np.repeat(starts, np.diff(np.r_[starts, len(rows)]))
    z_mm = np.where(ordered_by == "instance_number", np.nan, z_mm)  # numbers are no distances
    spacing_mm[rows] = _gaps(z_mm[rows], series)
    table["slice_rank"], table["z_mm"], table["spacing_mm"] = rank, z_mm, spacing_mm
    table["ordered_by"] = ordered_by


def normal_tilt_deg(normal: tuple[float, float, float]) -> float:
    """Return the gantry tilt: the angle of a slice's normal in the sagittal plane against the body's axis."""
    tilt = math.degrees(math.atan2(normal[1], normal[2]))
    return 0.0 if tilt == 0 else tilt


def _heights(table: pd.DataFrame, ok: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Where each slice lies along its series, mm, and by which column that is known."""
    series = pd.Series(table["series_instance_uid"].to_numpy()[ok])
    candidates = {
        "position": _projected(table, ok, series),
        "slice_location": table["slice_location_mm"].to_numpy(float)[ok],
        "instance_number": table["instance_number"].to_numpy(float)[ok],
    }
    z_mm = np.full(len(table), np.nan)
    ordered_by = np.full(len(table), "", dtype=object)
    is_open = np.ones(len(ok), dtype=bool)
    for name, values in candidates.items():
        is_known = pd.Series(np.isfinite(values)).groupby(series).transform("all").to_numpy(bool)
        take = is_open & (is_known | (name == ORDERED_BY[-1]))
        z_mm[ok[take]], ordered_by[ok[take]] = values[take], name
        is_open &= ~take
    return z_mm, ordered_by


def _projected(table: pd.DataFrame, ok: np.ndarray, series: pd.Series) -> np.ndarray:
    """Positions on one normal a series, mm: the first one known, or heights would not compare."""
    positions = table[[f"position_{axis}_mm" for axis in "xyz"]].to_numpy(float)[ok]
    normals = table[[f"normal_{axis}" for axis in "xyz"]].to_numpy(float)[ok]
    normals = pd.DataFrame(normals).groupby(series).transform("first").to_numpy(float, copy=True)
    normals[~np.isfinite(normals).all(axis=1)] = _UPRIGHT
    return np.einsum("na,na->n", positions, normals)


def _gaps(z_mm: np.ndarray, series: np.ndarray) -> np.ndarray:
    """Distance of each slice, in order, to the next of its series; of the last one to the slice before it."""
    if len(z_mm) < 2:
        return np.full(len(z_mm), np.nan)
    gaps = np.abs(np.diff(z_mm))
    gaps[series[1:] != series[:-1]] = np.nan
    to_next, to_previous = np.r_[gaps, np.nan], np.r_[np.nan, gaps]
    return np.asarray(np.where(np.isnan(to_next), to_previous, to_next))
