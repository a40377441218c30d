"""The competition's weighted log loss and its parts; numpy only.

Dimension key: N slices, L labels in the order of ``ichtune.labels.LABELS``.
"""

import math
from collections.abc import Iterator, Sequence

import numpy as np

from ichtune.errors import DataError
from ichtune.labels import LABELS, METRIC_WEIGHTS

#: Probabilities are clipped here before the logarithm, as the competition's top teams did before submission.
CLIP = 1e-6
#: Slices that are scored at a time.
BLOCK = 4_096


def check_probabilities(p_NL: np.ndarray, source: str = "predictions") -> None:
    """Raise ``DataError`` unless every value is a number in [0, 1] and the shape is (N, L)."""
    if p_NL.ndim != 2 or p_NL.shape[1] != len(LABELS):
        raise DataError(f"{source} must have shape (N, {len(LABELS)}), got {p_NL.shape}")
    if _surely_in_range(p_NL):
        return
    bad = ~((p_NL >= 0.0) & (p_NL <= 1.0))
    if bad.any():
        row, column = np.argwhere(bad)[0]
        raise DataError(
            f"{source} must be probabilities in [0, 1], got {p_NL[row, column]!r} at row {row}, label "
            f"{LABELS[column]!r} ({int(bad.sum())} such values)"
        )


def _surely_in_range(p_NL: np.ndarray) -> bool:
    """Say whether all values lie in [0, 1], in one pass; False may also mean that this quick look cannot tell.

    Read as whole numbers without a sign, the bits of the floats from 0 to 1 are in their order and below those of all
    others: negative ones (a negative zero is left to the slow look), larger ones and NaN.

    Source: IEEE 754-2019, section 3.4.
    """
    whole = {np.dtype(np.float32): np.uint32, np.dtype(np.float64): np.uint64}.get(p_NL.dtype)
    if whole is None or p_NL.size == 0 or not p_NL.flags.c_contiguous:
        return False
    return bool(p_NL.view(whole).max() <= np.ones(1, dtype=p_NL.dtype).view(whole)[0])


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
    w_L = w_L / w_L.sum()
    loss_N = np.empty(len(p_NL))
    for rows, loss_RL in _in_blocks(y_NL, p_NL):
        loss_N[rows] = loss_RL @ w_L
    return loss_N


def label_losses(y_NL: np.ndarray, p_NL: np.ndarray) -> np.ndarray:
    """Log loss of each slice and label, float64 (N, L), probabilities clipped to [CLIP, 1 - CLIP]."""
    loss_NL = np.empty(p_NL.shape)
    for rows, loss_RL in _in_blocks(y_NL, p_NL):
        loss_NL[rows] = loss_RL
    return loss_NL


def _in_blocks(y_NL: np.ndarray, p_NL: np.ndarray) -> Iterator[tuple[slice, np.ndarray]]:
    """Yield the log losses of neighbouring slices, so few that they stay in the cache."""
    if y_NL.shape != p_NL.shape:
        raise DataError(f"labels and probabilities must have one shape, got {y_NL.shape} and {p_NL.shape}")
    for start in range(0, len(p_NL), BLOCK):
        rows = slice(start, start + BLOCK)
        yield rows, _log_losses(y_NL[rows], p_NL[rows])


def _log_losses(y: np.ndarray, p: np.ndarray) -> np.ndarray:
    y = y.astype(np.float64)
    loss = np.clip(p, CLIP, 1.0 - CLIP, dtype=np.float64)
    if not (y * y == y).all():  # soft labels, or no numbers
        return np.asarray(-(y * np.log(loss) + (1.0 - y) * np.log1p(-loss)))
    np.subtract(loss, 1.0 - y, out=loss)  # the probability of what the label says, negative where it says no
    np.abs(loss, out=loss)
    np.log(loss, out=loss)
    return np.negative(loss, out=loss)


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
    total_L = sum(loss_RL.sum(axis=0) for _, loss_RL in _in_blocks(y_NL, p_NL))
    return {label: float(total) / len(y_NL) for label, total in zip(LABELS, np.asarray(total_L), strict=True)}


def prior_predictions(y_NL: np.ndarray, n_rows: int) -> np.ndarray:
    """Predict every slice with the label rates of ``y_NL``: float64 (n_rows, L). The floor of any ladder."""
    _refuse_no_slices(y_NL)
    return np.tile(np.clip(y_NL.mean(axis=0, dtype=np.float64), CLIP, 1.0 - CLIP), (n_rows, 1))


def _refuse_no_slices(y_NL: np.ndarray) -> None:
    if len(y_NL) == 0:
        raise DataError("the loss of no slices is undefined: got 0 rows; check that labels and ids overlap")
