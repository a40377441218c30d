import numpy as np
import pytest

from ichtune.ensemble.blenders.auto import standard_error
from ichtune.ensemble.scores.optimism import expected_optimism
from ichtune.errors import DataError

N_SEEDS = 60


def candidates(spread, seed, n_candidates=12, n_patients=80, n_slices=3):
    """Losses (N, C) with a part that all share, patients, and the true mean loss of each candidate.

    Each candidate's mean is off by about 0.011 with so many patients; true means differ by ``spread``.
    """
    rng = np.random.default_rng(seed)
    true_C = 0.2 + spread * rng.standard_normal(n_candidates)
    shared_P = rng.lognormal(-2, 0.6, n_patients)
    own_PC = true_C + (shared_P - np.exp(-2 + 0.18))[:, None] + 0.1 * rng.standard_normal((n_patients, n_candidates))
    loss_NC = np.repeat(own_PC, n_slices, axis=0) + 0.01 * rng.standard_normal((n_patients * n_slices, n_candidates))
    return loss_NC, np.repeat(np.arange(n_patients), n_slices), true_C


def errors(spread, tolerance=0.0):
    """Over seeds: how far the naive and each corrected loss lie from the true loss of what was chosen."""
    found = []
    for seed in range(N_SEEDS):
        loss, patient, true_C = candidates(spread, seed)
        optimism = expected_optimism(loss, patient, 200, tolerance)
        truth, naive = true_C[optimism.chosen], optimism.loss
        others = (naive + optimism.efron, naive + optimism.tibshirani)
        found.append([naive - truth, optimism.corrected.estimate - truth, *(other - truth for other in others)])
    return np.mean(found, axis=0), np.std(found, axis=0) / np.sqrt(N_SEEDS)


def test_of_candidates_alike_the_lowest_loss_is_too_low_and_the_corrected_one_is_not():
    (naive, corrected, efron, _), (naive_error, corrected_error, *_) = errors(0.0)
    assert naive < -5 * naive_error
    assert abs(corrected) < 2 * corrected_error
    assert naive < efron < corrected, "drawing from what was drawn already doubles the noise and halves its share"


def test_of_candidates_that_differ_it_is_too_careful_rather_than_too_sure():
    (naive, corrected, *_), (naive_error, corrected_error, *_) = errors(0.011)
    assert naive < -4 * naive_error
    assert corrected > -2 * corrected_error
    assert abs(corrected) < abs(naive) / 2


def test_a_rule_that_prefers_the_simpler_takes_less_luck_with_it_and_is_corrected_for_that():
    (best, *_), _ = errors(0.0)
    (naive, corrected, *_), (naive_error, corrected_error, *_) = errors(0.0, tolerance=1.0)
    assert best < naive < -3 * naive_error
    assert abs(corrected) < 3 * corrected_error


def test_the_rule_is_that_of_auto():
    for seed in range(10):
        loss, patient, _ = candidates(0.011, seed)
        weight = np.full(len(loss), 1 / len(loss))
        best = loss.mean(axis=0).argmin()
        behind = loss.mean(axis=0) - loss.mean(axis=0).min()
        allowed = [standard_error(one - loss[:, best], weight, patient) for one in loss.T]
        assert expected_optimism(loss, patient, 50, 1.0).chosen == np.flatnonzero(behind <= allowed)[0]


def test_a_clear_winner_owes_nothing_to_luck():
    loss, patient, _ = candidates(0.0, seed=1)
    loss[:, 3] -= 0.1
    optimism = expected_optimism(loss, patient, n_draws=300)
    assert optimism.chosen == 3
    assert optimism.same_share == 1
    assert optimism.estimate == 0
    assert optimism.efron == pytest.approx(0, abs=3e-3)
    assert optimism.corrected.estimate == optimism.loss
    assert optimism.corrected.low < optimism.loss < optimism.corrected.high


def test_more_candidates_make_for_more_optimism():
    loss, patient, _ = candidates(0.0, seed=2, n_candidates=60)
    few, many = expected_optimism(loss[:, :3], patient, 300), expected_optimism(loss, patient, 300)
    assert 0 < few.estimate < many.estimate
    assert 0 < few.tibshirani < many.tibshirani
    assert many.n_candidates == 60
    only = expected_optimism(loss[:, :1], patient, 300)
    assert only.estimate == only.tibshirani == 0


def test_order_of_rows_and_copies_of_candidates_change_nothing():
    loss, patient, _ = candidates(0.0, seed=3)
    order = np.random.default_rng(0).permutation(len(loss))
    one, two = expected_optimism(loss, patient, 200), expected_optimism(loss[order], patient[order], 200)
    assert one.estimate == pytest.approx(two.estimate, rel=1e-9)
    copied = expected_optimism(np.concatenate([loss, loss], axis=1), patient, 200)
    assert copied.estimate == pytest.approx(one.estimate, rel=1e-9)


def test_two_patients_are_enough_and_one_is_not():
    loss, patient, _ = candidates(0.0, seed=4, n_patients=2)
    assert np.isfinite(expected_optimism(loss, patient, 100).estimate)
    with pytest.raises(DataError, match="at least 2 patients, got 1"):
        expected_optimism(loss, np.zeros(len(loss)), 100)
    with pytest.raises(DataError, match="C at least 1"):
        expected_optimism(loss[:, :0], patient, 100)
