import numpy as np
import pytest
from sklearn.isotonic import IsotonicRegression

from ichtune.ensemble.blenders.logits import from_logits
from ichtune.ensemble.post_processing.isotonic import Isotonic
from ichtune.errors import DataError
from ichtune.labels import N_LABELS


def test_it_is_the_rising_curve_of_scikit_learn_with_one_slice_more_at_each_end(calibrated):
    z, y, _ = calibrated(30)
    p = from_logits(z).round(2)  # with ties
    predicted = Isotonic().fit(p, y).predict(p)
    for column in range(N_LABELS):
        x, target = np.r_[-1.0, p[:, column], 2.0], np.r_[1.0, y[:, column], 0.0]
        other = IsotonicRegression(y_min=0.0, y_max=1.0).fit(x, target)
        np.testing.assert_allclose(predicted[:, column], other.predict(p[:, column]), atol=1e-12)


def test_a_curve_of_any_shape_is_undone(calibrated):
    z, y, _ = calibrated(1000)
    p = from_logits(z)
    step = Isotonic().fit(p**3, y)
    assert np.abs(step.predict(p**3) - p).mean() < 0.02


def test_no_rate_is_0_or_1():
    p = np.tile(np.linspace(0.01, 0.99, 100)[:, None], N_LABELS)
    hard = Isotonic().fit(p, (p > 0.5).astype(float)).predict(np.array([[0.0] * N_LABELS, [1.0] * N_LABELS]))
    np.testing.assert_allclose(hard[0], 1 / 51)
    np.testing.assert_allclose(hard[1], 50 / 51)


def test_rows_count_by_their_weight(calibrated):
    z, y, _ = calibrated(20)
    p, weight = from_logits(z), np.ones(len(y))
    weight[::2] = 0.0
    one = Isotonic().fit(p, y, weight).predict(p)
    np.testing.assert_allclose(Isotonic().fit(p[1::2], y[1::2]).predict(p), one, atol=1e-12)


@pytest.mark.parametrize(
    ("curve", "message"),
    [
        ({"predicted": [0.1, 0.2], "rate": [0.5]}, "must rise within"),
        ({"predicted": [0.2, 0.1], "rate": [0.1, 0.2]}, "must rise within"),
        ({"predicted": [0.1, 0.2], "rate": [0.2, 0.1]}, "must rise within"),
        ({"predicted": [0.1], "rate": [1.5]}, "must rise within"),
        ({"predicted": [0.1]}, "must hold rate"),
        (3, "curves of 6 labels"),
    ],
)
def test_what_no_isotonic_learned_is_refused(curve, message):
    with pytest.raises(DataError, match=message):
        Isotonic().restore({"curves": [curve] * N_LABELS})
    with pytest.raises(DataError, match="curves of 6 labels"):
        Isotonic().restore({})
