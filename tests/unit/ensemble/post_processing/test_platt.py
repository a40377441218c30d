import numpy as np

from ichtune.ensemble.blenders.logits import from_logits, to_logits
from ichtune.ensemble.post_processing.platt import Platt
from ichtune.labels import N_LABELS


def test_it_finds_what_was_stretched_and_moved(calibrated):
    z, y, _ = calibrated(1000)
    step = Platt().fit(from_logits((z - 0.8) / 0.6), y)
    np.testing.assert_allclose(step.numbers_[0], 0.6, atol=0.06)
    np.testing.assert_allclose(step.numbers_[1], 0.8, atol=0.15)


def test_a_label_that_says_the_contrary_becomes_its_rate(calibrated):
    z, y, _ = calibrated(100)
    step = Platt().fit(from_logits(-z), y)
    np.testing.assert_array_equal(step.numbers_[0], 0.0)
    np.testing.assert_allclose(step.numbers_[1], to_logits(y.mean(axis=0)))
    np.testing.assert_allclose(step.predict(np.full((1, N_LABELS), 0.9))[0], y.mean(axis=0))
