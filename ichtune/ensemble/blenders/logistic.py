"""Logistic regression with a quadratic penalty towards any point, by Newton steps: small, convex, to the optimum.

Dimension key: F features, N slices.
"""

from typing import Any

import numpy as np

from ichtune.ensemble.blenders.blocks import block_size, one_blas_thread, sum_over_blocks
from ichtune.ensemble.blenders.logits import from_logits
from ichtune.ensemble.blenders.numbers import is_number
from ichtune.errors import ConfigError

MAX_STEPS = 100
MAX_HALVINGS = 40
#: Newton decrement, in nats, below which steps are whole ones, and below which the optimum is reached.
DECREMENT, SETTLED = 1e-14, 1e-24
#: A Hessian is kept while a step with it leaves at most this share of the decrement.
KEPT = 1e-2
#: Penalty on the bias: too weak to be seen, but a label without a positive gets a finite one.
BIAS_PENALTY = 1e-6


@one_blas_thread()
def penalised_logistic(
    x_FN: np.ndarray, y_N: np.ndarray, weight_N: np.ndarray, centre_F: np.ndarray, l2: float
) -> tuple[np.ndarray, float]:
    """Minimise weighted mean log loss + l2 / 2 * |coefficients - centre|^2 over coefficients and a bias.

    Args:
        x_FN: features, finite.
        y_N: labels in [0, 1].
        weight_N: weight of each slice, summing to one.
        centre_F: where the penalty is zero.
        l2: strength of the penalty, nats; above 0.

    Returns:
        The coefficients, float64 (F,), and the bias.

    Source: Hastie, Tibshirani and Friedman, The Elements of Statistical Learning, 2nd edition, section 4.4.
    """
    centre = np.append(np.asarray(centre_F, dtype=np.float64), 0.0)
    penalty = np.append(np.full(len(centre_F), float(l2)), BIAS_PENALTY)

    def value_of(point: np.ndarray, z_N: np.ndarray) -> float:
        loss = weight_N @ (np.logaddexp(0.0, z_N) - y_N * z_N)
        return float(loss + 0.5 * penalty @ (point - centre) ** 2)

    point, z_N = centre.copy(), _mixed(x_FN, centre)
    value, hessian, before = value_of(point, z_N), None, np.inf
    for _ in range(MAX_STEPS):
        p_N = from_logits(z_N)
        error_N = weight_N * (p_N - y_N)
        gradient = _slope(x_FN, error_N) + penalty * (point - centre)
        if hessian is not None:  # it hardly changes near the optimum, and costs most
            step, decrement = _newton(hessian, gradient)
        if hessian is None or decrement > KEPT * before:
            hessian = _hessian(x_FN, weight_N * p_N * (1.0 - p_N)) + np.diag(penalty)
            step, decrement = _newton(hessian, gradient)
        step_N, before = _mixed(x_FN, step), decrement
        scale, found = 1.0, decrement <= DECREMENT  # too little for a difference of values to show
        for _ in range(0 if found else MAX_HALVINGS):
            new = value_of(point + scale * step, z_N + scale * step_N)
            if new <= value - 1e-4 * scale * decrement:
                value, found = new, True
                break
            scale /= 2
        if not found:
            break  # rounding is all that is left
        point, z_N = point + scale * step, z_N + scale * step_N
        if decrement <= SETTLED:
            break
    return point[:-1], float(point[-1])


def scale_and_offset(
    z_NL: np.ndarray, y_NL: np.ndarray, weight_N: np.ndarray, l2: float
) -> tuple[np.ndarray, np.ndarray]:
    """Fit the scale and the offset of each label's log odds, scales drawn towards 1; see ``penalised_logistic``.

    Args:
        z_NL: log odds (N, L).
        y_NL: labels (N, L).
        weight_N: weight of each slice, summing to one.
        l2: strength of the penalty on scales other than 1, nats.

    Returns:
        Scales and offsets, float64 (L,) each.
    """
    scale_L, offset_L = np.ones(z_NL.shape[1]), np.zeros(z_NL.shape[1])
    for label in range(z_NL.shape[1]):
        found, offset_L[label] = penalised_logistic(z_NL[None, :, label], y_NL[:, label], weight_N, np.ones(1), l2)
        scale_L[label] = found[0]
    return scale_L, offset_L


def check_l2(blender: str, value: Any) -> None:
    """Raise ``ConfigError`` unless a blender's setting ``l2`` is a strength that the solver takes."""
    if not is_number(value, 1e-8, 1e4):
        raise ConfigError(f"{blender}: l2 must be a number between 1e-8 and 1e4, got {value!r}")


def _mixed(x_FN: np.ndarray, point: np.ndarray) -> np.ndarray:
    z_N = np.empty(x_FN.shape[1])

    def block(rows: slice) -> tuple[()]:
        z_N[rows] = point[:-1] @ x_FN[:, rows] + point[-1]
        return ()

    sum_over_blocks(block, len(z_N), block_size(len(x_FN)))
    return z_N


def _slope(x_FN: np.ndarray, error_N: np.ndarray) -> np.ndarray:
    """Return the gradient of the mean log loss, bias last."""

    def block(rows: slice) -> tuple[np.ndarray, float]:
        return x_FN[:, rows] @ error_N[rows], float(error_N[rows].sum())

    return np.append(*sum_over_blocks(block, len(error_N), block_size(len(x_FN))))


def _newton(hessian: np.ndarray, gradient: np.ndarray) -> tuple[np.ndarray, float]:
    """Return the Newton step and how much it should take off the value, twice."""
    step = -np.linalg.solve(hessian, gradient)
    return step, -float(gradient @ step)


def _hessian(x_FN: np.ndarray, curvature_N: np.ndarray) -> np.ndarray:
    """Return the Hessian of the mean log loss, bias last."""

    def block(rows: slice) -> tuple[np.ndarray, np.ndarray, float]:
        root_R = np.sqrt(curvature_N[rows])
        root_FR = x_FN[:, rows] * root_R
        return root_FR @ root_FR.T, root_FR @ root_R, float(curvature_N[rows].sum())

    of_features, of_bias, curvature = sum_over_blocks(block, len(curvature_N), block_size(len(x_FN)))
    return np.block([[of_features, of_bias[:, None]], [of_bias[None], curvature]])
