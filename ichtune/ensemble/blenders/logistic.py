"""Logistic regression with a quadratic penalty towards any point, by Newton steps: small, convex, to the optimum.

Dimension key: F features, N slices.
"""

from typing import Any

import numpy as np

from ichtune.ensemble.blenders.logits import from_logits
from ichtune.ensemble.blenders.numbers import is_number
from ichtune.errors import ConfigError

MAX_STEPS = 100
MAX_HALVINGS = 40
#: Newton decrement, in nats, below which the optimum is reached.
DECREMENT = 1e-14
#: Penalty on the bias: too weak to be seen, but a label without a positive gets a finite one.
BIAS_PENALTY = 1e-6


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
    point = centre.copy()
    value = _value(x_FN, y_N, weight_N, point, centre, penalty)
    for _ in range(MAX_STEPS):
        p_N = from_logits(_mixed(x_FN, point))
        error_N, curvature_N = weight_N * (p_N - y_N), weight_N * p_N * (1.0 - p_N)
        gradient = np.append(x_FN @ error_N, error_N.sum()) + penalty * (point - centre)
        hessian = _hessian(x_FN, curvature_N) + np.diag(penalty)
        step = -np.linalg.solve(hessian, gradient)
        decrement = -float(gradient @ step)
        if decrement <= DECREMENT:
            break
        scale = 1.0
        for _ in range(MAX_HALVINGS):
            new = _value(x_FN, y_N, weight_N, point + scale * step, centre, penalty)
            if new <= value - 1e-4 * scale * decrement:
                break
            scale /= 2
        else:
            break  # rounding is all that is left
        point, value = point + scale * step, new
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
    return np.asarray(point[:-1] @ x_FN + point[-1])


def _value(
    x_FN: np.ndarray,
    y_N: np.ndarray,
    weight_N: np.ndarray,
    point: np.ndarray,
    centre: np.ndarray,
    penalty: np.ndarray,
) -> float:
    z_N = _mixed(x_FN, point)
    return float(weight_N @ (np.logaddexp(0.0, z_N) - y_N * z_N) + 0.5 * penalty @ (point - centre) ** 2)


def _hessian(x_FN: np.ndarray, curvature_N: np.ndarray) -> np.ndarray:
    n_features = len(x_FN)
    weighted_FN = x_FN * curvature_N
    hessian = np.empty((n_features + 1, n_features + 1))
    hessian[:-1, :-1] = weighted_FN @ x_FN.T
    hessian[-1, :-1] = hessian[:-1, -1] = weighted_FN.sum(axis=1)
    hessian[-1, -1] = curvature_N.sum()
    return hessian
