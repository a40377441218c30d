import numpy as np
import pytest

from ichtune.ensemble.blenders.equal_mean_logit import EqualMeanLogit
from ichtune.ensemble.blenders.stacking import LogisticStacking
from ichtune.errors import ConfigError, DataError
from ichtune.metrics import weighted_log_loss


def test_a_strong_penalty_gives_the_equal_mean_but_for_its_bias(generated):
    p, y, _ = generated()
    strong = LogisticStacking(l2=1e4).fit(p, y)
    np.testing.assert_allclose(strong.coefficients_, 1 / 3, atol=1e-3)
    mean = EqualMeanLogit().fit(p, y).predict(p)
    assert weighted_log_loss(y, strong.predict(p)) <= weighted_log_loss(y, mean) + 1e-4


def test_in_sample_it_is_better_than_the_mean_and_may_turn_a_member_round(generated):
    p, y, _ = generated(noises=(0.5, 0.5))
    turned = np.stack([p[0], 1 - p[1]])
    blender = LogisticStacking(l2=1e-4).fit(turned, y)
    assert (blender.coefficients_[1] < 0).all()
    np.testing.assert_allclose(blender.predict(turned), LogisticStacking(l2=1e-4).fit(p, y).predict(p), atol=0.05)


def test_a_duplicate_changes_nothing(generated):
    p, y, _ = generated()
    doubled = np.concatenate([p, p[:1]])
    one, two = LogisticStacking().fit(p, y), LogisticStacking().fit(doubled, y)
    np.testing.assert_allclose(two.predict(doubled), one.predict(p), atol=1e-9)
    np.testing.assert_allclose(two.coefficients_[0] + two.coefficients_[3], one.coefficients_[0], atol=1e-9)


def test_settings_and_what_was_learned_are_checked(generated):
    with pytest.raises(ConfigError, match="logistic_stacking: l2 must be a number between 1e-8 and 1e4, got True"):
        LogisticStacking(l2=True)
    p, _, _ = generated()
    with pytest.raises(DataError, match="no coefficients yet"):
        LogisticStacking().predict(p)
    with pytest.raises(DataError, match="must hold coefficients_, any x 6 numbers"):
        LogisticStacking().restore({"weights_": None, "coefficients_": [[1.0]], "bias_": [0.0] * 6})
