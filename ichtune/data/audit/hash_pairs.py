"""All pairs of 64-bit hashes that differ in few bits, without comparing each with each."""

from itertools import combinations
from typing import NamedTuple

import numpy as np

#: Bits in which two hashes may differ.
MAX_BITS_APART = 3
#: Six blocks, three of which must be equal: with three differing bits at least three blocks are untouched.
_N_BLOCKS = 6
#: Among hashes that agree in the same three blocks each is compared with this many that follow it.
_MAX_RUN = 100
#: More pairs than this are not kept; the closest are.
MAX_PAIRS = 1_000_000
_N_BITS = 64


class HashPairs(NamedTuple):
    """Pairs of close hashes, the closest first.

    Attributes:
        first: int64 (n,), place of one hash of each pair.
        second: int64 (n,), place of the other one, larger than ``first``.
        n_bits_apart: int64 (n,), 0 to ``MAX_BITS_APART``.
        n_dropped: pairs beyond ``MAX_PAIRS`` that were not kept.
        n_crowded: hashes that resemble so many others that not all of these were compared.
    """

    first: np.ndarray
    second: np.ndarray
    n_bits_apart: np.ndarray
    n_dropped: int
    n_crowded: int


def close_pairs(hashes: np.ndarray, owner: np.ndarray) -> HashPairs:
    """Find pairs of hashes of different owners that differ in at most ``MAX_BITS_APART`` bits.

    Args:
        hashes: uint64 (n,).
        owner: int64 (n,); pairs of one owner are left out.

    Source: multi-index hashing (Norouzi, Punjani, Fleet 2012).
    """
    n = len(hashes)
    if n < 2:
        nothing = np.empty(0, dtype=np.int64)
        return HashPairs(nothing, nothing, nothing, 0, 0)
    by_hash = np.argsort(hashes, kind="stable")  # then near ones stand side by side within a run
    hashes, owner = hashes[by_hash], owner[by_hash]
    found = np.empty(0, dtype=np.int64)
    is_crowded = np.zeros(n, dtype=bool)
    n_dropped = 0
    for mask in _masks(hashes):
        pairs = _pairs_of_runs(hashes, owner, mask, is_crowded)
        found = np.union1d(found, pairs)
        if len(found) > 2 * MAX_PAIRS:
            found, dropped = _closest(found, hashes)
            n_dropped += dropped
    found, dropped = _closest(found, hashes)
    one, other = by_hash[found // n], by_hash[found % n]
    apart = np.bitwise_count(hashes[found // n] ^ hashes[found % n]).astype(np.int64)
    first, second = np.minimum(one, other), np.maximum(one, other)
    order = np.lexsort((second, first, apart))
    return HashPairs(first[order], second[order], apart[order], n_dropped + dropped, int(is_crowded.sum()))


def _masks(hashes: np.ndarray) -> list[np.uint64]:
    """Bits that must agree: every three of six blocks, bits being dealt so that each block tells as much as another."""
    share = np.array([float(((hashes >> np.uint64(bit)) & np.uint64(1)).mean()) for bit in range(_N_BITS)])
    blocks = [0] * _N_BLOCKS
    for place, bit in enumerate(np.argsort(np.abs(share - 0.5), kind="stable").tolist()):
        blocks[place % _N_BLOCKS] |= 1 << bit
    kept = _N_BLOCKS - MAX_BITS_APART
    return [np.uint64(sum(chosen)) for chosen in combinations(blocks, kept)]


def _pairs_of_runs(hashes: np.ndarray, owner: np.ndarray, mask: np.uint64, is_crowded: np.ndarray) -> np.ndarray:
    """Close pairs that agree under the mask, as ``place * n + place``; marks hashes in runs that are too long."""
    n = len(hashes)
    masked = hashes & mask
    order = np.argsort(masked, kind="stable")
    masked = masked[order]
    active = np.arange(n)
    pairs = []
    for step in range(1, _MAX_RUN + 1):
        active = active[: np.searchsorted(active, n - step)]
        active = active[masked[active + step] == masked[active]]
        if not len(active):
            break
        one, other = order[active], order[active + step]
        close = np.bitwise_count(hashes[one] ^ hashes[other]) <= MAX_BITS_APART
        one, other = one[close], other[close]
        is_pair = owner[one] != owner[other]
        one, other = one[is_pair], other[is_pair]
        pairs.append(np.minimum(one, other) * n + np.maximum(one, other))
    else:
        is_crowded[order[active]] = True
    return np.concatenate(pairs) if pairs else np.empty(0, dtype=np.int64)


def _closest(found: np.ndarray, hashes: np.ndarray) -> tuple[np.ndarray, int]:
    """At most ``MAX_PAIRS`` pairs, the closest ones, and how many were dropped."""
    n_dropped = len(found) - MAX_PAIRS
    if n_dropped <= 0:
        return found, 0
    apart = np.bitwise_count(hashes[found // len(hashes)] ^ hashes[found % len(hashes)])
    return np.sort(found[np.argsort(apart, kind="stable")[:MAX_PAIRS]]), n_dropped
