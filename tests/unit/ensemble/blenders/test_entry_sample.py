import numpy as np
import pytest

from ichtune.ensemble.blenders import entry_sample
from ichtune.ensemble.blenders.entry_sample import THIN, sample_entries
from ichtune.labels import METRIC_WEIGHTS, N_LABELS

SHARED = np.array([METRIC_WEIGHTS]) / sum(METRIC_WEIGHTS)


@pytest.fixture(autouse=True)
def _small(monkeypatch):
    monkeypatch.setattr(entry_sample, "SHARE", 0.0)
    monkeypatch.setattr(entry_sample, "LEAST", 1000)


def sampled(p, y, shares=SHARED, weight=None):
    return sample_entries(p, y, np.full(len(y), 1 / len(y)) if weight is None else weight, shares)


def wrong(p, y):
    return np.abs(p.mean(axis=0) - y)


def test_it_stands_for_all_entries_and_so_does_its_thin_part(generated):
    p, y, _ = generated(200)
    (sample,) = sampled(p, y)
    told = (wrong(p, y) * SHARED[0] / len(y)).sum()
    wrong_S = np.abs(sample.p_GS.mean(axis=0) - sample.y_S)
    assert 500 < len(sample.y_S) <= 1100
    assert sample.weight_S @ wrong_S == pytest.approx(told, rel=0.1)
    thin = sample.thin
    assert 0.5 * THIN < len(thin) / len(sample.y_S) < 2.5 * THIN
    assert sample.thin_weight_S[thin] @ wrong_S[thin] == pytest.approx(told, rel=0.25)


def test_what_tells_most_is_surely_taken(generated):
    p, y, _ = generated(200)
    p[:, 7, 3], y[7, 3] = 1e-6, 1.0
    weight = np.full(len(y), 1.0)
    weight[7] = 30.0
    (sample,) = sampled(p, y, weight=weight / weight.sum())
    (at,) = np.flatnonzero((sample.p_GS == 1e-6).all(axis=0))
    assert sample.y_S[at] == 1.0
    assert sample.weight_S[at] == pytest.approx(30 / weight.sum() / 7, rel=1e-12), "as much as it has among all"


def test_the_same_entries_in_whatever_order_slices_and_members_come(generated):
    p, y, _ = generated(200)
    rng = np.random.default_rng(3)
    rows, members = rng.permutation(len(y)), rng.permutation(len(p))
    (sample,), (turned,) = sampled(p, y), sampled(p[members][:, rows], y[rows])
    columns, others = np.sort(sample.p_GS, axis=0), np.sort(turned.p_GS, axis=0)
    assert columns.shape == others.shape
    np.testing.assert_array_equal(columns[:, np.lexsort(columns)], others[:, np.lexsort(others)])
    np.testing.assert_allclose(np.sort(sample.weight_S), np.sort(turned.weight_S), rtol=1e-9)


def test_a_problem_of_its_own_for_each_label_takes_entries_of_that_label(generated):
    p, y, _ = generated(200)
    samples = sampled(p, y, np.eye(N_LABELS))
    assert len(samples) == N_LABELS
    for label, sample in enumerate(samples):
        assert len(sample.y_S) > 50
        assert np.isin(sample.p_GS[0], p[0, :, label]).all()


def test_slices_without_weight_are_not_taken(generated):
    p, y, _ = generated(200)
    p[:, 1000:] = 0.123
    weight = np.where(np.arange(len(y)) < 1000, 1 / 1000, 0.0)
    (sample,) = sampled(p, y, weight=weight)
    assert (sample.p_GS != 0.123).all()


def test_members_that_are_right_throughout_leave_one_entry(generated):
    _, y, _ = generated(20)
    (sample,) = sampled(np.stack([y, y]), y)
    assert sample.p_GS.shape == (2, 1)
    assert np.isfinite(sample.weight_S).all()


def test_any_float_type_and_memory_order_will_do(generated):
    p, y, _ = generated(200)
    p = p.astype(np.float32)
    (sample,), (other,) = sampled(p, y), sampled(np.asfortranarray(p), y)
    assert sample.p_GS.dtype == np.float64
    np.testing.assert_array_equal(sample.p_GS, other.p_GS)
