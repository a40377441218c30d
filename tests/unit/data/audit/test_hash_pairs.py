"""Close hashes: all pairs that comparing each with each would find, and what is left out is said."""

import numpy as np
import pytest

from ichtune.data.audit import hash_pairs
from ichtune.data.audit.hash_pairs import MAX_BITS_APART, close_pairs


def some_hashes(n: int, n_families: int, seed: int = 0) -> np.ndarray:
    """Families of hashes that lie a few bits apart."""
    rng = np.random.default_rng(seed)
    founders = rng.integers(0, 2**64, n_families, dtype=np.uint64)
    flips = np.bitwise_or.reduce(np.uint64(1) << rng.integers(0, 64, (4, n), dtype=np.uint64), axis=0)
    kept = rng.random(n) < 0.3
    return founders[rng.integers(0, n_families, n)] ^ np.where(kept, np.uint64(0), flips)


def by_brute_force(hashes: np.ndarray, owner: np.ndarray) -> set[tuple[int, int, int]]:
    apart = np.bitwise_count(hashes[:, None] ^ hashes[None, :])
    first, second = np.nonzero(np.triu(apart <= MAX_BITS_APART, 1) & (owner[:, None] != owner[None, :]))
    return {(int(a), int(b), int(apart[a, b])) for a, b in zip(first, second, strict=True)}


@pytest.mark.parametrize(("n", "n_families"), [(400, 60), (300, 300), (2, 1)])
def test_every_close_pair_of_different_owners_is_found(n: int, n_families: int):
    hashes, owner = some_hashes(n, n_families), np.arange(n) // 3 % (n // 2)
    found = close_pairs(hashes, owner)
    pairs = set(zip(found.first.tolist(), found.second.tolist(), found.n_bits_apart.tolist(), strict=True))
    assert pairs == by_brute_force(hashes, owner)
    assert len(pairs) == len(found.first)
    assert (found.n_dropped, found.n_crowded) == (0, 0)
    assert (np.diff(found.n_bits_apart) >= 0).all()


def test_a_pair_with_one_bit_too_many_is_none():
    hashes = np.array([0, 0b111, 0b1111], dtype=np.uint64)
    found = close_pairs(hashes, np.arange(3))
    assert list(zip(found.first.tolist(), found.second.tolist(), strict=True)) == [(1, 2), (0, 1)]


def test_no_hash_and_one_hash_make_no_pair():
    for n in (0, 1):
        assert len(close_pairs(np.zeros(n, np.uint64), np.zeros(n, np.int64)).first) == 0


def test_a_crowd_is_told_and_not_compared_in_full(monkeypatch):
    monkeypatch.setattr(hash_pairs, "_MAX_RUN", 10)
    found = close_pairs(np.zeros(30, np.uint64), np.arange(30))
    assert len(found.first) == sum(range(20, 30))
    assert found.n_crowded == 20


def test_beyond_the_limit_the_closest_are_kept(monkeypatch):
    monkeypatch.setattr(hash_pairs, "MAX_PAIRS", 3)
    hashes = np.array([0, 0, 0, 1, 3, 7], dtype=np.uint64)
    found = close_pairs(hashes, np.arange(6))
    assert found.n_bits_apart.tolist() == [0, 0, 0]
    assert found.n_dropped > 0
