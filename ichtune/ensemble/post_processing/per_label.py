"""Steps that learn a few numbers for each label from that label alone.

Dimension key: N slices, L labels, K numbers a label.
"""

from abc import abstractmethod
from collections.abc import Mapping
from typing import Any, ClassVar, Self

import numpy as np

from ichtune.ensemble.blenders.numbers import table_of_numbers
from ichtune.ensemble.post_processing.base import Step, check_rows
from ichtune.labels import N_LABELS


class PerLabel(Step):
    """Learns the same K numbers for each label, and changes each label by its own.

    Attributes:
        numbers_: after ``fit``, (K, L).
    """

    #: Names of the K numbers.
    learns: ClassVar[tuple[str, ...]]

    numbers_: np.ndarray | None = None

    def fit(self, p_NL: np.ndarray, y_NL: np.ndarray, weight_N: np.ndarray | None = None) -> Self:
        """See ``Step.fit``."""
        row_weight_N = check_rows(p_NL, y_NL, weight_N)
        columns = [self._fit_label(p_NL[:, c], y_NL[:, c], row_weight_N) for c in range(N_LABELS)]
        self.numbers_ = np.array(columns, dtype=np.float64).T
        return self

    def predict(self, p_NL: np.ndarray) -> np.ndarray:
        """See ``Step.predict``."""
        if self.numbers_ is None:
            raise self._unfitted()
        return self._predict(p_NL, self.numbers_)

    @abstractmethod
    def _fit_label(self, p_N: np.ndarray, y_N: np.ndarray, weight_N: np.ndarray) -> tuple[float, ...]:
        """Return one label's numbers; the row weights sum to one."""

    @abstractmethod
    def _predict(self, p_NL: np.ndarray, numbers_KL: np.ndarray) -> np.ndarray:
        """Change every label by its numbers."""

    def learned(self) -> dict[str, Any]:
        """See ``Step.learned``."""
        if self.numbers_ is None:
            return dict.fromkeys(self.learns)
        return {name: number_L.tolist() for name, number_L in zip(self.learns, self.numbers_, strict=True)}

    def restore(self, learned: Mapping[str, Any]) -> Self:
        """See ``Step.restore``."""
        self.numbers_ = np.stack([table_of_numbers(learned, name, (N_LABELS,)) for name in self.learns])
        return self
