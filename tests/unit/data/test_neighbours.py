"""Neighbours by position: never of another series, and each of two passes over one head keeps to its own."""

import math

import numpy as np
import pandas as pd
import pytest

from ichtune.data.neighbours import neighbour_rows

AROUND = (-1, 0, 1)


def slices(series: list[str], rank: list[int], n_at: list[int] | int = 1, number: list[float] | float = 0.0):
    return pd.DataFrame(
        {"series_instance_uid": series, "slice_rank": rank, "n_at_position": n_at, "instance_number": number}
    )


def by_rank(table: pd.DataFrame, offsets: tuple[int, ...]) -> np.ndarray:
    """What a plain series gives, slice by slice."""
    expected = np.full((len(table), len(offsets)), -1)
    for row, (series, rank) in enumerate(zip(table["series_instance_uid"], table["slice_rank"], strict=True)):
        if rank >= 0:
            same = table[(table["series_instance_uid"] == series) & (table["slice_rank"] >= 0)]
            order = same.sort_values("slice_rank").index.to_numpy()
            expected[row] = order[np.clip(rank + np.array(offsets), 0, len(order) - 1)]
    return expected


def test_neighbours_go_by_rank_and_repeat_at_the_ends():
    table = slices(["b", "a", "b", "a", "x", "b"], [2, 1, 0, 0, -1, 1])
    assert neighbour_rows(table, (-2, -1, 0, 1, 2)).tolist() == [
        [2, 5, 0, 0, 0],
        [3, 3, 1, 1, 1],
        [2, 2, 2, 5, 0],
        [3, 3, 3, 1, 1],
        [-1, -1, -1, -1, -1],
        [2, 2, 5, 0, 0],
    ]


@pytest.mark.parametrize(
    "offsets", [(0,), (-1, 0, 1), (-3, -2, -1, 0, 1, 2, 3), (-2, 0, 2), (-2, -1, 0), (0, 3), (1, -1)]
)
def test_plain_series_give_what_the_rank_says(offsets: tuple[int, ...]):
    rng = np.random.default_rng(5)
    names = [name for name, n in zip("abcdef", (1, 2, 5, 9, 3, 4), strict=True) for _ in range(n)]
    table = slices(names, [rank for n in (1, 2, 5, 9, 3, 4) for rank in range(n)])
    table = table.sample(frac=1, random_state=rng).reset_index(drop=True)
    table.loc[len(table)] = ["g", -1, 0, math.nan]
    np.testing.assert_array_equal(neighbour_rows(table, offsets), by_rank(table, offsets))


def test_of_two_passes_over_one_head_each_keeps_to_its_own():
    # numbers 1 to 4 at positions 0 to 3, a second pass 5 and 6 at positions 1 and 2
    table = slices(["s"] * 6, [0, 1, 3, 5, 2, 4], [1, 2, 2, 1, 2, 2], [1, 2, 3, 4, 5, 6])
    assert neighbour_rows(table, AROUND).tolist() == [
        [0, 0, 1],
        [0, 1, 2],
        [1, 2, 3],
        [2, 3, 3],
        [0, 4, 5],
        [4, 5, 3],
    ]


def test_a_slice_at_a_doubled_end_repeats_itself():
    table = slices(["s"] * 4, [0, 1, 2, 3], [2, 2, 2, 2], [1, 2, 3, 4])
    assert neighbour_rows(table, AROUND).tolist() == [[0, 0, 2], [1, 1, 3], [0, 2, 2], [1, 3, 3]]


def test_two_reconstructions_numbered_in_turns_each_keep_to_their_own():
    table = slices(["s"] * 6, list(range(6)), 2, [1, 2, 3, 4, 5, 6])
    assert neighbour_rows(table, AROUND)[[2, 3]].tolist() == [[0, 2, 4], [1, 3, 5]]


def test_without_numbers_the_first_at_a_position_is_taken():
    table = slices(["s"] * 3, [0, 1, 2], [1, 2, 2], math.nan)
    assert neighbour_rows(table, AROUND).tolist() == [[0, 0, 1], [0, 1, 1], [0, 2, 2]]


def test_nearest_means_the_least_difference_wherever_it_stands():
    table = slices(["s"] * 4, [0, 1, 2, 3], [1, 3, 3, 3], [20, 3, 19, 40])
    assert neighbour_rows(table, AROUND)[0].tolist() == [0, 0, 2]


def test_no_usable_slice_has_no_neighbours():
    assert neighbour_rows(slices(["s"], [-1], 0), AROUND).tolist() == [[-1, -1, -1]]
    assert neighbour_rows(slices([], []), AROUND).shape == (0, 3)
