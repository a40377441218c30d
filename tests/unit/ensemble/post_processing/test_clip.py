import numpy as np

from ichtune.ensemble.blenders.logits import from_logits
from ichtune.ensemble.post_processing.clip import BOUNDS, Clip
from ichtune.labels import N_LABELS


def test_labels_that_are_too_sure_are_bounded_and_others_are_not(calibrated):
    z, y, _ = calibrated(200)
    p = from_logits(z)
    p[:, 1] = np.where(p[:, 1] > 0.1, p[:, 1], 0.0)
    bounds = Clip().fit(p, y).numbers_[0]
    assert bounds[1] == BOUNDS[-1]
    assert bounds[0] < 1e-2


def test_both_ends_are_bounded():
    step = Clip().restore({"bound": [0.01] * N_LABELS})
    ends = np.array([[0.0] * N_LABELS, [1.0] * N_LABELS])
    np.testing.assert_array_equal(step.predict(ends), [[0.01] * N_LABELS, [0.99] * N_LABELS])
