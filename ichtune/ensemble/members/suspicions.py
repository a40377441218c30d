"""Leak suspicion: members whose out-of-fold predictions are too good to have been made without the labels.

Whoever is suspected still takes part: only a person knows how the predictions were made.

Dimension key: M members, N slices, R slices that are looked at, L labels.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from ichtune.ensemble.blenders.auto import choice_rows
from ichtune.ensemble.blenders.logits import to_logits
from ichtune.ensemble.members.fold_gains import FoldGain, find_fold_gains
from ichtune.ensemble.members.sure_and_right import MAX_LOGIT, SureAndRight, medians_of_others, sure_and_right

#: Bound on the chance that a panel of honest members is suspected of single rows; shared by its members. The bound is
#: a wide one: of 1,200 generated honest panels none was.
FALSE_ALARMS = 0.05
#: Slices, in whole patients, on which single rows are looked for.
MAX_ROWS = 50_000
#: Slices that are named.
N_NAMED = 5
ROWS, FOLD = "rows", "fold"


@dataclass(frozen=True)
class Suspicion:
    """One member, and why it is suspected of having seen labels that it predicts.

    Attributes:
        recipe_id: of the member.
        kind: ``rows`` (sure and right about single slices where the others are not) or ``fold`` (one fold is predicted
            better than the others, which no other member does).
        log_odds: against an honest member, nats.
        n_patients: whose slices say so.
        fold: the one that is predicted too well; None for single rows.
        image_ids: some slices to look at; none for a fold.
    """

    recipe_id: str
    kind: str
    log_odds: float
    n_patients: int
    fold: int | None = None
    image_ids: tuple[str, ...] = ()

    def text(self, names: Mapping[str, str]) -> str:
        """One line for people."""
        name = names.get(self.recipe_id, self.recipe_id)
        odds = f"odds of 1 : {10 ** min(self.log_odds / math.log(10.0), 99.0):.0e} for an honest member"
        if self.kind == FOLD:
            seen = f"predicts fold {self.fold} far better than the other folds, which the other members do not ({odds})"
        else:
            seen = (
                f"is sure and right about slices of {self.n_patients} patients on which the others are not, more than "
                f"its predictions elsewhere imply ({odds}); look at {', '.join(self.image_ids)}"
            )
        return (
            f"leak suspected: {name} ({self.recipe_id}) {seen}. Was it trained on them? It still takes part; "
            "to leave it out, list the other runs under `members`"
        )


def find_suspicions(
    recipe_ids: Sequence[str],
    p_MNL: np.ndarray,
    y_NL: np.ndarray,
    patient_N: np.ndarray,
    fold_N: np.ndarray,
    image_ids: np.ndarray,
) -> tuple[Suspicion, ...]:
    """Return every suspicion, in the order of the members; those of folds first.

    What can be seen is limited: a member that knows all labels is a very good member, and leaked rows on which every
    member is right anyway leave no trace.

    Args:
        recipe_ids: the M members.
        p_MNL: out-of-fold probabilities (M, N, L).
        y_NL: labels (N, L).
        patient_N: the patient of each slice.
        fold_N: the fold of each slice.
        image_ids: the slices' names (N,).
    """
    of_patient_N = np.unique(patient_N.astype(str), return_inverse=True)[1]
    gains = find_fold_gains(p_MNL, y_NL, of_patient_N, fold_N)
    rows = _looked_at(patient_N)
    surprises = _surprises(p_MNL[:, rows], y_NL[rows], np.unique(of_patient_N[rows], return_inverse=True)[1])
    return (
        *(_of_fold(recipe_ids[gain.member], gain) for gain in gains),
        *(_of_rows(recipe_ids[m], found, image_ids[rows]) for m, found in surprises.items()),
    )


def _looked_at(patient_N: np.ndarray) -> np.ndarray:
    if len(patient_N) <= MAX_ROWS:
        return np.arange(len(patient_N))
    return choice_rows(patient_N, np.ones(len(patient_N)), 2, MAX_ROWS)[0]


def _surprises(p_MRL: np.ndarray, y_RL: np.ndarray, patient_R: np.ndarray) -> dict[int, SureAndRight]:
    """Return what is beyond chance in the members' sureness, by the row of the member."""
    n_members = len(p_MRL)
    if n_members < 2:
        return {}
    z_MRL = np.stack([np.clip(to_logits(p_RL), -MAX_LOGIT, MAX_LOGIT).astype(np.float32) for p_RL in p_MRL])
    enough = math.log(n_members / FALSE_ALARMS)
    found = {}
    for m, others_RL in enumerate(medians_of_others(z_MRL)):
        surprise = sure_and_right(z_MRL[m].astype(np.float64), others_RL, y_RL, patient_R)
        if surprise.log_odds > enough:
            found[m] = surprise
    return found


def _of_fold(recipe_id: str, gain: FoldGain) -> Suspicion:
    return Suspicion(recipe_id, FOLD, gain.log_odds, gain.n_patients, gain.fold)


def _of_rows(recipe_id: str, found: SureAndRight, image_ids: np.ndarray) -> Suspicion:
    named = tuple(str(image_id) for image_id in image_ids[found.rows[:N_NAMED]])
    return Suspicion(recipe_id, ROWS, found.log_odds, found.n_patients, None, named)
