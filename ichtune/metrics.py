"""The competition's weighted log loss and its parts; numpy only.

Dimension key: N slices, L labels in the order of ``ichtune.labels.LABELS``.
"""

import math
from collections.abc import Sequence

import numpy as np

from ichtune.errors import DataError
from ichtune.labels import LABELS, METRIC_WEIGHTS

#: Probabilities are clipped here before the logarithm, as the competition's top teams did before submission.
CLIP = 1e-6


def check_probabilities(p_NL: np.ndarray, source: str = "predictions") -> None:
    """Raise ``DataError`` unless every value is a number in [0, 1] and the shape is (N, L)."""
    if p_NL.ndim != 2 or p_NL.shape[1] != len(LABELS):
        raise DataError(f"{source} must have shape (N, {len(LABELS)}), got {p_NL.shape}")
    bad = ~((p_NL >= 0.0) & (p_NL <= 1.0))
    if bad.any():
        row, column = np.argwhere(bad)[0]
        raise DataError(
            f"{source} must be probabilities in [0, 1], got {p_NL[row, column]!r} at row {row}, label "
            f"{LABELS[column]!r} ({int(bad.sum())} such values)"
        )


def slice_losses(y_NL: np.ndarray, p_NL: np.ndarray, weights: Sequence[float] = METRIC_WEIGHTS) -> np.ndarray:
    """Weighted log loss of each slice.

    Args:
        y_NL: labels (N, L), 0 or 1 (or soft, in [0, 1]).
        p_NL: probabilities (N, L).
        weights: L weights; their sum divides.

    Returns:
        float64 (N,), in nats; its mean over slices is the metric.
    """
    w_L = np.asarray(weights, dtype=np.float64)
    return label_losses(y_NL, p_NL) @ (w_L / w_L.sum())


def label_losses(y_NL: np.ndarray, p_NL: np.ndarray) -> np.ndarray:
    """Log loss of each slice and label, float64 (N, L), probabilities clipped to [CLIP, 1 - CLIP]."""
    if y_NL.shape != p_NL.shape:
        raise DataError(f"labels and probabilities must have one shape, got {y_NL.shape} and {p_NL.shape}")
    p = np.clip(p_NL.astype(np.float64), CLIP, 1.0 - CLIP)
    y = y_NL.astype(np.float64)
    return -(y * np.log(p) + (1.0 - y) * np.log1p(-p))


def weighted_log_loss(y_NL: np.ndarray, p_NL: np.ndarray, weights: Sequence[float] = METRIC_WEIGHTS) -> float:
    """The competition's metric: mean over slices of the weighted multi-label log loss.

    Args:
        y_NL: labels (N, L), 0 or 1 (or soft, in [0, 1]).
        p_NL: probabilities (N, L), clipped to [CLIP, 1 - CLIP]; see ``check_probabilities``.
        weights: L weights; their sum divides.

    Returns:
        The loss in nats.

    Raises:
        DataError: no slice, shapes that differ, or a value that is not a number.

    Source: RSNA Intracranial Hemorrhage Detection (2019), evaluation page.

    >>> import numpy as np
    >>> round(weighted_log_loss(np.zeros((1, 6)), np.full((1, 6), 0.5)), 4)
    0.6931
    """
    _refuse_no_slices(y_NL)
    loss = float(slice_losses(y_NL, p_NL, weights).mean())
    if math.isnan(loss):
        raise DataError("labels and probabilities must be numbers, got NaN; score labelled, predicted slices only")
    return loss


def per_label_log_loss(y_NL: np.ndarray, p_NL: np.ndarray) -> dict[str, float]:
    """Mean log loss of each label, by name."""
    _refuse_no_slices(y_NL)
    means = label_losses(y_NL, p_NL).mean(axis=0)
    return {label: float(value) for label, value in zip(LABELS, means, strict=True)}


def prior_predictions(y_NL: np.ndarray, n_rows: int) -> np.ndarray:
    """Predict every slice with the label rates of ``y_NL``: float64 (n_rows, L). The floor of any ladder."""
    _refuse_no_slices(y_NL)
    return np.tile(np.clip(y_NL.mean(axis=0, dtype=np.float64), CLIP, 1.0 - CLIP), (n_rows, 1))


def _refuse_no_slices(y_NL: np.ndarray) -> None:
    if len(y_NL) == 0:
        raise DataError("the loss of no slices is undefined: got 0 rows; check that labels and ids overlap")
