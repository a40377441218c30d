import numpy as np
import pytest

from ichtune.ensemble.blenders.logits import from_logits
from ichtune.ensemble.post_processing.prior_shift import PriorShift, estimated_rates
from ichtune.metrics import weighted_log_loss


def shifted(z, y, keep, seed=0):
    """Keep a share of the slices without any label: the others become more frequent."""
    rng = np.random.default_rng(seed)
    rows = (y.max(axis=1) > 0) | (rng.random(len(y)) < keep)
    return z[rows], y[rows]


def by_em(p, rate):
    """The source's own steps."""
    now = rate.copy()
    for _ in range(3000):
        odds = p * now / rate
        now = (odds / (odds + (1 - p) * (1 - now) / (1 - rate))).mean(axis=0)
    return now


def test_it_is_where_the_steps_of_em_end(calibrated):
    z, y, _ = calibrated(60)
    p, rate = from_logits(z[:300] + 0.5), y.mean(axis=0)
    np.testing.assert_allclose(estimated_rates(p, rate), by_em(p, rate), atol=1e-6)


def test_the_same_distribution_has_the_same_rates(calibrated):
    z, y, _ = calibrated(10_000, 1)
    np.testing.assert_allclose(estimated_rates(from_logits(z), y.mean(axis=0)), y.mean(axis=0), atol=0.02)


def test_rates_that_changed_are_found_and_adapted_to(calibrated):
    """One label, so that dropping negatives is a change of its rate and of nothing else."""
    z, y, _ = calibrated(6000, 1)
    z, y = np.tile(z[:, :1], 6), np.tile(y[:, :1], 6)
    step = PriorShift().fit(from_logits(z), y)
    z_test, y_test = shifted(z, y, 0.3)
    p_test = from_logits(z_test)
    assert y_test.mean() > 1.6 * y.mean()
    np.testing.assert_allclose(estimated_rates(p_test, step.rate_), y_test.mean(axis=0), atol=0.03)
    assert weighted_log_loss(y_test, step.predict(p_test)) < 0.97 * weighted_log_loss(y_test, p_test)


def test_predictions_that_know_nothing_say_nothing_of_the_rates():
    rate = np.array([0.5, 0.1, 0.1, 0.2, 0.3, 0.4])
    step = PriorShift().restore({"rate": rate.tolist()})
    told = step.predict(np.tile(rate, (50, 1)))
    assert np.isfinite(told).all()


@pytest.mark.filterwarnings("error")
def test_hard_predictions_and_no_slices_are_finite():
    step = PriorShift().restore({"rate": [0.0, 1.0, 0.5, 0.5, 0.5, 0.5]})
    hard = np.random.default_rng(0).integers(0, 2, (20, 6)).astype(float)
    assert np.isfinite(step.predict(hard)).all()
    assert step.predict(hard[:0]).shape == (0, 6)
