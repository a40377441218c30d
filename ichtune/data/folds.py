"""Patient-grouped folds, balanced over the six labels, the rarest first."""

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pandas as pd

from ichtune.errors import ConfigError, DataError
from ichtune.labels import LABELS
from ichtune.tables import FOLDS, read_table, table_about, write_table

_HASH_DIGITS = 16
#: Weight of equal fold sizes beside equal label counts.
_SIZE_WEIGHT = 0.5


@dataclass(frozen=True)
class FoldPlan:
    """One fold for every patient, labelled or not.

    Attributes:
        k: number of folds.
        seed: what ties were broken by.
        fold_of: fold of each patient, 0 to k - 1.
        plan_hash: equal if and only if k and every patient's fold are equal.
    """

    k: int
    seed: int
    fold_of: Mapping[str, int]
    plan_hash: str = field(init=False)

    def __post_init__(self) -> None:
        _check_k(self.k)
        wrong = [patient for patient, fold in self.fold_of.items() if not 0 <= fold < self.k]
        if wrong:
            raise DataError(f"folds must be 0 to {self.k - 1}, got {self.fold_of[wrong[0]]} for patient {wrong[0]!r}")
        lines = "".join(f"{patient}\0{fold}\n" for patient, fold in sorted(self.fold_of.items()))
        digest = hashlib.sha256(f"k={self.k}\n{lines}".encode()).hexdigest()
        object.__setattr__(self, "plan_hash", digest[:_HASH_DIGITS])

    def folds_for(self, patient_ids: Iterable[str]) -> np.ndarray:
        """Return the fold of each patient.

        Returns:
            int64 (n,), 0 to k - 1.

        Raises:
            DataError: a patient that the plan does not know.
        """
        folds = pd.Series(patient_ids, dtype=object).map(self.fold_of)
        if folds.isna().any():
            unknown = pd.Series(patient_ids, dtype=object)[folds.isna()].iloc[0]
            raise DataError(f"the fold plan knows no patient {unknown!r}; run `ichtune prepare` again")
        return folds.to_numpy(np.int64)


def make_folds(slices: pd.DataFrame, k: int, seed: int) -> FoldPlan:
    """Deal patients out to folds so that every fold has nearly the same share of each label.

    All slices of a patient go together, over labelled and unlabelled ones alike. Patients are dealt in the
    order of the rarest label that they have, those with most slices of it first; each goes where the squared
    deviation from equal shares grows least, summed over the labels, each in proportion to its own count, and
    the number of slices.

    Args:
        slices: a SliceTable; its ``ok`` rows count.
        k: number of folds.
        seed: breaks ties; the same slices, k and seed give the same plan.

    Raises:
        ConfigError: k below 2, or above the number of patients with labels.

    Source: iterative stratification (Sechidis et al. 2011) with groups.
    """
    _check_k(k)
    usable = slices[slices["status"] == "ok"]
    counts = _counts_by_patient(usable)
    n_labelled = int((counts["labelled"] > 0).sum())
    if 0 < n_labelled < k:
        raise ConfigError(
            f"{k} folds need at least {k} patients with labels, got {n_labelled}; "
            + (f"use --folds {n_labelled} or fewer" if n_labelled >= 2 else "one patient cannot be split")
        )
    order = _dealing_order(counts, seed)
    folds = _deal(_shares(counts.iloc[order]), k)
    patients = counts.index.to_numpy()[order]
    return FoldPlan(k, seed, dict(sorted(zip(patients.tolist(), folds.tolist(), strict=True))))


def write_folds(plan: FoldPlan, path: Path) -> None:
    """Write a plan as parquet, with k, seed and hash in its metadata."""
    frame = pd.DataFrame({"patient_id": list(plan.fold_of), "fold": list(plan.fold_of.values())})
    write_table(frame, path, FOLDS, inputs={"k": plan.k, "seed": plan.seed, "plan_hash": plan.plan_hash})


def read_folds(path: Path) -> FoldPlan:
    """Read a plan.

    Raises:
        DataError: no such file, or its rows are not those that its hash was made from.
    """
    frame = read_table(path, FOLDS)
    about = table_about(path).get("inputs", {})
    try:
        k, seed, noted = int(about["k"]), int(about["seed"]), str(about["plan_hash"])
    except (KeyError, TypeError, ValueError) as error:
        raise DataError(f"{path} does not say k, seed and plan_hash; run `ichtune prepare` again") from error
    plan = FoldPlan(k, seed, dict(zip(frame["patient_id"].tolist(), frame["fold"].tolist(), strict=True)))
    if plan.plan_hash != noted:
        raise DataError(
            f"{path} was changed: plan_hash {plan.plan_hash}, expected {noted}; run `ichtune prepare` again"
        )
    return plan


def _check_k(k: int) -> None:
    if k < 2:
        raise ConfigError(f"the number of folds must be at least 2, got {k}; write --folds 5")


def _counts_by_patient(usable: pd.DataFrame) -> pd.DataFrame:
    """Slices with each label, labelled and unlabelled slices of every patient, in order of patient_id."""
    is_labelled = usable["is_labelled"].to_numpy(bool)
    values = {label: np.where(is_labelled, np.nan_to_num(usable[label].to_numpy(float)), 0.0) for label in LABELS}
    frame = pd.DataFrame({**values, "labelled": is_labelled.astype(float), "unlabelled": (~is_labelled).astype(float)})
    return frame.groupby(usable["patient_id"].to_numpy().astype(object), sort=True).sum()


def _dealing_order(counts: pd.DataFrame, seed: int) -> np.ndarray:
    """Patients by the rarest label they have, then by how many slices of it and in all; ties by seed."""
    n_of = counts[list(LABELS)].to_numpy()
    rarest_first = np.argsort(n_of.sum(axis=0), kind="stable")
    has = np.c_[n_of[:, rarest_first] > 0, np.ones(len(counts), bool)]
    first = has.argmax(axis=1)
    of_rarest = np.c_[n_of[:, rarest_first], np.zeros(len(counts))][np.arange(len(counts)), first]
    tie = np.random.default_rng(seed).permutation(len(counts))
    return np.lexsort((tie, -counts["unlabelled"], -counts["labelled"], -of_rarest, first))


def _shares(counts: pd.DataFrame) -> np.ndarray:
    """Each patient's share of every label and of the slices, weighted; (patients, 8)."""
    values = counts.to_numpy(float)
    totals = np.maximum(values.sum(axis=0), 1.0)
    weights = np.array([1.0] * len(LABELS) + [_SIZE_WEIGHT, _SIZE_WEIGHT])
    return values / totals * np.sqrt(weights)


def _deal(shares: np.ndarray, k: int) -> np.ndarray:
    """Give each patient, in order, to the fold where the sum of squared shares grows least."""
    held = np.zeros((k, shares.shape[1]))
    folds = np.empty(len(shares), dtype=np.int64)
    for row, share in enumerate(shares):
        # (held + share)**2 - held**2 differs between folds only by 2 * held * share
        fold = int(np.argmin(held @ share))
        folds[row] = fold
        held[fold] += share
    return folds
