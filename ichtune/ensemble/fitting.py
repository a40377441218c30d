"""From a BlendSpec and out-of-fold predictions to a fitted blend: choose members, learn weights, post-process.

Choosing belongs to fitting: a cross-fitted score repeats it in each fold, so that the choice cannot flatter
itself.

Dimension key: M members, S chosen members, N slices, L labels.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ichtune.ensemble.blenders.auto import Auto, choice_rows
from ichtune.ensemble.blenders.base import Blender
from ichtune.ensemble.blenders.table import create_blender
from ichtune.ensemble.crossfit import Unseen, crossfit, crossfit_blender
from ichtune.ensemble.post_processing.chain import Chain, fit_chain, restore_chain
from ichtune.ensemble.spec import BlendSpec
from ichtune.errors import DataError
from ichtune.metrics import weighted_log_loss

#: Folds of patients by which a blender is cross-fitted, so that post-processing learns from unseen slices.
INNER_FOLDS = 5
#: Slices, in whole patients, from which post-processing learns.
MAX_ROWS = 100_000


@dataclass(frozen=True)
class FittedBlend:
    """Chosen members, the blender fitted on them, and the post-processing of what it says.

    Attributes:
        spec: what was asked for.
        chosen: rows of p_MNL that take part, ascending.
        blender: fitted on those rows.
        chain: the steps that are applied, and what each tried one gained.
    """

    spec: BlendSpec
    chosen: np.ndarray
    blender: Blender
    chain: Chain = field(default_factory=Chain)

    def predict(self, p_MNL: np.ndarray) -> np.ndarray:
        """Blend, post-process and clip each slice by itself: float64 (N, L) in [clip, 1 - clip].

        A step that adapts to the set it predicts stays aside: a single new folder is no sample of anything.
        """
        return self._clipped(self.chain.predict(self.blend(p_MNL)))

    def predict_set(self, p_MNL: np.ndarray) -> np.ndarray:
        """Predict as ``predict``, and adapt to the slices, which are one whole test set, where the chain does."""
        return self._clipped(self.chain.predict_set(self.blend(p_MNL)))

    def blend(self, p_MNL: np.ndarray) -> np.ndarray:
        """Return what the blender says before post-processing, clipped: float64 (N, L)."""
        return self._clipped(self.blender.predict(_take(p_MNL, self.chosen)))

    def learned(self) -> dict[str, Any]:
        """Return what was learned as plain values for JSON; ``restore_blend`` takes it."""
        return {"blender": self.blender.learned(), "post_processing": self.chain.learned()}

    def weights(self, n_members: int) -> np.ndarray | None:
        """Return each member's weight for each label (M, L), zero where not chosen; None without weights."""
        if self.blender.weights_ is None:
            return None
        weights_ML = np.zeros((n_members, self.blender.weights_.shape[1]))
        weights_ML[self.chosen] = self.blender.weights_
        return weights_ML

    def _clipped(self, p_NL: np.ndarray) -> np.ndarray:
        return np.clip(p_NL, self.spec.clip, 1.0 - self.spec.clip)


def fit_blend(spec: BlendSpec, p_MNL: np.ndarray, y_NL: np.ndarray, patient_N: np.ndarray) -> FittedBlend:
    """Choose the members that ``spec`` asks for by their loss on these rows, fit its blender, then the steps after it.

    The steps are chosen and fitted on predictions of patients that the blender had not seen: it is cross-fitted for
    that, unless it has done so itself.

    Args:
        spec: what is asked for.
        p_MNL: out-of-fold probabilities of every member (M, N, L).
        y_NL: labels (N, L).
        patient_N: the patient of each slice.
    """
    chosen = np.arange(len(p_MNL))
    if spec.n_top is not None and spec.n_top < len(p_MNL):
        losses_M = np.array([weighted_log_loss(y_NL, p_NL) for p_NL in p_MNL])
        chosen = np.sort(np.argsort(losses_M, kind="stable")[: spec.n_top])
    p_SNL = _take(p_MNL, chosen)
    blender = create_blender(spec.blender, spec.parameters).fit(p_SNL, y_NL, group_N=patient_N)
    if not spec.post_processing or len(np.unique(patient_N)) < 2:  # nothing is unseen then
        return FittedBlend(spec, chosen, blender)
    unseen = _unseen(spec, blender, p_SNL, y_NL, patient_N)
    return FittedBlend(spec, chosen, blender, fit_chain(spec.post_processing, unseen, y_NL, patient_N))


def _unseen(spec: BlendSpec, blender: Blender, p_SNL: np.ndarray, y_NL: np.ndarray, patient_N: np.ndarray) -> Unseen:
    """Predictions of the blender for patients that it was not fitted on, clipped as the blend's are."""
    if isinstance(blender, Auto) and blender.unseen_ is not None:
        unseen = blender.unseen_
    else:
        rows, fold_R = choice_rows(patient_N, np.ones(len(y_NL)), INNER_FOLDS, MAX_ROWS)
        p_RL = crossfit_blender(
            lambda: create_blender(spec.blender, spec.parameters),
            p_SNL[:, rows],
            y_NL[rows],
            fold_R,
            group_N=patient_N[rows],
        )
        unseen = Unseen(rows, fold_R, p_RL)
    return Unseen(unseen.row_R, unseen.fold_R, np.clip(unseen.p_RL, spec.clip, 1.0 - spec.clip))


def restore_blend(spec: BlendSpec, learned: Mapping[str, Any], n_members: int) -> FittedBlend:
    """Return a fitted blend from what it has learned, without the rows that it was fitted on.

    Args:
        spec: what was asked for.
        learned: ``FittedBlend.learned()``, as it was or read back from JSON.
        n_members: how many members were chosen; the blend takes these alone, in the order in which they were.

    Raises:
        DataError: not what such a blend learns, or of another number of members.
    """
    if not {"blender", "post_processing"} <= learned.keys() or not isinstance(learned["blender"], Mapping):
        raise DataError(
            f"what a blend has learned must hold its blender and post_processing, got {sorted(learned)}: an older "
            "ichtune wrote it; run `ichtune blend` again"
        )
    blender = create_blender(spec.blender, spec.parameters).restore(learned["blender"])
    if blender.weights_ is not None and len(blender.weights_) != n_members:
        raise DataError(f"the blend has weights of {len(blender.weights_)} members, got {n_members} members")
    return FittedBlend(spec, np.arange(n_members), blender, restore_chain(learned["post_processing"]))


def crossfit_blend(
    spec: BlendSpec, p_MNL: np.ndarray, y_NL: np.ndarray, fold_N: np.ndarray, patient_N: np.ndarray
) -> np.ndarray:
    """Predict every slice with a blend chosen and fitted on the other folds: float64 (N, L)."""
    return crossfit_stages(spec, p_MNL, y_NL, fold_N, patient_N)[1]


def crossfit_stages(
    spec: BlendSpec, p_MNL: np.ndarray, y_NL: np.ndarray, fold_N: np.ndarray, patient_N: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Predict every slice before and after post-processing, with what was chosen and fitted on the other folds.

    Members, blender and steps are chosen again without each fold, which stands for a test set.

    Returns:
        Both float64 (N, L).
    """

    def fit_predict(fit_rows: np.ndarray, predict_rows: np.ndarray) -> np.ndarray:
        fitted = fit_blend(spec, p_MNL[:, fit_rows], y_NL[fit_rows], patient_N[fit_rows])
        p_held_out = p_MNL[:, predict_rows]
        return np.concatenate([fitted.blend(p_held_out), fitted.predict_set(p_held_out)], axis=1)

    both = crossfit(fit_predict, fold_N, 2 * y_NL.shape[1])
    return both[:, : y_NL.shape[1]], both[:, y_NL.shape[1] :]


def _take(p_MNL: np.ndarray, chosen: np.ndarray) -> np.ndarray:
    return p_MNL if len(chosen) == len(p_MNL) else p_MNL[chosen]
