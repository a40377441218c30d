import numpy as np

from ichtune.ensemble.blenders.logits import clip_probabilities, from_logits, to_logits
from ichtune.metrics import CLIP


def test_logits_turn_back_into_the_same_probabilities():
    p = np.array([[1e-5, 0.3, 0.5], [0.9, 0.999, 1 - 1e-5]])
    np.testing.assert_allclose(from_logits(to_logits(p)), p, rtol=1e-9)


def test_hard_zero_and_one_are_finite_and_opposite():
    z = to_logits(np.array([0.0, 1.0]))
    assert np.isfinite(z).all()
    np.testing.assert_allclose(z, [-np.log(1 / CLIP - 1), np.log(1 / CLIP - 1)], rtol=1e-9)


def test_huge_logits_do_not_overflow():
    with np.errstate(all="raise"):
        np.testing.assert_array_equal(from_logits(np.array([-1e6, 0.0, 1e6])), [0.0, 0.5, 1.0])


def test_float32_input_is_clipped_in_float64():
    clipped = clip_probabilities(np.array([1.0], dtype=np.float32))
    assert clipped.dtype == np.float64
    assert clipped[0] == 1.0 - CLIP
