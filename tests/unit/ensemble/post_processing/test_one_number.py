import numpy as np
import pytest
from scipy.optimize import minimize_scalar

from ichtune.ensemble.post_processing.one_number import best_number


def loss(t, offset, slope, y, weight):
    z = offset + t * slope
    return weight @ (np.logaddexp(0.0, z) - y * z)


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("interval", [(0.1, 10.0), (0.0, 1.0), (-3.0, -2.0)])
def test_it_is_the_minimum_that_another_method_finds(seed, interval):
    rng = np.random.default_rng(seed)
    offset, slope = rng.standard_normal(200), 3 * rng.standard_normal(200)
    y = (rng.random(200) < 1 / (1 + np.exp(-offset - rng.uniform(-1, 3) * slope))).astype(float)
    rows = (offset, slope, y, rng.dirichlet(np.ones(200)))
    found = best_number(*rows, interval, sum(interval) / 2)
    other = minimize_scalar(loss, args=rows, bounds=interval, method="bounded", options={"xatol": 1e-9}).x
    assert interval[0] <= found <= interval[1]
    assert loss(found, *rows) <= loss(other, *rows) + 1e-12


def test_what_decides_nothing_stays_where_it_was():
    rows = np.zeros(5), np.zeros(5), np.ones(5), np.full(5, 0.2)
    assert best_number(*rows, (0.1, 10.0), 1.0) == 1.0


def test_what_has_no_end_stops_at_the_end():
    slope = np.array([-13.0, 13.0])
    assert best_number(np.zeros(2), slope, np.array([0.0, 1.0]), np.full(2, 0.5), (0.1, 10.0), 1.0) > 1.5
    assert best_number(np.zeros(2), slope, np.array([1.0, 0.0]), np.full(2, 0.5), (0.1, 10.0), 1.0) == 0.1
