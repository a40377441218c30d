from dataclasses import replace

import numpy as np

from ichtune.second_level.series_batches import (
    SeriesBatch,
    batches_in_order,
    n_training_batches,
    training_batches,
)
from ichtune.second_level_recipe import SecondLevelRecipe

PLAIN = SecondLevelRecipe(subsample=0.0, reverse=0.0, batch_size=8)


def series_of(batches: list[SeriesBatch]) -> list[np.ndarray]:
    """Rows of every series that is shown."""
    return [rows for batch in batches for rows in np.split(batch.rows_S, np.cumsum(batch.lengths_B)[:-1])]


def same(first: list[SeriesBatch], second: list[SeriesBatch]) -> bool:
    pairs = list(zip(first, second, strict=True))
    return all(np.array_equal(a.rows_S, b.rows_S) and np.array_equal(a.lengths_B, b.lengths_B) for a, b in pairs)


def test_every_series_is_shown_whole_once_an_epoch(generated_series) -> None:
    view, _ = generated_series(30)
    batches = training_batches(view, PLAIN, epoch=0)
    assert len(batches) == n_training_batches(view, PLAIN) == 4
    assert sorted(np.concatenate([batch.rows_S for batch in batches])) == list(range(len(view)))
    for rows in series_of(batches):
        assert len(set(view.series_R[rows])) == 1
        assert (np.diff(rows) == 1).all()


def test_an_epoch_is_drawn_from_its_seed_and_number_alone(generated_series) -> None:
    view, _ = generated_series(30)
    recipe = SecondLevelRecipe(batch_size=8)
    np.random.seed(0)
    first = training_batches(view, recipe, epoch=3)
    np.random.random(5)
    assert same(first, training_batches(view, recipe, epoch=3))
    assert not same(first, training_batches(view, recipe, epoch=4))
    assert not same(first, training_batches(view, replace(recipe, seed=8), epoch=3))


def test_every_second_slice_of_either_phase(generated_series) -> None:
    view, _ = generated_series(40)
    shown = series_of(training_batches(view, replace(PLAIN, subsample=1.0), epoch=0))
    assert len(shown) == 40
    assert all((np.diff(rows) == 2).all() for rows in shown)
    phases = {int(view.places[rows[0]]) for rows in shown}
    assert phases == {0, 1}
    assert all(len(view) - 1 in rows or view.series_R[rows[-1]] < 39 or rows[-1] == len(view) - 2 for rows in shown)


def test_upside_down(generated_series) -> None:
    view, _ = generated_series(20)
    shown = series_of(training_batches(view, replace(PLAIN, reverse=1.0), epoch=0))
    assert all((np.diff(rows) == -1).all() for rows in shown)
    half = series_of(training_batches(view, replace(PLAIN, reverse=0.5), epoch=0))
    assert 0 < sum(rows[0] > rows[-1] for rows in half) < 20


def test_series_of_one_slice_stay(generated_series) -> None:
    view, _ = generated_series(20, lengths=(1, 2))
    shown = series_of(training_batches(view, replace(PLAIN, subsample=1.0, reverse=1.0), epoch=0))
    assert [len(rows) for rows in shown] == [1] * 20


def test_batches_hold_series_of_about_one_length(generated_series) -> None:
    view, _ = generated_series(200, lengths=(5, 60))
    lengths = [batch.lengths_B for batch in training_batches(view, PLAIN, epoch=0)]
    assert max(batch.max() - batch.min() for batch in lengths) < 12
    sizes = [batch.mean() for batch in lengths]
    assert sizes != sorted(sizes)


def test_in_order_is_every_series_whole_either_way_up(generated_series) -> None:
    view, _ = generated_series(30)
    upright, upside_down = batches_in_order(view, 7), batches_in_order(view, 7, upside_down=True)
    assert sorted(np.concatenate([batch.rows_S for batch in upright])) == list(range(len(view)))
    for rows, reversed_rows in zip(series_of(upright), series_of(upside_down), strict=True):
        np.testing.assert_array_equal(rows[::-1], reversed_rows)


def test_padding_lies_at_the_ends_and_is_nought() -> None:
    batch = SeriesBatch(rows_S=np.array([4, 5, 9]), lengths_B=np.array([2, 1]))
    np.testing.assert_array_equal(batch.mask, [[True, True], [True, False]])
    np.testing.assert_array_equal(batch.padded(np.array([[1.0], [2.0], [3.0]]))[..., 0], [[1, 2], [3, 0]])


def test_an_empty_view_has_no_batch(generated_series) -> None:
    view, _ = generated_series(2)
    assert batches_in_order(view.take(np.array([], dtype=int)), 4) == []
