"""What a second level is worth: its out-of-fold loss beside those of what it learnt from, on the same patients.

Dimension key: M members, R labelled slices, L labels.
"""

from dataclasses import dataclass

import numpy as np

from ichtune.ensemble.blenders.equal_mean import EqualMean
from ichtune.ensemble.crossfit import crossfit
from ichtune.ensemble.scores.bootstrap import Interval, difference_interval
from ichtune.metrics import slice_losses
from ichtune.second_level.inputs import LevelInputs


@dataclass(frozen=True)
class Comparison:
    """Weighted log losses of the same labelled slices, nats; each predicted by what has not seen its patient.

    Attributes:
        loss: of the second level.
        equal_mean_loss: of the members' mean.
        best_single_loss: of the member that is best on the other folds.
        to_equal_mean: the second level's loss minus that of the mean, with its paired patient-bootstrap interval; below
            0 is a gain.
        to_best_single: likewise to the best member.
    """

    loss: float
    equal_mean_loss: float
    best_single_loss: float
    to_equal_mean: Interval
    to_best_single: Interval


def compare(inputs: LevelInputs, p_oof_RL: np.ndarray) -> Comparison:
    """Judge out-of-fold predictions of a second level beside the members that it learnt from.

    Args:
        inputs: what it learnt from.
        p_oof_RL: its predictions of ``inputs.labelled``.
    """
    y_RL, p_MRL, patient_R = inputs.y_RL, inputs.labelled.p_MRL, inputs.labelled.patient_R
    loss_MR = np.stack([slice_losses(y_RL, p_RL) for p_RL in p_MRL])

    def best_of(fit_rows: np.ndarray, predict_rows: np.ndarray) -> np.ndarray:
        return np.asarray(p_MRL[loss_MR[:, fit_rows].mean(axis=1).argmin(), predict_rows])

    own_R = slice_losses(y_RL, p_oof_RL)
    mean_R = slice_losses(y_RL, EqualMean().predict(p_MRL))
    best_R = slice_losses(y_RL, crossfit(best_of, inputs.fold_R, y_RL.shape[1]))
    return Comparison(
        loss=float(own_R.mean()),
        equal_mean_loss=float(mean_R.mean()),
        best_single_loss=float(best_R.mean()),
        to_equal_mean=difference_interval(own_R, mean_R, patient_R),
        to_best_single=difference_interval(own_R, best_R, patient_R),
    )
