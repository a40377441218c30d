import numpy as np
import pytest

from ichtune.ensemble.blenders.convex import Convex
from ichtune.ensemble.blenders.equal_mean_logit import EqualMeanLogit
from ichtune.ensemble.blenders.logit_scaling import LogitScaling
from ichtune.ensemble.blenders.logits import from_logits, to_logits
from ichtune.errors import ConfigError, DataError
from ichtune.labels import N_LABELS
from ichtune.metrics import weighted_log_loss


def test_a_stretch_and_a_shift_of_every_member_are_undone(generated):
    p, y, _ = generated(n_patients=400, noises=(0.3,))
    squeezed = from_logits(0.4 * to_logits(p) + 1.0)
    blender = LogitScaling().fit(squeezed, y)
    assert (blender.scale_ > 1.8).all()
    assert (blender.offset_ < -1.5).all()
    assert weighted_log_loss(y, blender.predict(squeezed)) < weighted_log_loss(y, squeezed[0]) - 0.1


def test_it_scales_the_learned_mean_or_the_equal_one(generated):
    p, y, _ = generated()
    for blender, mean in ((LogitScaling(), Convex()), (LogitScaling(shrinkage=1.0), EqualMeanLogit())):
        z = to_logits(mean.fit(p, y).predict(p))
        scaled = blender.fit(p, y)
        np.testing.assert_allclose(scaled.predict(p), from_logits(scaled.scale_ * z + scaled.offset_), atol=1e-9)
        assert weighted_log_loss(y, scaled.predict(p)) <= weighted_log_loss(y, mean.predict(p)) + 1e-9


def test_a_strong_penalty_leaves_only_the_offset(generated):
    p, y, _ = generated()
    np.testing.assert_allclose(LogitScaling(l2=1e4).fit(p, y).scale_, np.ones(N_LABELS), atol=1e-3)


def test_settings_and_what_was_learned_are_checked(generated):
    with pytest.raises(ConfigError, match="logit_scaling: l2 must be a number between 1e-8 and 1e4, got 0"):
        LogitScaling(l2=0)
    p, y, _ = generated()
    with pytest.raises(DataError, match="has no scales yet"):
        LogitScaling().predict(p)
    learned = LogitScaling().fit(p, y).learned()
    with pytest.raises(DataError, match="must hold scale_, 6 numbers"):
        LogitScaling().restore({**learned, "scale_": [1.0]})
