"""The blender that chooses a blender: each is scored on patients that it did not see, and the simplest good one wins.

Dimension key: M members, N slices, L labels, C candidates, P patients.
"""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import partial
from typing import Any, ClassVar, Self

import numpy as np

from ichtune.ensemble.blenders.base import Blender, check_fit, check_members
from ichtune.ensemble.blenders.numbers import check_between, check_whole
from ichtune.ensemble.blenders.weighted_mean import identical_members
from ichtune.ensemble.crossfit import Unseen, crossfit_blender
from ichtune.errors import DataError
from ichtune.metrics import slice_losses

#: What is tried, from what learns least to what learns most: a later one has to earn its place. Greedy selection is not
#: among them: it approaches the optimum that convex weights reach, and takes far longer.
CANDIDATES: tuple[tuple[str, Mapping[str, Any]], ...] = (
    ("equal_mean_logit", {}),
    ("equal_mean", {}),
    ("best_member", {}),
    ("power_mean", {}),
    ("logit_scaling", {"shrinkage": 1.0}),
    ("convex", {"space": "logit", "weights": "shared", "shrinkage": 0.5}),
    ("convex", {"space": "logit", "weights": "shared"}),
    ("convex", {"space": "probability", "weights": "shared"}),
    ("convex", {"space": "logit", "weights": "per_label", "towards_shared": 0.5}),
    ("logit_scaling", {}),
    ("logistic_stacking", {"l2": 1.0}),
    ("logistic_stacking", {"l2": 1e-1}),
    ("logistic_stacking", {"l2": 1e-2}),
)


@dataclass(frozen=True)
class Tried:
    """A candidate and what it came to on patients that it was not fitted on.

    Attributes:
        blender: its name in the table of blenders.
        parameters: its settings.
        loss: cross-fitted weighted log loss, nats.
        behind: loss beyond that of the best candidate, nats.
        standard_error: of ``behind``, patients being drawn; 0 for the best one.
        chosen: whether it was.
    """

    blender: str
    parameters: dict[str, Any]
    loss: float
    behind: float
    standard_error: float
    chosen: bool = False

    @property
    def title(self) -> str:
        """One line for people: ``convex: space logit, weights shared``."""
        settings = ", ".join(f"{key} {value}" for key, value in self.parameters.items())
        return f"{self.blender}: {settings}".removesuffix(": ").replace("_", " ")


@dataclass
class Auto(Blender):
    """The first candidate that is no more than ``tolerance`` standard errors behind the best one.

    Identical members count as one, whatever a candidate would make of them.

    Attributes:
        folds: groups of patients between which candidates are cross-fitted.
        tolerance: in standard errors of the paired difference; 0 takes the best.
        max_rows: slices, in whole patients, that the choice is made on; what was chosen is fitted on all.
        tried_: after ``fit``, every candidate.
        chosen_: after ``fit``, the fitted blender.
        n_members_: after ``fit``, how many members there were.
        distinct_: after ``fit``, those without duplicates, by number.
        judged_: after ``fit``, the loss of each slice that the choice was made on under each candidate (R, C), and the
            patients of these slices (R,); no part of what is learned.
        unseen_: after ``fit``, the chosen candidate's predictions of the slices that the choice was made on, each from
            a fit without its patient; no part of what is learned.

    Source: Breiman et al., Classification and Regression Trees, 1984, section 3.4.3 (the one-standard-error rule);
        here of paired differences, which are far surer than losses.
    """

    is_mean: ClassVar[bool] = False

    folds: int = 5
    tolerance: float = 1.0
    max_rows: int = 100_000
    tried_: "tuple[Tried, ...]" = field(default=(), init=False)
    chosen_: Blender | None = field(default=None, init=False)
    n_members_: int = field(default=0, init=False)
    distinct_: "tuple[int, ...]" = field(default=(), init=False)
    judged_: "tuple[np.ndarray, np.ndarray] | None" = field(default=None, init=False)
    unseen_: Unseen | None = field(default=None, init=False)

    def __post_init__(self) -> None:
        for key, least in (("folds", 2), ("max_rows", 1)):
            check_whole("auto", key, getattr(self, key), least)
        check_between("auto", "tolerance", self.tolerance, 0.0, 10.0)

    def fit(
        self,
        p_MNL: np.ndarray,
        y_NL: np.ndarray,
        weight_N: np.ndarray | None = None,
        group_N: np.ndarray | None = None,
    ) -> Self:
        """Choose by cross-fitting, and fit what was chosen; see ``Blender.fit``.

        Raises:
            DataError: no ``group_N``, or fewer than two patients: nothing can be scored on others then.
        """
        row_weight_N = check_fit(p_MNL, y_NL, weight_N)
        if group_N is None or len(group_N) != len(y_NL):
            raise DataError("the blender auto scores candidates by patient: give fit the patient of each slice")
        rows, fold_R = choice_rows(np.asarray(group_N), row_weight_N, self.folds, self.max_rows)
        groups = identical_members(p_MNL)
        self.n_members_, self.distinct_ = len(p_MNL), tuple(group[0] for group in groups)
        p_GRL, y_RL, weight_R = p_MNL[np.ix_(np.array(self.distinct_), rows)], y_NL[rows], row_weight_N[rows]
        p_CRL = [
            crossfit_blender(partial(_create, name, parameters), p_GRL, y_RL, fold_R, weight_R)
            for name, parameters in CANDIDATES
        ]
        losses_CR = np.stack([slice_losses(y_RL, p_RL) for p_RL in p_CRL])
        self.judged_ = losses_CR.T, np.asarray(group_N)[rows]
        self.tried_ = self._judge(losses_CR, weight_R, self.judged_[1])
        number, chosen = next((c, tried) for c, tried in enumerate(self.tried_) if tried.chosen)
        self.unseen_ = Unseen(rows, fold_R, p_CRL[number])
        self.chosen_ = _create(chosen.blender, chosen.parameters).fit(self._distinct(p_MNL), y_NL, weight_N)
        weights_GL = self.chosen_.weights_
        self.weights_ = None if weights_GL is None else np.zeros((len(p_MNL), weights_GL.shape[1]))
        if self.weights_ is not None and weights_GL is not None:
            for group, weight_L in zip(groups, weights_GL, strict=True):
                self.weights_[group] = weight_L / len(group)
        return self

    def _distinct(self, p_MNL: np.ndarray) -> np.ndarray:
        return p_MNL if len(self.distinct_) == self.n_members_ else p_MNL[list(self.distinct_)]

    def _judge(self, losses_CR: np.ndarray, weight_R: np.ndarray, group_R: np.ndarray) -> tuple[Tried, ...]:
        weight_R = weight_R / weight_R.sum()
        losses_C = losses_CR @ weight_R
        best = int(losses_C.argmin())
        behind_C = losses_C - losses_C[best]
        patient_R = np.unique(group_R, return_inverse=True)[1]
        errors_C = np.array([standard_error(losses_R - losses_CR[best], weight_R, patient_R) for losses_R in losses_CR])
        chosen = int(np.flatnonzero(behind_C <= self.tolerance * errors_C)[0])
        return tuple(
            Tried(name, dict(parameters), float(loss), float(behind), float(error), chosen=c == chosen)
            for c, ((name, parameters), loss, behind, error) in enumerate(
                zip(CANDIDATES, losses_C, behind_C, errors_C, strict=True)
            )
        )

    def predict(self, p_MNL: np.ndarray) -> np.ndarray:
        """See ``Blender.predict``."""
        if self.chosen_ is None:
            raise DataError("auto has chosen no blender yet: call fit before predict")
        check_members(p_MNL, self.n_members_)
        return self.chosen_.predict(self._distinct(p_MNL))

    def learned(self) -> dict[str, Any]:
        """See ``Blender.learned``."""
        if self.chosen_ is None:
            return super().learned()
        return {
            **super().learned(),
            "n_members": self.n_members_,
            "distinct": list(self.distinct_),
            "tried": [asdict(tried) for tried in self.tried_],
            "chosen": self.chosen_.learned(),
        }

    def live(self) -> np.ndarray | None:
        """See ``Blender.live``: what the chosen one needs, and of duplicates the first."""
        if self.chosen_ is None:
            return None
        live, distinct = self.chosen_.live(), np.array(self.distinct_)
        return distinct if live is None else distinct[live]

    def learned_of(self, members: Sequence[int]) -> dict[str, Any]:
        """See ``Blender.learned_of``."""
        if self.chosen_ is None:
            return super().learned_of(members)
        told = self.chosen_.learned_of([self.distinct_.index(member) for member in members])
        kept = {"weights_": told["weights_"], "n_members": len(members), "distinct": [*range(len(members))]}
        return {**self.learned(), **kept, "chosen": told}

    def restore(self, learned: Mapping[str, Any]) -> Self:
        """See ``Blender.restore``."""
        try:
            self.tried_ = tuple(Tried(**tried) for tried in learned["tried"])
            (chosen,) = [tried for tried in self.tried_ if tried.chosen]
            told = learned["chosen"]
            self.n_members_ = int(learned["n_members"])
            self.distinct_ = tuple(int(m) for m in learned["distinct"])
        except (LookupError, TypeError, ValueError) as error:
            raise DataError(f"what the blender auto has learned must name what it chose ({error!r})") from error
        if chosen.blender == "auto" or not isinstance(told, Mapping):
            raise DataError("what the blender auto has learned must hold what its choice learned")
        self.chosen_ = _create(chosen.blender, chosen.parameters).restore(told)
        return super().restore(learned)


def choice_rows(
    group_N: np.ndarray, weight_N: np.ndarray, n_folds: int, max_rows: int
) -> tuple[np.ndarray, np.ndarray]:
    """Return the rows of whole patients that a choice is made on, and the fold of each of them.

    Patients are dealt to the folds in turn, in the order of a hash of their names, so that the order of rows does not
    matter; one patient more or less moves those behind it. Rows without weight take no part.

    Raises:
        DataError: fewer than two patients.
    """
    rows_N = np.flatnonzero(weight_N > 0)
    patients_P, code_R, n_slices_P = np.unique(group_N[rows_N].astype(str), return_inverse=True, return_counts=True)
    if len(patients_P) < 2:
        raise DataError(
            f"choosing a blender needs slices of at least two patients, got {len(patients_P)}: one part of them is "
            "fitted on and the other scored, and where a fold is held out its patients are missing here; "
            "take `--ensemble mean`, which learns nothing, or label more patients"
        )
    order_P = np.argsort([hashlib.blake2b(name.encode(), digest_size=8).hexdigest() for name in patients_P])
    n_before_P = np.cumsum(n_slices_P[order_P]) - n_slices_P[order_P]
    n_taken = max(2, int((n_before_P < max_rows).sum()))
    fold_P = np.full(len(patients_P), -1)
    fold_P[order_P[:n_taken]] = np.arange(n_taken) % n_folds
    taken_R = fold_P[code_R] >= 0
    return rows_N[taken_R], fold_P[code_R][taken_R]


def standard_error(difference_N: np.ndarray, weight_N: np.ndarray, patient_N: np.ndarray) -> float:
    """Return the standard error of a weighted mean difference, patients being drawn and not slices.

    Args:
        difference_N: loss of one candidate minus that of another, on the same slices.
        weight_N: summing to one.
        patient_N: number of each slice's patient, from 0.

    Source: Cochran, Sampling Techniques, 3rd edition, section 6.4 (a ratio of sums over clusters).
    """
    mean = float(weight_N @ difference_N)
    residual_P = np.bincount(patient_N, weights=weight_N * (difference_N - mean))
    n_patients = len(residual_P)
    return float(np.sqrt(n_patients / max(n_patients - 1, 1) * (residual_P**2).sum()))


def _create(name: str, parameters: Mapping[str, Any]) -> Blender:
    from ichtune.ensemble.blenders.table import create_blender  # which lists this module

    return create_blender(name, parameters)
