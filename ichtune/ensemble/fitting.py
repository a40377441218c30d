"""From a BlendSpec and out-of-fold predictions to a fitted blend: choose members, learn weights, finish.

Choosing belongs to fitting: a cross-fitted score repeats it in each fold, so that the choice cannot flatter
itself.

Dimension key: M members, S chosen members, N slices, L labels.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from ichtune.ensemble.any_rules import ANY_RULES
from ichtune.ensemble.base import Blender
from ichtune.ensemble.blenders import create_blender
from ichtune.ensemble.crossfit import crossfit
from ichtune.ensemble.spec import BlendSpec
from ichtune.errors import DataError
from ichtune.metrics import weighted_log_loss


@dataclass(frozen=True)
class FittedBlend:
    """Chosen members and the blender fitted on them.

    Attributes:
        spec: what was asked for.
        chosen: rows of p_MNL that take part, ascending.
        blender: fitted on those rows.
    """

    spec: BlendSpec
    chosen: np.ndarray
    blender: Blender

    def predict(self, p_MNL: np.ndarray) -> np.ndarray:
        """Blend, apply the rule for ``any`` and clip: float64 (N, L) in [clip, 1 - clip]."""
        p_NL = ANY_RULES[self.spec.any_rule](self.blender.predict(_take(p_MNL, self.chosen)))
        return np.clip(p_NL, self.spec.clip, 1.0 - self.spec.clip)

    def weights(self, n_members: int) -> np.ndarray | None:
        """Return each member's weight for each label (M, L), zero where not chosen; None without weights."""
        if self.blender.weights_ is None:
            return None
        weights_ML = np.zeros((n_members, self.blender.weights_.shape[1]))
        weights_ML[self.chosen] = self.blender.weights_
        return weights_ML


def fit_blend(spec: BlendSpec, p_MNL: np.ndarray, y_NL: np.ndarray, patient_N: np.ndarray) -> FittedBlend:
    """Choose the members that ``spec`` asks for by their loss on these rows, and fit its blender on them.

    Args:
        spec: what is asked for.
        p_MNL: out-of-fold probabilities of every member (M, N, L).
        y_NL: labels (N, L).
        patient_N: the patient of each slice, by which a blender cross-fits that chooses.
    """
    chosen = np.arange(len(p_MNL))
    if spec.n_top is not None and spec.n_top < len(p_MNL):
        losses_M = np.array([weighted_log_loss(y_NL, p_NL) for p_NL in p_MNL])
        chosen = np.sort(np.argsort(losses_M, kind="stable")[: spec.n_top])
    blender = create_blender(spec.blender, spec.parameters)
    return FittedBlend(spec, chosen, blender.fit(_take(p_MNL, chosen), y_NL, group_N=patient_N))


def restore_blend(spec: BlendSpec, learned: Mapping[str, Any], n_members: int) -> FittedBlend:
    """Return a fitted blend from what its blender has learned, without the rows that it was fitted on.

    Args:
        spec: what was asked for.
        learned: ``FittedBlend.blender.learned()``, as it was or read back from JSON.
        n_members: how many members were chosen; the blend takes these alone, in the order in which they were.

    Raises:
        DataError: not what such a blender learns, or of another number of members.
    """
    blender = create_blender(spec.blender, spec.parameters).restore(learned)
    if blender.weights_ is not None and len(blender.weights_) != n_members:
        raise DataError(f"the blend has weights of {len(blender.weights_)} members, got {n_members} members")
    return FittedBlend(spec, np.arange(n_members), blender)


def crossfit_blend(
    spec: BlendSpec, p_MNL: np.ndarray, y_NL: np.ndarray, fold_N: np.ndarray, patient_N: np.ndarray
) -> np.ndarray:
    """Predict every slice with a blend chosen and fitted on the other folds: float64 (N, L)."""

    def fit_predict(fit_rows: np.ndarray, predict_rows: np.ndarray) -> np.ndarray:
        fitted = fit_blend(spec, p_MNL[:, fit_rows], y_NL[fit_rows], patient_N[fit_rows])
        return fitted.predict(p_MNL[:, predict_rows])

    return crossfit(fit_predict, fold_N, y_NL.shape[1])


def _take(p_MNL: np.ndarray, chosen: np.ndarray) -> np.ndarray:
    return p_MNL if len(chosen) == len(p_MNL) else p_MNL[chosen]
