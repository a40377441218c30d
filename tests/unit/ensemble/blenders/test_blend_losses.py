import numpy as np
import pytest

from ichtune.ensemble.blenders import blend_losses
from ichtune.ensemble.blenders.blend_losses import LogitLoss, MixtureLoss, SharedLoss
from ichtune.ensemble.blenders.logits import to_logits

RNG = np.random.default_rng(1)
P = RNG.uniform(0.02, 0.98, (4, 60))
Y = (RNG.random(60) < 0.3).astype(float)
WEIGHT = RNG.dirichlet(np.ones(60))
W = np.array([0.1, 0.2, 0.3, 0.4])
LOSSES = [MixtureLoss(P, Y, WEIGHT), LogitLoss(to_logits(P), Y, WEIGHT)]
#: Directions along which weights that sum to one may move.
DIRECTIONS = [d - d.mean() for d in RNG.standard_normal((6, 4))]


@pytest.mark.parametrize("loss", [*LOSSES, SharedLoss(LOSSES, np.array([0.3, 0.7]))])
def test_gradient_and_hessian_agree_with_differences(loss):
    gradient, hessian = loss.derivatives(W)
    for direction in DIRECTIONS:
        along = [loss.value(W + t * direction) for t in (-1e-4, 0.0, 1e-4)]
        assert gradient @ direction == pytest.approx((along[2] - along[0]) / 2e-4, rel=1e-5, abs=1e-8)
        curvature = (along[2] - 2 * along[1] + along[0]) / 1e-8
        assert direction @ hessian @ direction == pytest.approx(curvature, rel=1e-4, abs=1e-6)


@pytest.mark.parametrize("loss", LOSSES)
def test_derivatives_vanish_along_the_blend_itself(loss):
    gradient, hessian = loss.derivatives(W)
    assert gradient @ W == pytest.approx(0, abs=1e-12)
    np.testing.assert_allclose(hessian @ W, 0, atol=1e-12)


def test_value_is_the_log_loss_of_the_mixture():
    mixed = W @ P
    expected = -(WEIGHT @ (Y * np.log(mixed) + (1 - Y) * np.log(1 - mixed)))
    assert LOSSES[0].value(W) == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("loss", LOSSES)
def test_blocks_do_not_change_the_result(loss, monkeypatch):
    value, (gradient, hessian) = loss.value(W), loss.derivatives(W)
    monkeypatch.setattr(blend_losses, "BLOCK", 7)
    assert loss.value(W) == pytest.approx(value, rel=1e-12)
    np.testing.assert_allclose(loss.derivatives(W)[0], gradient, rtol=1e-10, atol=1e-15)
    np.testing.assert_allclose(loss.derivatives(W)[1], hessian, rtol=1e-10)


@pytest.mark.parametrize("loss", LOSSES)
def test_the_gradient_alone_is_that_of_the_derivatives(loss):
    np.testing.assert_allclose(loss.gradient(W), loss.derivatives(W)[0], rtol=1e-12, atol=1e-15)


def test_log_odds_beyond_the_range_of_the_exponential_have_a_finite_loss():
    losses = LogitLoss.losses(np.array([-800.0, 0.0, 800.0]), np.array([1.0, 0.5, 0.0]))
    np.testing.assert_allclose(losses, [800.0, np.log(2), 800.0])
