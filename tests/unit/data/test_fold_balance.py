"""Dealing and evening out: deterministic, every group once, and never less even than before."""

import numpy as np
import pytest

from ichtune.data.fold_balance import deal, even_out, even_out_again


def spread(shares: np.ndarray, folds: np.ndarray, k: int) -> float:
    held = np.stack([shares[folds == fold].sum(axis=0) for fold in range(k)])
    return float((held**2).sum())


def some_shares(n: int, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    counts = rng.integers(1, 12, (n, 4)) * (rng.random((n, 4)) < (0.2, 0.3, 0.6, 1.0))
    counts[0] = 1
    shares = counts / counts.sum(axis=0)
    return shares[np.argsort(-shares.max(axis=1))]


def test_equal_groups_are_dealt_equally():
    assert np.bincount(deal(np.full((10, 2), 0.1), 5)).tolist() == [2, 2, 2, 2, 2]


def test_what_dealing_leaves_uneven_is_swapped():
    # dealt 6 | 5 5, then nothing is left to mend it: 6 + 5 against 5 + 4 becomes 10 against 10
    shares = np.array([[6.0], [5.0], [5.0], [4.0]]) / 20
    folds = even_out(shares, np.array([0, 0, 1, 1]), 2)
    assert spread(shares, folds, 2) == pytest.approx(0.5)


def test_a_group_may_move_without_an_exchange():
    shares = np.array([[0.5], [0.25], [0.25]])
    assert even_out(shares, np.zeros(3, np.int64), 2).tolist() in ([1, 0, 0], [0, 1, 1])


@pytest.mark.parametrize(("n", "k"), [(6, 3), (60, 5), (300, 10), (2000, 3)])
def test_evening_out_never_makes_it_worse_and_is_repeatable(n: int, k: int):
    shares = some_shares(n)
    dealt = deal(shares, k)
    evened = even_out(shares, dealt, k)
    assert spread(shares, evened, k) <= spread(shares, dealt, k)
    np.testing.assert_array_equal(evened, even_out(shares, dealt, k))
    assert evened.min() >= 0
    assert evened.max() < k
    assert len(evened) == n


def test_sets_of_a_few_dozen_groups_gain_most():
    shares = some_shares(60)
    dealt = deal(shares, 5)
    best = 1 / 5 * 4
    assert spread(shares, even_out(shares, dealt, 5), 5) - best < 0.6 * (spread(shares, dealt, 5) - best)


def test_a_label_that_nobody_has_is_no_trouble():
    shares = np.c_[some_shares(20), np.zeros(20)]
    assert sorted(np.unique(even_out(shares, deal(shares, 4), 4)).tolist()) == [0, 1, 2, 3]


@pytest.mark.parametrize(("n", "k"), [(3, 2), (40, 5), (120, 3)])
def test_mixing_anew_is_repeatable_and_never_worse(n: int, k: int):
    shares = some_shares(n, seed=4)
    evened = even_out(shares, deal(shares, k), k)
    mixed = even_out_again(shares, evened, k)
    assert spread(shares, mixed, k) <= spread(shares, evened, k)
    np.testing.assert_array_equal(mixed, even_out_again(shares, evened, k))


def test_mixing_anew_finds_what_no_single_exchange_does():
    gained = 0
    for seed in range(5):
        shares = some_shares(40, seed)
        evened = even_out(shares, deal(shares, 5), 5)
        gained += spread(shares, even_out_again(shares, evened, 5), 5) < spread(shares, evened, 5) - 1e-6
    assert gained >= 4


def test_what_is_even_already_is_left_as_it_is():
    shares = np.full((20, 2), 0.05)
    folds = deal(shares, 5)
    np.testing.assert_array_equal(even_out_again(shares, folds, 5), folds)
