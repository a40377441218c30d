"""Rules that make ``any`` agree with its five parts after blending.

Source: the 12th-placed team of the 2019 competition bounded ``any`` by its parts for a small gain.
"""

from collections.abc import Callable

import numpy as np

from ichtune.labels import ANY, LABELS

_ANY = LABELS.index(ANY)
_PARTS = [index for index, label in enumerate(LABELS) if label != ANY]


def keep(p_NL: np.ndarray) -> np.ndarray:
    """Return the probabilities (N, L) as they are."""
    return p_NL


def at_least_max(p_NL: np.ndarray) -> np.ndarray:
    """Raise ``any`` to the largest of its parts: a slice with a subtype has a hemorrhage."""
    raised = p_NL.copy()
    raised[:, _ANY] = np.maximum(p_NL[:, _ANY], p_NL[:, _PARTS].max(axis=1))
    return raised


#: Each takes and returns probabilities (N, L).
ANY_RULES: dict[str, Callable[[np.ndarray], np.ndarray]] = {"none": keep, "at_least_max": at_least_max}
