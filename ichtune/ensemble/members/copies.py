"""Copies of members: predictions that are another run's but for rounding. They are one voice, and count once.

Dimension key: M members, N slices, T slices of the test set, R slices that are looked at first, L labels.
"""

import numpy as np

#: Probabilities that differ by no more are the same ones, rounded otherwise: single precision errs by at most 3e-8.
ROUNDING = 1e-7
#: Slices that are compared first, evenly spaced: enough to tell members that are no copies.
FIRST_LOOK = 1_000


def copied_member(m: int, p_MNL: np.ndarray, p_MTL: np.ndarray) -> int | None:
    """Return the first member before ``m`` of which it is a copy; None where there is none.

    Args:
        m: a row of both arrays; later rows are not looked at.
        p_MNL: out-of-fold probabilities (M, N, L).
        p_MTL: probabilities on the test set (M, T, L).
    """
    copied = (k for k in range(m) if _is_same(p_MNL[k], p_MNL[m]) and _is_same(p_MTL[k], p_MTL[m]))
    return next(copied, None)


def _is_same(one_NL: np.ndarray, other_NL: np.ndarray) -> bool:
    step = max(1, len(one_NL) // FIRST_LOOK)
    return all(_distance(one_NL[::every], other_NL[::every]) <= ROUNDING for every in (step, 1))


def _distance(one_RL: np.ndarray, other_RL: np.ndarray) -> float:
    return float(np.abs(one_RL - other_RL).max(initial=0.0))
