"""The seam for post-processing: what every step after the blend must offer.

Dimension key: N slices, L labels in the order of ``ichtune.labels.LABELS``.
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any, ClassVar, Self

import numpy as np

from ichtune.ensemble.blenders.base import check_fit
from ichtune.errors import DataError
from ichtune.labels import ANY, LABELS, N_LABELS

ANY_COLUMN = LABELS.index(ANY)
#: Columns of the subtypes, of which ``any`` is the union.
PARTS = tuple(column for column in range(N_LABELS) if column != ANY_COLUMN)


class Step(ABC):
    """Changes the probabilities of some labels; learned state ends in ``_``.

    What every implementation keeps: predictions are probabilities in [0, 1], and hard 0 and 1 give finite ones; labels
    that it does not change come out as they went in; the order of rows does not matter; each row is predicted from
    itself alone, except by a transductive step; ``fit`` reads nothing but its arguments and forgets what was fitted
    before; what ``learned`` returns goes through JSON and makes a step that predicts the same to the last bit.
    """

    #: What the table of steps calls it.
    name: ClassVar[str]
    #: Columns of the labels that it can change.
    changes: ClassVar[tuple[int, ...]] = tuple(range(N_LABELS))
    #: Whether it adapts to the whole set of slices that it predicts.
    is_transductive: ClassVar[bool] = False

    @abstractmethod
    def fit(self, p_NL: np.ndarray, y_NL: np.ndarray, weight_N: np.ndarray | None = None) -> Self:
        """Learn from predictions of patients that their blender had not seen.

        Args:
            p_NL: probabilities (N, L).
            y_NL: labels (N, L), 0 or 1.
            weight_N: weight of each slice (N,), at least 0; None weighs all alike.

        Raises:
            DataError: wrong shapes, no rows, or values outside [0, 1].
        """

    @abstractmethod
    def predict(self, p_NL: np.ndarray) -> np.ndarray:
        """Return changed probabilities, float64 (N, L) in [0, 1]; what was given stays as it is."""

    @abstractmethod
    def learned(self) -> dict[str, Any]:
        """Return what ``fit`` learned as plain values for JSON."""

    @abstractmethod
    def restore(self, learned: Mapping[str, Any]) -> Self:
        """Take what ``learned`` returned: as if fitted again on the same rows.

        Raises:
            DataError: not what such a step learns.
        """

    def _unfitted(self) -> DataError:
        return DataError(f"the step {self.name} has learned nothing yet: call fit before predict")


class FixedStep(Step):
    """A step that learns nothing."""

    def fit(self, p_NL: np.ndarray, y_NL: np.ndarray, weight_N: np.ndarray | None = None) -> Self:
        """Check what it is given; see ``Step.fit``."""
        check_rows(p_NL, y_NL, weight_N)
        return self

    def learned(self) -> dict[str, Any]:
        """See ``Step.learned``."""
        return {}

    def restore(self, learned: Mapping[str, Any]) -> Self:
        """See ``Step.restore``."""
        if learned:
            raise DataError(f"the step {self.name} learns nothing, got {sorted(learned)}")
        return self


def check_rows(p_NL: np.ndarray, y_NL: np.ndarray, weight_N: np.ndarray | None) -> np.ndarray:
    """Check what ``fit`` was given and return the row weights: float64 (N,), summing to one.

    Raises:
        DataError: wrong shapes, no rows, values outside [0, 1], or row weights that are negative or all zero.
    """
    return check_fit(p_NL[None], y_NL, weight_N)
