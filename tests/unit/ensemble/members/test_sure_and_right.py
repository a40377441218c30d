import numpy as np
import pytest

from ichtune.ensemble.members.sure_and_right import medians_of_others, sure_and_right


@pytest.mark.parametrize("n_members", [2, 4, 5, 6, 9])
def test_the_others_without_one(n_members):
    rng = np.random.default_rng(n_members)
    z = rng.integers(-2, 3, (n_members, 40, 6)).astype(np.float32)  # with ties
    centre = np.median if n_members > 4 else np.mean
    for m, found in enumerate(medians_of_others(z)):
        np.testing.assert_allclose(found, centre(np.delete(z, m, 0), axis=0), atol=1e-6)


def slices(seed=0, n=3000):
    rng = np.random.default_rng(seed)
    others = -2.0 + 1.5 * rng.standard_normal((n, 6))
    y = (rng.random((n, 6)) < 1 / (1 + np.exp(-others))).astype(float)
    z = others + 0.7 * rng.standard_normal((n, 6))
    return z, others, y, np.arange(n) // 10


def test_claims_that_are_right_by_chance_weigh_nothing():
    z, others, y, patient = slices()
    assert sure_and_right(z, others, y, patient).log_odds < 2
    rng = np.random.default_rng(1)
    rows = rng.choice(len(z), 100, replace=False)
    z[rows] = np.where(rng.random((100, 6)) < 0.5, 7.0, -7.0)  # sure, and right at times
    assert sure_and_right(z, others, y, patient).log_odds < 2


def test_claims_that_are_always_right_weigh_much_and_are_named():
    z, others, y, patient = slices()
    rows = np.random.default_rng(1).choice(len(z), 30, replace=False)
    z[rows] = np.where(y[rows] > 0.5, 7.0, -7.0)
    found = sure_and_right(z, others, y, patient)
    assert found.log_odds > 7
    assert found.n_patients >= 20
    assert len(set(found.rows) - set(rows)) <= 2
    assert set(found.rows[:10]) <= set(rows)
    assert len(set(found.rows)) == len(found.rows)
    first = found.rows[0]
    claims = np.where(y[first] > 0.5, others[first], -others[first])
    assert claims.min() < -1, "the others were sure of the opposite there"


def test_the_order_of_rows_does_not_matter():
    z, others, y, patient = slices()
    rows = np.random.default_rng(1).choice(len(z), 30, replace=False)
    z[rows] = np.where(y[rows] > 0.5, 7.0, -7.0)
    order = np.random.default_rng(2).permutation(len(z))
    found, again = (sure_and_right(z[o], others[o], y[o], patient[o]) for o in (np.arange(len(z)), order))
    assert again.log_odds == pytest.approx(found.log_odds, abs=1e-9)


def test_few_slices_and_constants_say_nothing():
    z, others, y, patient = slices(n=12)
    assert np.isfinite(sure_and_right(z, others, y, patient).log_odds)
    flat = np.full((200, 6), -2.0)
    assert sure_and_right(flat, flat, np.zeros((200, 6)), np.arange(200)).log_odds <= 0
