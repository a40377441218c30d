"""Dealing weighted groups out to folds so that every fold has nearly the same share of everything."""

import numpy as np

#: Swaps are looked for among this many groups of a fold: those with the largest shares, and some of the rest.
_N_LARGEST, _N_REST = 400, 200
#: A fold's share may be off by this much, relatively, before swaps are looked for at all.
_GOOD_ENOUGH = 0.005
_MAX_SWAPS = 2000
#: Sets of at most this many groups are mixed anew this often, a part of the groups at a time, ...
_MAX_MIXED, _N_MIXINGS, _MIXED_PART = 1000, 60, 10
#: ... until no share that can be even is off by more than this, relatively.
_FINE = 0.02
_ROUNDING = 1e-12


def deal(shares: np.ndarray, k: int) -> np.ndarray:
    """Give each group, in order, to the fold where the sum of squared shares grows least.

    Args:
        shares: float64 (groups, features), each group's share of every total, in the order of dealing.
        k: number of folds.

    Returns:
        int64 (groups,), 0 to k - 1.
    """
    held = np.zeros((k, shares.shape[1]))
    folds = np.empty(len(shares), dtype=np.int64)
    for row, share in enumerate(shares):
        # (held + share)**2 - held**2 differs between folds only by 2 * held * share
        fold = int(np.argmin(held @ share))
        folds[row] = fold
        held[fold] += share
    return folds


def even_out(shares: np.ndarray, folds: np.ndarray, k: int, may_move: np.ndarray | None = None) -> np.ndarray:
    """Move and swap groups between folds as long as that lowers the sum of squared shares.

    Dealing leaves small sets uneven: the last groups cannot mend what the first, rare ones did. Each step takes the
    best exchange of one group, or none, of one fold against one, or none, of another. The same input gives the same
    folds.

    Args:
        shares: float64 (groups, features) in the order of dealing, the largest of each kind first.
        folds: int64 (groups,), where the groups were dealt.
        k: number of folds.
        may_move: bool (groups,); None lets every group move.

    Returns:
        int64 (groups,), no less even than before.
    """
    folds = folds.copy()
    may_move = np.ones(len(folds), dtype=bool) if may_move is None else may_move
    held = _held(shares, folds, k)
    total = held.sum(axis=0)
    is_open = np.triu(np.ones((k, k), dtype=bool), 1)
    for _ in range(_MAX_SWAPS):
        if not is_open.any() or np.abs(held * k - total).max() <= _GOOD_ENOUGH * total.max():
            break
        apart = ((held[:, None] - held[None, :]) ** 2).sum(axis=2)
        a, b = (int(fold) for fold in np.unravel_index(np.where(is_open, apart, -1.0).argmax(), apart.shape))
        ours, theirs = (np.flatnonzero((folds == fold) & may_move) for fold in (a, b))
        swap = _best_swap(shares, ours, theirs, held[a] - held[b])
        if swap is None:
            is_open[a, b] = False
            continue
        for row, source, target in zip(swap, (a, b), (b, a), strict=True):
            if row is not None:
                folds[row] = target
                held[source] -= shares[row]
                held[target] += shares[row]
        for fold in (a, b):
            is_open[:fold, fold] = is_open[fold, fold + 1 :] = True
    return folds


def even_out_again(shares: np.ndarray, folds: np.ndarray, k: int) -> np.ndarray:
    """Take an evened-out dealing, mix a part of the groups anew, even out again, and keep the best of it all.

    Exchanges of two end where no single one helps, though several at once would. A feature of which one group has more
    than a fold's share stays uneven whatever is done: it is left as it is, and the others are evened out by groups
    that have nothing of it. Only small sets are mixed anew: large ones are even by then.

    Args:
        shares: float64 (groups, features), as for ``even_out``.
        folds: int64 (groups,), what ``even_out`` returned.
        k: number of folds.

    Returns:
        int64 (groups,), no less even than before.
    """
    total = shares.sum(axis=0)
    can_be_even = (total > 0) & (shares.max(axis=0, initial=0.0) * k <= total)
    movable = np.flatnonzero((shares[:, ~can_be_even] == 0).all(axis=1))
    if len(shares) > _MAX_MIXED or not can_be_even.any() or len(movable) < 2:
        return folds
    shares = shares[:, can_be_even]
    may_move = np.isin(np.arange(len(folds)), movable)
    rng = np.random.default_rng(k)
    folds = even_out(shares, folds, k, may_move)
    least = _unevenness(shares, folds, k)
    for _ in range(_N_MIXINGS):
        if np.abs(_held(shares, folds, k) * k / total[can_be_even] - 1).max() <= _FINE:
            break
        mixed = folds.copy()
        chosen = rng.permutation(movable)[: max(len(movable) // _MIXED_PART, 2)]
        mixed[chosen] = folds[rng.permutation(chosen)]
        mixed = even_out(shares, mixed, k, may_move)
        unevenness = _unevenness(shares, mixed, k)
        if unevenness < least - _ROUNDING:
            folds, least = mixed, unevenness
    return folds


def _held(shares: np.ndarray, folds: np.ndarray, k: int) -> np.ndarray:
    return np.stack([shares[folds == fold].sum(axis=0) for fold in range(k)])


def _unevenness(shares: np.ndarray, folds: np.ndarray, k: int) -> float:
    return float((_held(shares, folds, k) ** 2).sum())


def _best_swap(
    shares: np.ndarray, ours: np.ndarray, theirs: np.ndarray, gap: np.ndarray
) -> tuple[int | None, int | None] | None:
    """The exchange that lowers the sum of squares most; None where none does by more than rounding."""
    ours, theirs = _candidates(ours), _candidates(theirs)
    nobody = np.zeros((1, shares.shape[1]))
    mine, yours = np.vstack([nobody, shares[ours]]), np.vstack([nobody, shares[theirs]])
    # Change of the sum of squares when mine go and yours come: 2 * (d * gap + d * d) with d = yours - mine.
    change = (yours @ gap + (yours**2).sum(axis=1))[None, :] - (mine @ gap - (mine**2).sum(axis=1))[:, None]
    change -= 2.0 * mine @ yours.T
    row, column = np.unravel_index(int(np.argmin(change)), change.shape)
    if change[row, column] > -_ROUNDING:
        return None
    return (int(ours[row - 1]) if row else None, int(theirs[column - 1]) if column else None)


def _candidates(rows: np.ndarray) -> np.ndarray:
    """The first groups of a fold, which have the largest shares, and evenly chosen ones of the rest."""
    rest = rows[_N_LARGEST:]
    return np.r_[rows[:_N_LARGEST], rest[:: max(len(rest) // _N_REST, 1)][:_N_REST]]
