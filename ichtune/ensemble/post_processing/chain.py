"""The chain of steps after a blend: each is tried in turn, and kept for the labels where unseen patients say so.

Dimension key: N slices, R slices that a choice is made on, L labels.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ichtune.ensemble.blenders.auto import standard_error
from ichtune.ensemble.crossfit import Unseen, crossfit
from ichtune.ensemble.post_processing.base import Step
from ichtune.ensemble.post_processing.steps import STEPS
from ichtune.errors import DataError, nearest
from ichtune.labels import LABELS
from ichtune.metrics import label_losses

#: Standard errors of the paired difference that a step must gain before it is applied.
TOLERANCE = 1.0
#: Nats below which a gain is rounding.
MIN_GAIN = 1e-7
#: Patients with a slice that has the label, and with one that has it not, below which no step is applied to it: a
#: standard error from fewer does not know what it has not seen.
MIN_PATIENTS = 10


@dataclass(frozen=True)
class Gain:
    """What one step did to one label, on patients that it was not fitted on.

    Attributes:
        step: its name in the table of steps.
        label: which.
        gain: log loss of the label before the step minus after it, nats a slice; above 0 is better.
        standard_error: of the gain, patients being drawn.
        n_patients: with a slice that has the label or with one that has it not, whichever are fewer.
        applied: whether the label passes through the step.
    """

    step: str
    label: str
    gain: float
    standard_error: float
    n_patients: int
    applied: bool

    @property
    def is_judged(self) -> bool:
        """Whether there were enough patients to tell."""
        return self.n_patients >= MIN_PATIENTS


@dataclass(frozen=True)
class Link:
    """A fitted step and the labels that pass through it; the others go past."""

    step: Step
    labels: tuple[str, ...]

    def predict(self, p_NL: np.ndarray) -> np.ndarray:
        """Return the probabilities after this step, float64 (N, L)."""
        columns = [LABELS.index(label) for label in self.labels]
        changed_NL = p_NL.astype(np.float64)
        changed_NL[:, columns] = self.step.predict(p_NL)[:, columns]
        return changed_NL


@dataclass(frozen=True)
class Chain:
    """Steps in the order in which they are applied.

    Attributes:
        links: those that are applied to some label.
        gains: of every step and label that were tried; known only where the chain was chosen.
    """

    links: tuple[Link, ...] = ()
    gains: tuple[Gain, ...] = ()

    def predict(self, p_NL: np.ndarray) -> np.ndarray:
        """Apply the steps that look at each row alone: float64 (N, L)."""
        return _through([link for link in self.links if not link.step.is_transductive], p_NL)

    def predict_set(self, p_NL: np.ndarray) -> np.ndarray:
        """Apply every step; the rows are one whole set, to which a transductive step adapts."""
        return _through(self.links, p_NL)

    def learned(self) -> list[dict[str, Any]]:
        """Return the applied steps as plain values for JSON."""
        return [
            {"step": link.step.name, "labels": list(link.labels), "learned": link.step.learned()} for link in self.links
        ]


def restore_chain(learned: Any) -> Chain:
    """Return a chain that predicts the same bits as the one of which this is ``learned()``.

    Raises:
        DataError: not what a chain learns.
    """
    if not isinstance(learned, Sequence) or isinstance(learned, str):
        raise DataError(f"post-processing must be a list of steps, got {str(learned)[:60]!r}")
    return Chain(tuple(_restored(one) for one in learned))


def fit_chain(
    names: Sequence[str], unseen: Unseen, y_NL: np.ndarray, patient_N: np.ndarray, tolerance: float = TOLERANCE
) -> Chain:
    """Try steps one after the other on cross-fitted predictions, and fit those that help on all of them.

    A step is cross-fitted by the folds of the predictions and kept for each label whose loss falls by more than
    ``tolerance`` standard errors, if enough patients have the label; the next step starts from what came out. Whoever
    wants to know what the chain is worth makes the choice again without each fold of the score.

    Args:
        names: keys of ``STEPS``, in order; a transductive one last.
        unseen: a blender's predictions of slices that it was not fitted on.
        y_NL: labels of all slices (N, L).
        patient_N: the patient of each slice.
        tolerance: in standard errors of the paired difference, patients being drawn.
    """
    y_RL = np.asarray(y_NL, dtype=np.float64)[unseen.row_R]
    patient_R = np.unique(np.asarray(patient_N)[unseen.row_R], return_inverse=True)[1]
    n_patients_L = _rarer_patients(y_RL, patient_R)
    p_RL, links, gains = unseen.p_RL, [], []
    for name in names:
        changed_RL = _crossfitted(STEPS[name], p_RL, y_RL, unseen.fold_R)
        gain_RL = label_losses(y_RL, p_RL) - label_losses(y_RL, changed_RL)
        tried = [_judge(name, c, gain_RL[:, c], patient_R, n_patients_L[c], tolerance) for c in STEPS[name].changes]
        gains += tried
        columns = [LABELS.index(gain.label) for gain in tried if gain.applied]
        if not columns:
            continue
        links.append(Link(STEPS[name]().fit(p_RL, y_RL), tuple(LABELS[column] for column in columns)))
        p_RL = p_RL.copy()
        p_RL[:, columns] = changed_RL[:, columns]
    return Chain(tuple(links), tuple(gains))


def _crossfitted(make: type[Step], p_RL: np.ndarray, y_RL: np.ndarray, fold_R: np.ndarray) -> np.ndarray:
    def fit_predict(fit_rows: np.ndarray, predict_rows: np.ndarray) -> np.ndarray:
        return make().fit(p_RL[fit_rows], y_RL[fit_rows]).predict(p_RL[predict_rows])

    return crossfit(fit_predict, fold_R, y_RL.shape[1])


def _judge(
    name: str, column: int, gain_R: np.ndarray, patient_R: np.ndarray, n_patients: int, tolerance: float
) -> Gain:
    gain = float(gain_R.mean())
    error = standard_error(gain_R, np.full(len(gain_R), 1.0 / len(gain_R)), patient_R)
    applied = n_patients >= MIN_PATIENTS and gain > max(tolerance * error, MIN_GAIN)
    return Gain(name, LABELS[column], gain, error, n_patients, applied)


def _rarer_patients(y_RL: np.ndarray, patient_R: np.ndarray) -> list[int]:
    """Count for each label the patients with a positive slice, or with a negative one, whichever are fewer."""
    return [min(len(np.unique(patient_R[y_R == answer])) for answer in (False, True)) for y_R in (y_RL > 0.5).T]


def _through(links: Sequence[Link], p_NL: np.ndarray) -> np.ndarray:
    for link in links:
        p_NL = link.predict(p_NL)
    return p_NL


def _restored(told: Any) -> Link:
    try:
        name, labels, learned = told["step"], tuple(told["labels"]), told["learned"]
    except (LookupError, TypeError) as error:
        raise DataError(f"a step must name its step, labels and learned, got {str(told)[:60]!r}") from error
    if not isinstance(name, str) or name not in STEPS:
        raise DataError(f"unknown post-processing step {name!r}. {nearest(str(name), STEPS)}")
    allowed = [LABELS[column] for column in STEPS[name].changes]
    if not labels or not set(labels) <= set(allowed) or not isinstance(learned, Mapping):
        raise DataError(f"the step {name} can change {allowed} and must hold what it learned, got {list(labels)}")
    return Link(STEPS[name]().restore(learned), labels)
