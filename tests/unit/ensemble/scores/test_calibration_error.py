import numpy as np
import pytest

from ichtune.ensemble.scores.calibration_error import calibration_error, equal_count_bins
from ichtune.ensemble.scores.patient_draws import patient_draws


def test_bins_hold_equally_many_and_equal_probabilities_lie_together():
    p = np.random.default_rng(0).random(1000) ** 4
    assert np.bincount(equal_count_bins(p, 20)).tolist() == [50] * 20
    hard = np.array([0.0] * 97 + [1.0] * 3)
    bins = equal_count_bins(hard, 20)
    assert len(set(bins[:97])) == len(set(bins[97:])) == 1
    assert len(set(equal_count_bins(np.full(50, 0.3)))) == 1


def simulate(n_patients=300, n_slices=10, shift=0.0, seed=0):
    """Labels that happen as often as predicted plus ``shift``; slices of a patient go together."""
    rng = np.random.default_rng(seed)
    patient = np.repeat(np.arange(n_patients), n_slices)
    p = 0.1 + 0.6 * rng.random(n_patients)[patient]
    y = (np.repeat(rng.random(n_patients), n_slices) < p + shift).astype(float)
    return y, p, patient


def error_of(y, p, patient, weight=None, n_bins=10):
    return calibration_error(y - p, equal_count_bins(p, n_bins), patient, patient_draws(patient.max() + 1, 500), weight)


def test_it_is_the_mean_distance_of_rate_and_probability_in_the_bins():
    y, p, patient = simulate(seed=1)
    bins = equal_count_bins(p, 10)
    by_hand = sum(abs(y[bins == b].mean() - p[bins == b].mean()) * (bins == b).mean() for b in range(10))
    assert error_of(y, p, patient).estimate == pytest.approx(by_hand, rel=1e-12)
    twice = np.where(patient < 150, 2.0, 1.0)
    weighted = sum(abs((twice * (y - p))[bins == b].sum()) for b in range(10)) / twice.sum()
    assert error_of(y, p, patient, twice).estimate == pytest.approx(weighted, rel=1e-12)


def test_a_calibrated_model_scores_what_chance_gives_and_a_shifted_one_its_shift():
    calibrated = [error_of(*simulate(seed=seed)) for seed in range(12)]
    mean = np.mean([error.estimate for error in calibrated])
    by_chance = np.mean([error.by_chance for error in calibrated])
    assert mean > 0.04, "one patient is one answer: absolute values of noise never cancel"
    assert by_chance == pytest.approx(mean, rel=0.12)
    shifted = [error_of(*simulate(shift=0.15, seed=seed)) for seed in range(12)]
    assert np.mean([error.estimate for error in shifted]) == pytest.approx(0.15, abs=0.02)


def coverage(truth, n_patients, shift):
    """How often the interval holds the truth; it must always hold its estimate."""
    intervals = [error_of(*simulate(n_patients, shift=shift, seed=seed), n_bins=5) for seed in range(60)]
    assert all(0 <= error.low <= error.estimate <= error.high for error in intervals)
    return np.mean([error.low <= truth <= error.high for error in intervals])


@pytest.mark.parametrize("n_patients", [60, 200])
def test_the_interval_of_a_calibrated_model_holds_0(n_patients):
    assert coverage(0.0, n_patients, 0.0) >= 0.9


def test_the_interval_of_a_miscalibrated_model_holds_the_truth_and_not_0():
    assert coverage(0.2, 300, 0.2) >= 0.9
    assert coverage(0.0, 300, 0.2) == 0.0


def test_a_rare_label_is_not_sure_of_an_error_because_nobody_drawn_has_it():
    def error(seed):
        rng = np.random.default_rng(seed)
        p = 0.002 + 0.003 * rng.random(400)
        return error_of((rng.random(400) < p).astype(float), p, np.repeat(np.arange(40), 10), n_bins=5)

    assert np.mean([error(seed).low == 0 for seed in range(60)]) >= 0.9


def test_a_rate_that_is_met_exactly_is_not_known_exactly():
    y, p = np.tile([0.0, 1.0], 30), np.full(60, 0.5)
    error = error_of(y, p, np.repeat(np.arange(20), 3))
    assert error.estimate == error.low == 0
    assert 0.02 < error.high < 0.3
