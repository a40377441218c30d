import numpy as np
import pytest

from ichtune.ensemble.scores import bootstrap
from ichtune.ensemble.scores.bootstrap import (
    difference_interval,
    loss_intervals,
    prediction_intervals,
    resampled_means,
)
from ichtune.errors import DataError


def patients_with_losses(rng, n_patients, n_slices=8):
    """Skewed losses that differ more between patients than within them, as those of a classifier do."""
    patient = np.repeat(np.arange(n_patients), n_slices)
    return rng.lognormal(-2, 0.8, n_patients)[patient] * rng.uniform(0.5, 1.5, len(patient)), patient


def test_interval_has_the_width_that_theory_gives():
    loss, patient = patients_with_losses(np.random.default_rng(0), 400)
    (interval,) = loss_intervals(loss, patient)
    standard_error = loss.reshape(400, 8).mean(axis=1).std() / np.sqrt(400)
    assert interval.estimate == pytest.approx(loss.mean(), rel=1e-12)
    assert interval.high - interval.low == pytest.approx(2 * 1.96 * standard_error, rel=0.1)


def test_patients_are_drawn_not_slices():
    rng = np.random.default_rng(1)
    patient = np.repeat(np.arange(20), 50)
    loss = rng.random(20)[patient]
    by_patient, by_slice = loss_intervals(loss, patient)[0], loss_intervals(loss, np.arange(1000))[0]
    assert by_patient.high - by_patient.low > 4 * (by_slice.high - by_slice.low)


def test_order_of_rows_and_names_of_patients_do_not_matter():
    loss, patient = patients_with_losses(np.random.default_rng(2), 30)
    names = np.array([f"P{i:03d}" for i in range(30)], dtype=object)[patient]
    order = np.random.default_rng(3).permutation(len(loss))
    one, two = loss_intervals(loss, patient)[0], loss_intervals(loss[order], names[order])[0]
    np.testing.assert_allclose([one.low, one.high], [two.low, two.high], rtol=1e-12)


def test_many_candidates_give_what_each_gives_alone():
    loss, patient = patients_with_losses(np.random.default_rng(4), 25)
    together = loss_intervals(np.stack([loss, loss**2], axis=1), patient)
    assert together[1].high == pytest.approx(loss_intervals(loss**2, patient)[0].high, rel=1e-12)


def test_blocks_of_draws_do_not_change_the_result(monkeypatch):
    loss, patient = patients_with_losses(np.random.default_rng(5), 25)
    whole = loss_intervals(loss, patient)[0]
    monkeypatch.setattr(bootstrap, "BLOCK", 100)
    assert loss_intervals(loss, patient)[0] == whole


def test_a_paired_difference_is_narrower_than_its_parts():
    rng = np.random.default_rng(6)
    loss, patient = patients_with_losses(rng, 60)
    better = loss * 0.95
    difference = difference_interval(better, loss, patient)
    (alone,) = loss_intervals(loss, patient)
    assert difference.high < 0, "a gain of 5 % in every slice is certain, whatever the patients"
    assert difference.high - difference.low < (alone.high - alone.low) / 5


def test_patients_of_unequal_length_count_by_their_slices():
    sums = np.array([[10.0, 10.0], [0.0, 90.0]])
    means = resampled_means(sums, 2, 500, seed=0)
    assert set(np.round(means[:, 0], 9)) == {0.0, 0.1, 1.0}


@pytest.mark.parametrize(("n_known", "n_new"), [(80, 40), (40, 120)])
def test_new_patients_lie_in_the_predicted_interval_as_often_as_it_says(n_known, n_new):
    rng, inside, n_trials = np.random.default_rng(7), 0, 300
    for _ in range(n_trials):
        loss, patient = patients_with_losses(rng, n_known)
        new, _ = patients_with_losses(rng, n_new)
        (interval,) = prediction_intervals(loss, patient, n_new, n_draws=400)
        inside += interval.low <= new.mean() <= interval.high
    assert 0.88 <= inside / n_trials <= 0.99


def test_few_new_patients_widen_the_interval_and_it_never_goes_below_zero():
    loss, patient = patients_with_losses(np.random.default_rng(8), 100)
    few, many = prediction_intervals(loss, patient, 2)[0], prediction_intervals(loss, patient, 10_000)[0]
    (estimate,) = loss_intervals(loss, patient)
    assert few.high - few.low > 3 * (many.high - many.low)
    assert few.low >= 0
    assert many.high - many.low == pytest.approx(estimate.high - estimate.low, rel=0.15)


def test_nothing_to_draw_from_is_refused():
    with pytest.raises(DataError, match="at least one slice"):
        loss_intervals(np.empty(0), np.empty(0))
    with pytest.raises(DataError, match="3 losses and 2 patients"):
        loss_intervals(np.ones(3), np.arange(2))
    with pytest.raises(DataError, match="at least one patient"):
        prediction_intervals(np.ones(3), np.arange(3), 0)


def test_sums_are_by_patient_with_the_number_of_slices_last():
    sums = bootstrap.patient_sums(np.array([[1.0, 2.0], [3.0, 4.0], [5.0, 6.0]]), np.array(["b", "a", "b"]))
    assert sums.tolist() == [[3, 4, 1], [6, 8, 2]]
