"""Raise ``any`` to the largest of its parts."""

from typing import ClassVar

import numpy as np

from ichtune.ensemble.post_processing.base import ANY_COLUMN, PARTS, FixedStep


class AnyAtLeastMax(FixedStep):
    """A slice with a subtype has a hemorrhage, so that ``any`` is no less likely than each of its parts.

    Source: the 12th-placed team of the 2019 competition bounded ``any`` by its parts for a small gain.
    """

    name: ClassVar[str] = "any_at_least_max"
    changes: ClassVar[tuple[int, ...]] = (ANY_COLUMN,)

    def predict(self, p_NL: np.ndarray) -> np.ndarray:
        """See ``Step.predict``."""
        raised_NL = p_NL.astype(np.float64)
        raised_NL[:, ANY_COLUMN] = np.maximum(raised_NL[:, ANY_COLUMN], raised_NL[:, PARTS].max(axis=1))
        return raised_NL
