"""Mix ``any`` with what its parts alone say of it.

Dimension key: N slices, L labels.
"""

from collections.abc import Mapping
from typing import Any, ClassVar, Self

import numpy as np

from ichtune.ensemble.blenders.logits import clip_probabilities, from_logits, to_logits
from ichtune.ensemble.blenders.numbers import table_of_numbers
from ichtune.ensemble.post_processing.base import ANY_COLUMN, PARTS, Step, check_rows
from ichtune.ensemble.post_processing.one_number import best_number
from ichtune.errors import DataError


class AnyNoisyOr(Step):
    """The log odds of ``any``, moved a learned share of the way to those of 1 - prod(1 - p) over its parts.

    That product would be right if subtypes came independently of each other.

    Attributes:
        share_: after ``fit``, in [0, 1]; 0 keeps ``any`` as it is.

    Source: Pearl, Probabilistic Reasoning in Intelligent Systems, 1988, section 4.3.2 (noisy or); the 10th-placed team
        of the 2019 competition used it for ``any``.
    """

    name: ClassVar[str] = "any_noisy_or"
    changes: ClassVar[tuple[int, ...]] = (ANY_COLUMN,)

    share_: float | None = None

    def fit(self, p_NL: np.ndarray, y_NL: np.ndarray, weight_N: np.ndarray | None = None) -> Self:
        """Solve for the share; see ``Step.fit``."""
        row_weight_N = check_rows(p_NL, y_NL, weight_N)
        own_N = to_logits(p_NL[:, ANY_COLUMN])
        towards_N = union_logits(p_NL) - own_N
        self.share_ = best_number(own_N, towards_N, y_NL[:, ANY_COLUMN], row_weight_N, (0.0, 1.0), 0.0)
        return self

    def predict(self, p_NL: np.ndarray) -> np.ndarray:
        """See ``Step.predict``."""
        if self.share_ is None:
            raise self._unfitted()
        mixed_NL = p_NL.astype(np.float64)
        own_N = to_logits(p_NL[:, ANY_COLUMN])
        mixed_NL[:, ANY_COLUMN] = from_logits(own_N + self.share_ * (union_logits(p_NL) - own_N))
        return mixed_NL

    def learned(self) -> dict[str, Any]:
        """See ``Step.learned``."""
        return {"share": self.share_}

    def restore(self, learned: Mapping[str, Any]) -> Self:
        """See ``Step.restore``."""
        share = float(table_of_numbers(learned, "share", ()))
        if not 0.0 <= share <= 1.0:
            raise DataError(f"the share of any_noisy_or must be in [0, 1], got {share}")
        self.share_ = share
        return self


def union_logits(p_NL: np.ndarray) -> np.ndarray:
    """Return the log odds of 1 - prod(1 - p) over the parts of ``any``: float64 (N,), finite."""
    log_none_N = np.log1p(-clip_probabilities(p_NL[:, PARTS])).sum(axis=1)
    return np.log(-np.expm1(log_none_N)) - log_none_N
