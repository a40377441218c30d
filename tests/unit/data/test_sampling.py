"""The slices of an epoch: all of them, or a fresh draw that has the same size every time."""

import numpy as np
import pandas as pd
import pytest

from ichtune.data.sampling import epoch_rows, n_epoch_rows
from ichtune.labels import ANY
from ichtune.recipe import Recipe

N_SERIES, N_SLICES = 12, 10


def table() -> pd.DataFrame:
    """Twelve series of ten slices, mixed; a quarter shows a bleed, and the last series has no labels."""
    series = np.repeat(np.arange(N_SERIES), N_SLICES)
    frame = pd.DataFrame({"series_instance_uid": [f"s{s}" for s in series]})
    frame["is_labelled"] = series < N_SERIES - 1
    frame[ANY] = np.where(frame["is_labelled"], np.arange(len(series)) % 4 == 0, np.nan)
    return frame.sample(frac=1, random_state=3).reset_index(drop=True)


SLICES = table()
ROWS = np.flatnonzero(SLICES["series_instance_uid"] != "s0")
IS_NEGATIVE = (SLICES[ANY] == 0).to_numpy()
SAMPLINGS = [
    {"negative_share": 0.3},
    {"negative_share": 0.001},
    {"slices_per_series": 3},
    {"slices_per_series": 50},
]


def recipe(seed: int = 5, **keys: float) -> Recipe:
    return Recipe(seed=seed, calibration="prior_shift", **keys)


def test_by_default_an_epoch_takes_every_row_in_an_order_of_its_own() -> None:
    for epoch in range(2):
        expected = np.random.default_rng([5, epoch]).permutation(ROWS)
        np.testing.assert_array_equal(epoch_rows(ROWS, SLICES, recipe(), epoch), expected)
    assert n_epoch_rows(ROWS, SLICES, recipe()) == len(ROWS)


@pytest.mark.parametrize("keys", SAMPLINGS)
def test_an_epoch_depends_on_seed_and_number_and_never_changes_its_size(keys: dict[str, float]) -> None:
    epochs = [epoch_rows(ROWS, SLICES, recipe(**keys), epoch) for epoch in range(20)]
    assert {len(rows) for rows in epochs} == {n_epoch_rows(ROWS, SLICES, recipe(**keys))}
    assert all(len(set(rows)) == len(rows) and set(rows) <= set(ROWS) for rows in epochs)
    np.testing.assert_array_equal(epoch_rows(ROWS, SLICES, recipe(**keys), 7), epochs[7])
    assert epochs[7].tolist() != epoch_rows(ROWS, SLICES, recipe(seed=6, **keys), 7).tolist()
    assert epochs[7].tolist() != epochs[8].tolist()
    assert epochs[7].tolist() != sorted(epochs[7])


def test_a_share_of_the_negatives_is_drawn_anew_and_the_others_are_all_taken() -> None:
    is_negative = IS_NEGATIVE[ROWS]
    drawn = [epoch_rows(ROWS, SLICES, recipe(negative_share=0.3), epoch) for epoch in range(200)]
    for rows in drawn:
        assert set(ROWS[~is_negative]) <= set(rows)
        assert IS_NEGATIVE[rows].sum() == round(0.3 * is_negative.sum())
    times = np.bincount(np.concatenate(drawn), minlength=len(SLICES))[ROWS[is_negative]]
    assert abs(times.mean() - 60) < 2
    assert times.min() > 30
    assert times.max() < 90


def test_a_series_gives_so_many_slices_at_most() -> None:
    series = SLICES["series_instance_uid"].to_numpy()
    few = ROWS[(series[ROWS] != "s1") | (np.arange(len(ROWS)) < 20)]  # one series has fewer slices than that
    sizes = pd.Series(series[few]).value_counts()
    drawn = [epoch_rows(few, SLICES, recipe(slices_per_series=3), epoch) for epoch in range(200)]
    for rows in drawn:
        assert pd.Series(series[rows]).value_counts().to_dict() == sizes.clip(upper=3).to_dict()
    times = np.bincount(np.concatenate(drawn), minlength=len(SLICES))[few[series[few] == "s4"]]
    assert times.sum() == 600
    assert times.min() > 30
