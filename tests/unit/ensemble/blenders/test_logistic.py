import numpy as np
import pytest
from scipy.optimize import minimize
from sklearn.linear_model import LogisticRegression

from ichtune.ensemble.blenders.logistic import penalised_logistic
from ichtune.ensemble.blenders.logits import from_logits


def problem(n=400, seed=0):
    rng = np.random.default_rng(seed)
    x = rng.standard_normal((3, n))
    y = (rng.random(n) < from_logits(np.array([1.0, -0.5, 0.2]) @ x - 1)).astype(float)
    weight = rng.uniform(0.5, 2, n)
    return x, y, weight / weight.sum()


def test_without_a_centre_it_is_scikit_learn_s():
    l2 = 0.01
    x, y, weight = problem()
    other = LogisticRegression(C=1 / (l2 * len(y)), tol=1e-10, max_iter=1000).fit(x.T, y, weight * len(y))
    coefficients, bias = penalised_logistic(x, y, weight, np.zeros(3), l2)
    np.testing.assert_allclose(coefficients, other.coef_[0], atol=1e-4)
    assert bias == pytest.approx(other.intercept_[0], abs=1e-4)


def test_the_centre_is_where_the_penalty_draws_to():
    x, y, weight = problem()
    centre = np.array([0.3, 0.3, 0.4])

    def value(point):
        z = point[:3] @ x + point[3]
        return weight @ (np.logaddexp(0, z) - y * z) + 0.5 * 0.1 * ((point[:3] - centre) ** 2).sum()

    found, bias = penalised_logistic(x, y, weight, centre, 0.1)
    other = minimize(value, np.zeros(4), method="BFGS", options={"gtol": 1e-9})
    np.testing.assert_allclose([*found, bias], other.x, atol=1e-4)
    strong, _ = penalised_logistic(x, y, weight, centre, 1e4)
    np.testing.assert_allclose(strong, centre, atol=1e-3)


@pytest.mark.parametrize("y", [0.0, 1.0])
def test_labels_that_are_all_alike_and_features_that_tell_all_stay_finite(y):
    x, drawn, weight = problem()
    found, bias = penalised_logistic(x, np.full(len(drawn), y), weight, np.zeros(3), 1e-3)
    assert np.isfinite([*found, bias]).all()
    assert np.sign(bias) == (1 if y else -1)
    sure = np.stack([20 * (2 * drawn - 1)] * 3)
    found, bias = penalised_logistic(sure, drawn, weight, np.zeros(3), 1e-8)
    assert np.isfinite([*found, bias]).all()
