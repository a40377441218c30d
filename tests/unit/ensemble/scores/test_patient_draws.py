import numpy as np
import pytest

from ichtune.ensemble.scores import patient_draws as module
from ichtune.ensemble.scores.bootstrap import loss_intervals, resampled_means
from ichtune.ensemble.scores.patient_draws import drawn_sums, patient_codes, patient_draws, percentile_interval
from ichtune.errors import DataError


def test_patients_are_numbered_by_name_whatever_the_order_of_rows():
    codes, n = patient_codes(np.array(["b", "a", "b", "c"], dtype=object))
    assert codes.tolist() == [1, 0, 1, 2]
    assert n == 3


def test_slices_without_a_patient_and_no_slices_are_refused():
    with pytest.raises(DataError, match="at least one slice"):
        patient_codes(np.array([], dtype=object))
    with pytest.raises(DataError, match="none at row 1"):
        patient_codes(np.array(["a", None], dtype=object))


def test_each_draw_holds_as_many_patients_as_there_are():
    times = patient_draws(300, 50)
    assert times.shape == (300, 50)
    assert (times.sum(axis=0) == 300).all()
    assert 0.35 < (times == 0).mean() < 0.39, "a patient is left out of a draw with a chance of 1 / e"


def test_the_draws_are_those_of_the_other_intervals():
    rng = np.random.default_rng(0)
    sums = np.stack([rng.random(40), np.full(40, 3.0)], axis=1)
    drawn = drawn_sums(patient_draws(40, 30, seed=5), sums)
    np.testing.assert_allclose(drawn[:, 0] / drawn[:, 1], resampled_means(sums, 40, 30, seed=5)[:, 0], rtol=1e-12)


def test_blocks_change_nothing(monkeypatch):
    values = np.random.default_rng(1).random((25, 3))
    times = patient_draws(25, 40)
    sums = drawn_sums(times, values)
    monkeypatch.setattr(module, "BLOCK", 60)
    np.testing.assert_array_equal(patient_draws(25, 40), times)
    np.testing.assert_allclose(drawn_sums(times, values), sums, rtol=1e-12)


def test_an_interval_leaves_out_draws_that_are_no_number():
    assert percentile_interval(1.0, np.array([0.0, np.nan, 2.0])).high == pytest.approx(1.95)
    loss, patient = np.random.default_rng(2).random(90), np.repeat(np.arange(30), 3)
    sums = np.bincount(patient, weights=loss)[:, None]
    interval = percentile_interval(loss.mean(), drawn_sums(patient_draws(30), sums)[:, 0] / 90)
    assert interval.low == pytest.approx(loss_intervals(loss, patient)[0].low, rel=1e-12)
    with pytest.raises(DataError, match="none among 2"):
        percentile_interval(1.0, np.full(2, np.nan))
