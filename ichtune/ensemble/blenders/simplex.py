"""Minimise a smooth convex function over the simplex {w >= 0, sum(w) = 1}, to its global optimum.

Newton steps on the simplex: each solves the second-order model over the simplex by an active-set method, then
searches along the line. The Frank-Wolfe gap g.w - min(g) bounds how far a point can be from the optimum, and
ends the work.
"""

from typing import Protocol

import numpy as np

#: The duality gap below which the optimum is reached, in the unit of the objective.
GAP = 1e-12
MAX_STEPS = 200
#: Steps without a smaller gap after which rounding is all that is left.
MAX_STALLED = 12
MAX_HALVINGS = 50


class Objective(Protocol):
    """A smooth convex function of the weights."""

    def value(self, w: np.ndarray) -> float:
        """The function itself."""
        ...

    def derivatives(self, w: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Gradient (n,) and Hessian (n, n); they need to be right only along directions that sum to zero."""
        ...


def minimise_on_simplex(
    objective: Objective, n: int, start: np.ndarray | None = None, enough: float = GAP
) -> tuple[np.ndarray, float]:
    """Minimise a convex function over the simplex.

    Args:
        objective: value, gradient and Hessian.
        n: number of weights.
        start: where to begin (n,), a point of the simplex; None takes equal weights.
        enough: the duality gap at which to stop.

    Returns:
        The weights, float64 (n,), and the duality gap: the value exceeds the minimum by no more than this.

    Source: Nocedal and Wright, Numerical Optimization, 2nd edition, chapters 16 and 18; Jaggi, ICML 2013
        (gap).
    """
    w = np.full(n, 1.0 / n) if start is None else start
    best, best_gap, stalled = w, np.inf, 0
    for _ in range(MAX_STEPS):
        gradient, hessian = objective.derivatives(w)
        gap = max(float(gradient @ w - gradient.min()), 0.0)
        stalled = 0 if gap < best_gap else stalled + 1
        if gap < best_gap:
            best, best_gap = w, gap
        if gap <= enough or stalled > MAX_STALLED:
            break
        moved = _newton_step(objective, w, gradient, hessian)
        if moved is None:
            break
        w = moved
    return best, best_gap


def newton_step(objective: Objective, w: np.ndarray) -> np.ndarray:
    """Return the weights after one step from ``w`` (n,), of the simplex; ``w`` itself where rounding leaves none."""
    moved = _newton_step(objective, w, *objective.derivatives(w))
    return w if moved is None else moved


def _newton_step(objective: Objective, w: np.ndarray, gradient: np.ndarray, hessian: np.ndarray) -> np.ndarray | None:
    direction = quadratic_on_simplex(hessian, gradient - hessian @ w, w) - w
    step = _line_search(objective, w, direction, float(gradient @ direction))
    if step is None:
        return None
    moved = np.maximum(w + step * direction, 0.0)
    return np.asarray(moved / moved.sum())


def _line_search(objective: Objective, w: np.ndarray, direction: np.ndarray, slope: float) -> float | None:
    """Return a step that lowers the objective enough, or None where there is none left within rounding."""
    start = objective.value(w)
    if slope > -1e-9 * max(1.0, abs(start)):  # so near the optimum the model is exact and values are rounding
        return 1.0
    step = 1.0
    for _ in range(MAX_HALVINGS):
        if objective.value(w + step * direction) <= start + 1e-4 * step * slope:
            return step
        step /= 2
    return None


def quadratic_on_simplex(hessian: np.ndarray, linear: np.ndarray, start: np.ndarray) -> np.ndarray:
    """Minimise 0.5 u'Hu + c'u over the simplex by a primal active-set method.

    Args:
        hessian: positive semi-definite (n, n); a ridge at rounding level makes it definite.
        linear: c (n,).
        start: a point of the simplex (n,).

    Returns:
        The minimiser, float64 (n,).
    """
    n = len(linear)
    scale = float(np.trace(hessian)) / n + float(np.abs(linear).max()) + 1e-300
    h = hessian / scale + 1e-13 * np.eye(n)
    c = linear / scale
    u, free = start.copy(), start > 0
    for _ in range(20 * n + 20):
        target, multiplier = _on_face(h, c, free)
        blocked = free & (target < 0)
        if blocked.any():
            reach = u[blocked] / (u[blocked] - target[blocked])
            u = np.maximum(u + reach.min() * (target - u), 0.0)
            leaving = np.flatnonzero(blocked)[reach.argmin()]
            u[leaving], free[leaving] = 0.0, False
            continue
        u = target
        reduced = np.where(free, 0.0, h @ u + c + multiplier)
        if reduced.min() >= -1e-13:
            break
        free[reduced.argmin()] = True
    return u / u.sum()


def _on_face(h: np.ndarray, c: np.ndarray, free: np.ndarray) -> tuple[np.ndarray, float]:
    """Solve the equality-constrained problem on the free coordinates: the point (n,) and its multiplier."""
    index = np.flatnonzero(free)
    system = np.ones((len(index) + 1, len(index) + 1))
    system[:-1, :-1] = h[np.ix_(index, index)]
    system[-1, -1] = 0.0
    right = np.append(-c[index], 1.0)
    try:
        solution = np.linalg.solve(system, right)
    except np.linalg.LinAlgError:
        solution = np.linalg.lstsq(system, right, rcond=None)[0]
    target = np.zeros(len(c))
    target[index] = solution[:-1]
    return target, float(solution[-1])
