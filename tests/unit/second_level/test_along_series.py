import numpy as np
import pytest

from ichtune.second_level.along_series import AlongSeries

NAN = np.nan


@pytest.fixture
def along() -> AlongSeries:
    """Two series, of three slices and of one."""
    return AlongSeries(np.array([0, 0, 0, 1]))


X_R = np.array([1.0, 5.0, 3.0, 9.0])


def test_places_are_counted_from_both_ends(along) -> None:
    assert along.below_R.tolist() == [0, 1, 2, 0]
    assert along.above_R.tolist() == [2, 1, 0, 0]
    assert along.lengths.tolist() == [3, 3, 3, 1]


def test_a_neighbour_beyond_the_series_is_not_the_one_of_the_next_series(along) -> None:
    np.testing.assert_array_equal(along.shifted(X_R, 1), [5, 3, NAN, NAN])
    np.testing.assert_array_equal(along.shifted(X_R, -1), [NAN, 1, 5, NAN])
    np.testing.assert_array_equal(along.shifted(X_R, 2, fill=0), [3, 0, 0, 0])
    np.testing.assert_array_equal(along.shifted(X_R, 0), X_R)
    assert np.isnan(along.shifted(X_R, 9)).all()


def test_windows_are_centred_and_cut_at_the_ends(along) -> None:
    np.testing.assert_allclose(along.rolling_mean(X_R, 3), [3, 3, 4, 9])
    np.testing.assert_array_equal(along.rolling_min(X_R, 3), [1, 1, 3, 9])
    np.testing.assert_array_equal(along.rolling_max(X_R, 3), [5, 5, 5, 9])
    np.testing.assert_allclose(along.rolling_std(X_R, 3), [2, np.std([1, 5, 3]), 1, 0])


def test_exponential_means_halve_the_weight_every_half_life(along) -> None:
    np.testing.assert_allclose(along.exponential_below(X_R, 1), [1, (5 + 0.5) / 1.5, (3 + 2.5 + 0.25) / 1.75, 9])
    np.testing.assert_allclose(along.exponential_above(X_R, 1), [(1 + 2.5 + 0.75) / 1.75, 6.5 / 1.5, 3, 9])


def test_numbers_of_the_whole_series(along) -> None:
    np.testing.assert_array_equal(along.total(X_R), [9, 9, 9, 9])
    np.testing.assert_array_equal(along.mean(X_R), [3, 3, 3, 9])
    np.testing.assert_array_equal(along.maximum(X_R), [5, 5, 5, 9])
    np.testing.assert_allclose(along.std(X_R), [np.std(X_R[:3])] * 3 + [0])


def test_the_peak_is_the_nearest_of_equal_ones_on_that_side() -> None:
    along = AlongSeries(np.zeros(5, dtype=int))
    x_R = np.array([1.0, 7.0, 2.0, 7.0, 0.0])
    np.testing.assert_array_equal(along.peak_below(x_R), [NAN, 0, 1, 0, 1])
    np.testing.assert_array_equal(along.peak_above(x_R), [1, 0, 1, 0, NAN])


def test_equal_values_share_their_rank() -> None:
    along = AlongSeries(np.array([0, 0, 0, 0, 1, 1]))
    np.testing.assert_allclose(
        along.rank(np.array([2.0, 9.0, 2.0, 1.0, 4.0, 3.0])), [0.5, 0.875, 0.5, 0.125, 0.75, 0.25]
    )


def test_no_slices_are_no_numbers() -> None:
    along, none = AlongSeries(np.empty(0, dtype=np.int64)), np.empty(0)
    for one in (along.shifted(none, 1), along.rolling_mean(none, 3), along.exponential_below(none, 2)):
        assert len(one) == 0
    for one in (along.mean(none), along.maximum(none), along.peak_above(none), along.rank(none)):
        assert len(one) == 0


def test_upside_down_no_bit_of_a_sum_changes() -> None:
    rng = np.random.default_rng(0)
    along = AlongSeries(np.repeat([0, 1, 2], [23, 1, 40]))
    x_R = 10.0 ** rng.uniform(-8, 8, 64)
    turned = along.upside_down()
    for name in ("total", "mean", "std"):
        np.testing.assert_array_equal(getattr(turned, name)(x_R[::-1])[::-1], getattr(along, name)(x_R))
    for name in ("rolling_mean", "rolling_std"):
        np.testing.assert_array_equal(getattr(turned, name)(x_R[::-1], 9)[::-1], getattr(along, name)(x_R, 9))
