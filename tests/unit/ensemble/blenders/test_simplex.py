import numpy as np
import pytest
from scipy.optimize import minimize

from ichtune.ensemble.blenders.blend_losses import MixtureLoss
from ichtune.ensemble.blenders.simplex import GAP, minimise_on_simplex, quadratic_on_simplex


def _slsqp(value, gradient, n):
    return minimize(
        value,
        np.full(n, 1 / n),
        jac=gradient,
        bounds=[(0, 1)] * n,
        constraints={"type": "eq", "fun": lambda w: w.sum() - 1, "jac": lambda w: np.ones(n)},
        method="SLSQP",
        options={"ftol": 1e-15, "maxiter": 500},
    )


@pytest.mark.parametrize("seed", range(5))
def test_quadratic_meets_its_optimality_conditions(seed):
    rng = np.random.default_rng(seed)
    root = rng.standard_normal((8, 6))
    h, c = root.T @ root, 3 * rng.standard_normal(6)
    u = quadratic_on_simplex(h, c, np.full(6, 1 / 6))
    gradient = h @ u + c
    assert u.sum() == pytest.approx(1, abs=1e-12)
    assert u.min() >= 0
    assert np.ptp(gradient[u > 1e-9]) < 1e-8, "the gradient is one constant on the free weights"
    assert gradient.min() > gradient[u > 1e-9].max() - 1e-8, "and nowhere lower on the others"


def test_quadratic_with_a_singular_hessian_still_ends_at_the_optimum():
    h, c = np.ones((4, 4)), np.array([0.5, 0.1, 0.1, 0.4])
    u = quadratic_on_simplex(h, c, np.full(4, 0.25))
    assert u @ c == pytest.approx(0.1, abs=1e-9)


@pytest.mark.parametrize("seed", range(4))
def test_log_loss_optimum_is_no_worse_than_slsqp(seed):
    rng = np.random.default_rng(seed)
    y = (rng.random(300) < 0.2).astype(float)
    p = np.clip(0.2 + 0.5 * (y - 0.2) * rng.uniform(0, 1, (7, 1)) + 0.2 * rng.standard_normal((7, 300)), 0.01, 0.99)
    loss = MixtureLoss(p, y, np.full(300, 1 / 300))
    w, gap = minimise_on_simplex(loss, 7)
    reference = _slsqp(loss.value, lambda w: loss.derivatives(w)[0], 7)
    assert gap <= GAP
    assert loss.value(w) <= reference.fun + 1e-9
    np.testing.assert_allclose(w, reference.x, atol=1e-4)


def test_one_weight_is_one():
    loss = MixtureLoss(np.array([[0.2, 0.7]]), np.array([0.0, 1.0]), np.array([0.5, 0.5]))
    w, gap = minimise_on_simplex(loss, 1)
    assert w.tolist() == [1.0]
    assert gap == 0.0


def test_a_start_near_the_optimum_and_a_gap_that_is_enough_save_steps():
    rng = np.random.default_rng(0)
    loss = MixtureLoss(rng.uniform(0.1, 0.9, (5, 400)), (rng.random(400) < 0.4).astype(float), np.full(400, 1 / 400))
    optimum, _ = minimise_on_simplex(loss, 5)
    again, gap = minimise_on_simplex(loss, 5, start=optimum)
    np.testing.assert_allclose(again, optimum, atol=1e-9)
    assert gap <= GAP
    rough, rough_gap = minimise_on_simplex(loss, 5, enough=1e-3)
    assert GAP < rough_gap <= 1e-3
    assert loss.value(rough) - loss.value(optimum) <= rough_gap
