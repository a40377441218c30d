"""Probabilities to log odds and back, clipped where the metric clips, so that hard 0 and 1 stay finite."""

import numpy as np

from ichtune.metrics import CLIP


def clip_probabilities(p: np.ndarray) -> np.ndarray:
    """Return float64 probabilities in [CLIP, 1 - CLIP], of any shape; the metric sees no difference."""
    return np.clip(p, CLIP, 1.0 - CLIP, dtype=np.float64)


def to_logits(p: np.ndarray) -> np.ndarray:
    """Return log(p / (1 - p)) of the clipped probabilities: float64, within ±13.82, of any shape."""
    clipped = clip_probabilities(p)
    return np.asarray(np.log(clipped / (1.0 - clipped)))


def from_logits(z: np.ndarray) -> np.ndarray:
    """Return 1 / (1 + exp(-z)), float64 of any shape, without overflow for either sign.

    >>> from_logits(to_logits(np.array([0.25]))).round(6).tolist()
    [0.25]
    """
    return 0.5 * (1.0 + np.tanh(0.5 * np.asarray(z, dtype=np.float64)))
