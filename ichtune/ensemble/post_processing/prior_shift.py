"""Prior shift: adapt to a set in which labels are rarer or more frequent than in training.

Dimension key: N slices, L labels.
"""

from collections.abc import Mapping
from typing import Any, ClassVar, Self

import numpy as np

from ichtune.ensemble.blenders.logits import clip_probabilities, from_logits, to_logits
from ichtune.ensemble.blenders.numbers import table_of_numbers
from ichtune.ensemble.post_processing.base import Step, check_rows
from ichtune.labels import N_LABELS

#: Halvings of [0, 1] after which a rate is known to 1e-12.
HALVINGS = 40


class PriorShift(Step):
    """Estimates each label's rate in the set that it predicts, from the predictions alone, and moves the odds by it.

    It is transductive: what it says of a slice depends on the other slices of the set. So it acts on the test set of a
    submission only, never on single new slices, and is judged by taking each held-out fold for a test set. It believes
    that predictions are calibrated but for the rates, and overdoes it where they are not: in small sets of patients who
    differ, and where test predictions, as means of fold models, spread less than those it learned from.

    Attributes:
        rate_: after ``fit``, the labels' rates in training (L,).

    Source: Saerens, Latinne and Decaestecker, Adjusting the outputs of a classifier to new a priori probabilities,
        Neural Computation 14, 2002.
    """

    name: ClassVar[str] = "prior_shift"
    is_transductive: ClassVar[bool] = True

    rate_: np.ndarray | None = None

    def fit(self, p_NL: np.ndarray, y_NL: np.ndarray, weight_N: np.ndarray | None = None) -> Self:
        """Take the rates; see ``Step.fit``."""
        self.rate_ = clip_probabilities(check_rows(p_NL, y_NL, weight_N) @ y_NL)
        return self

    def predict(self, p_NL: np.ndarray) -> np.ndarray:
        """See ``Step.predict``; the set is all rows that are given."""
        if self.rate_ is None:
            raise self._unfitted()
        if len(p_NL) == 0:
            return p_NL.astype(np.float64)
        shift_L = to_logits(estimated_rates(p_NL, self.rate_)) - to_logits(self.rate_)
        return from_logits(to_logits(p_NL) + shift_L)

    def learned(self) -> dict[str, Any]:
        """See ``Step.learned``."""
        return {"rate": None if self.rate_ is None else self.rate_.tolist()}

    def restore(self, learned: Mapping[str, Any]) -> Self:
        """See ``Step.restore``."""
        self.rate_ = clip_probabilities(table_of_numbers(learned, "rate", (N_LABELS,)))
        return self


def estimated_rates(p_NL: np.ndarray, rate_L: np.ndarray) -> np.ndarray:
    """Estimate the labels' rates in a set without labels.

    The likelihood of a rate r is the product over slices of r * p / rate + (1 - r) * (1 - p) / (1 - rate). Its
    logarithm is concave in r, so that halving finds the maximum which the EM steps of the source climb to.

    Args:
        p_NL: calibrated probabilities of the set's slices, at least one.
        rate_L: rates in training, in (0, 1).

    Returns:
        float64 (L,) in [CLIP, 1 - CLIP].
    """
    p = clip_probabilities(p_NL)
    with_NL, without_NL = p / rate_L, (1.0 - p) / (1.0 - rate_L)
    difference_NL = with_NL - without_NL
    low_L, high_L = np.zeros(p.shape[1]), np.ones(p.shape[1])
    for _ in range(HALVINGS):
        middle_L = (low_L + high_L) / 2
        rises_L = (difference_NL / (without_NL + middle_L * difference_NL)).sum(axis=0) > 0
        low_L, high_L = np.where(rises_L, middle_L, low_L), np.where(rises_L, high_L, middle_L)
    return clip_probabilities((low_L + high_L) / 2)
