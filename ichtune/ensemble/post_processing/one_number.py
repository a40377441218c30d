"""The best value of one number in a logistic model: convex, on an interval, to the optimum.

Dimension key: N slices.
"""

import numpy as np

from ichtune.ensemble.blenders.logits import from_logits

MAX_STEPS = 60
#: The number is known this well.
PRECISION = 1e-10


def best_number(
    offset_N: np.ndarray,
    slope_N: np.ndarray,
    y_N: np.ndarray,
    weight_N: np.ndarray,
    interval: tuple[float, float],
    start: float,
) -> float:
    """Minimise the mean log loss of the log odds ``offset + t * slope`` over t, by Newton steps kept in a bracket.

    Args:
        offset_N: log odds, finite.
        slope_N: what one unit of t adds to them.
        y_N: labels in [0, 1].
        weight_N: weight of each slice, summing to one.
        interval: smallest and largest t.
        start: where to begin, inside the interval; the answer where the loss does not depend on t.
    """

    def derivatives(t: float) -> tuple[float, float]:
        p_N = from_logits(offset_N + t * slope_N)
        weighted_N = weight_N * slope_N
        return float(weighted_N @ (p_N - y_N)), float((weighted_N * slope_N) @ (p_N * (1.0 - p_N)))

    (low, high), t = interval, start
    for _ in range(MAX_STEPS):
        gradient, curvature = derivatives(t)
        if gradient == 0.0:
            break
        low, high = (low, t) if gradient > 0 else (t, high)
        end = low if gradient > 0 else high
        new = t - gradient / curvature if curvature > 0 else end
        if not low <= new <= high:
            new = end if end in interval and derivatives(end)[0] * gradient >= 0 else (low + high) / 2
        if abs(new - t) <= PRECISION:
            t = new
            break
        t = new
    return t
