"""Which slices lie next to which: neighbours by position in the series."""

from collections.abc import Sequence

import numpy as np
import pandas as pd

from ichtune.data.series_geometry import series_order


def neighbour_rows(slices: pd.DataFrame, offsets: Sequence[int]) -> np.ndarray:
    """Find the cache rows of the slices that lie so many positions away in the series.

    Offset 0 is the slice itself, -1 its neighbour at the position below, 1 the one above. Where as many slices share
    the other position as share the slice's own, the first goes with the first and so on, in the order of their
    instance numbers; where they are more or fewer, the nearest instance number is taken: two passes over one head, or
    two reconstructions of it, each keep to their own.
    A series' first and last position repeat where a neighbour is missing, a slice there repeating itself; a slice
    never takes a neighbour from another series. Unreadable files have no rank, so the next readable slice is the
    neighbour.

    Args:
        slices: SliceTable, its rows being cache rows 0..N-1.
        offsets: positions away, in the order of the columns: ``(-1, 0, 1)``.

    Returns:
        int64 (N, len(offsets)); rows that are not usable hold -1.
    """
    table = np.full((len(slices), len(offsets)), -1, dtype=np.int64)
    rows, series, position = series_order(slices)
    if not len(rows):
        return table
    is_first = np.r_[True, (series[1:] != series[:-1]) | (position[1:] != position[:-1])]
    place = np.cumsum(is_first) - 1  # number of the position, through all series
    first_member, n_members = np.flatnonzero(is_first), np.bincount(place)
    first_place = np.searchsorted(series, series, side="left")
    last_place = place[np.searchsorted(series, series, side="right") - 1]
    first_place = place[first_place]
    numbers = slices["instance_number"].to_numpy(float)[rows]
    member = np.arange(len(rows)) - first_member[place]
    for column, offset in enumerate(offsets):
        target = np.clip(place + offset, first_place, last_place)
        nearest = _nearest_number(numbers, first_member[target], n_members[target])
        is_even = n_members[target] == n_members[place]
        table[rows, column] = rows[np.where(is_even, first_member[target] + member, nearest)]
    return table


def _nearest_number(numbers: np.ndarray, first: np.ndarray, n_members: np.ndarray) -> np.ndarray:
    """Of the members of one position for each slice, the one whose instance number is nearest; the first of equals."""
    chosen = first.copy()
    open_slices = np.flatnonzero(n_members > 1)
    least = _distance(numbers, open_slices, first[open_slices])
    for member in range(1, int(n_members.max())):
        has_member = n_members[open_slices] > member
        open_slices, least = open_slices[has_member], least[has_member]
        candidate = first[open_slices] + member
        distance = _distance(numbers, open_slices, candidate)
        nearer = distance < least
        chosen[open_slices[nearer]] = candidate[nearer]
        least = np.minimum(least, distance)
    return chosen


def _distance(numbers: np.ndarray, slices: np.ndarray, others: np.ndarray) -> np.ndarray:
    return np.nan_to_num(np.abs(numbers[slices] - numbers[others]), nan=np.inf)
