"""Lower ``any`` to the sum of its parts."""

from typing import ClassVar

import numpy as np

from ichtune.ensemble.post_processing.base import ANY_COLUMN, PARTS, FixedStep


class AnyAtMostSum(FixedStep):
    """A hemorrhage is of some subtype, so that ``any`` is no more likely than its parts together.

    Source: Boole's inequality; the 12th-placed team of the 2019 competition used it.
    """

    name: ClassVar[str] = "any_at_most_sum"
    changes: ClassVar[tuple[int, ...]] = (ANY_COLUMN,)

    def predict(self, p_NL: np.ndarray) -> np.ndarray:
        """See ``Step.predict``."""
        lowered_NL = p_NL.astype(np.float64)
        lowered_NL[:, ANY_COLUMN] = np.minimum(lowered_NL[:, ANY_COLUMN], lowered_NL[:, PARTS].sum(axis=1))
        return lowered_NL
