"""Paired comparisons of all that a blend had to choose from: the ways to blend, and its members.

Dimension key: N slices, M members, R slices that a choice was made on, C candidates.
"""

from dataclasses import dataclass

import numpy as np

from ichtune.ensemble.blenders.auto import Auto
from ichtune.ensemble.blenders.base import Blender
from ichtune.ensemble.ladder import BEST_SINGLE
from ichtune.ensemble.scores.bootstrap import Interval
from ichtune.ensemble.scores.differences import differences_to_reference
from ichtune.ensemble.scores.optimism import Optimism, expected_optimism

#: The choice of a way to blend; that of a member is called as its rung is.
WAY = "blender"


@dataclass(frozen=True)
class Compared:
    """A candidate's loss minus that of what it is compared with, on the same drawn patients; nats, below 0 is better.

    Attributes:
        name: of the candidate.
        loss: its own, on patients that it was not fitted on.
        alone: the difference with the interval that holds for this candidate, had it been the only one.
        together: the same with an interval that holds for all candidates at once.
    """

    name: str
    loss: float
    alone: Interval
    together: Interval


def member_losses(
    losses_MN: np.ndarray, names: list[str], blend_N: np.ndarray, patient_N: np.ndarray
) -> list[Compared]:
    """Compare each member with the blend, both on slices of patients that they did not see.

    Args:
        losses_MN: loss of each member and slice (M, N).
        names: of the members.
        blend_N: cross-fitted loss of the blend.
        patient_N: the patient of each slice.
    """
    return _compared(losses_MN.T, names, blend_N, patient_N)


def ways_tried(blender: Blender) -> list[Compared]:
    """Compare each way to blend that was tried with the first, the simplest one; empty where nothing was chosen.

    Which one is the first was known beforehand. Against the chosen one, which these losses chose, no interval holds.
    """
    if not isinstance(blender, Auto) or blender.judged_ is None:
        return []
    losses_RC, patient_R = blender.judged_
    return _compared(losses_RC, [tried.title for tried in blender.tried_], losses_RC[:, 0], patient_R)


def choices(blender: Blender, losses_MN: np.ndarray, patient_N: np.ndarray) -> dict[str, Optimism]:
    """Return how much of the lead of what was chosen for being best is luck, by the name of the choice.

    None is told of a choice among one, or among the slices of a single patient.
    """
    found: dict[str, Optimism] = {}
    if len(np.unique(patient_N)) < 2:
        return found
    if len(losses_MN) > 1:
        found[BEST_SINGLE] = expected_optimism(losses_MN.T, patient_N)
    if isinstance(blender, Auto) and blender.judged_ is not None:
        found[WAY] = expected_optimism(*blender.judged_, tolerance=blender.tolerance)
    return found


def _compared(loss_NC: np.ndarray, names: list[str], reference_N: np.ndarray, patient_N: np.ndarray) -> list[Compared]:
    differences = differences_to_reference(loss_NC, reference_N, patient_N)
    return [
        Compared(name, float(loss), one.alone, one.together)
        for name, loss, one in zip(names, loss_NC.mean(axis=0), differences, strict=True)
    ]
