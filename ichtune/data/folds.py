"""Patient-grouped folds, balanced over the six labels, the rarest first."""

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pandas as pd

from ichtune.data.fold_balance import deal, even_out, even_out_again
from ichtune.data.patient_groups import patient_groups
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
        n_linked_groups: groups of two or more patients that share a study, a series or identical pixels, and
            therefore a fold.
        plan_hash: equal if and only if k and every patient's fold are equal.
    """

    k: int
    seed: int
    fold_of: Mapping[str, int]
    n_linked_groups: int = 0
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

    All slices of a patient go together, over labelled and unlabelled ones alike, and so do patients that share a
    study, a series or identical pixels (``patient_groups``). Groups are dealt in the order of the rarest label that
    they have, those with most slices of it first; each goes where the squared deviation from equal shares grows
    least, summed over the labels, each in proportion to its own count, and the number of slices. What that leaves
    uneven is evened out by exchanging groups.

    Args:
        slices: a SliceTable; its ``ok`` rows count.
        k: number of folds.
        seed: breaks ties; the same slices, k and seed give the same plan.

    Raises:
        ConfigError: k below 2, or above the number of groups of patients with labels.

    Source: iterative stratification (Sechidis et al. 2011) with groups.
    """
    _check_k(k)
    usable = slices[slices["status"] == "ok"]
    group_of = patient_groups(usable)
    counts = _counts_by_group(usable, group_of)
    n_labelled = int((counts["labelled"] > 0).sum())
    if 0 < n_labelled < k:
        raise ConfigError(
            f"{k} folds need at least {k} patients with labels, got {n_labelled}"
            + (" (linked patients count as one)" if len(counts) < len(group_of) else "")
            + (f"; use --folds {n_labelled} or fewer" if n_labelled >= 2 else "; one patient cannot be split")
        )
    order = _dealing_order(counts, seed)
    shares = _shares(counts.iloc[order])
    fold_of_group = np.empty(len(counts), dtype=np.int64)
    fold_of_group[order] = even_out_again(shares, even_out(shares, deal(shares, k), k), k)
    folds = fold_of_group[group_of.to_numpy()]
    n_linked_groups = int((np.bincount(group_of.to_numpy(), minlength=1) > 1).sum())
    return FoldPlan(k, seed, dict(zip(group_of.index.tolist(), folds.tolist(), strict=True)), n_linked_groups)


def n_labelled_groups(slices: pd.DataFrame) -> int:
    """Return how many folds the labels allow: groups of linked patients of which at least one slice is labelled."""
    usable = slices[slices["status"] == "ok"]
    labelled = usable.loc[usable["is_labelled"].astype(bool), "patient_id"].unique()
    return int(patient_groups(usable)[labelled].nunique())


def fold_rates(slices: pd.DataFrame, plan: FoldPlan) -> pd.DataFrame:
    """Return how evenly a plan divides the slices.

    Args:
        slices: a SliceTable; its ``ok`` rows count.

    Returns:
        One row a fold, indexed by ``fold``: n_patients, n (labelled slices), n_unlabelled, and of each label the
        share of the labelled slices that have it, 0 to 1; NaN in a fold without labelled slices.
    """
    usable = slices[slices["status"] == "ok"]
    return rates_by_fold(usable, plan.folds_for(usable["patient_id"]), plan.k)


def rates_by_fold(usable: pd.DataFrame, fold: np.ndarray, k: int) -> pd.DataFrame:
    """Return the same for slices whose folds are given: int64 (n,), negative for slices in no fold."""
    folds = pd.RangeIndex(k, name="fold")
    is_labelled = usable["is_labelled"].to_numpy(bool) & (fold >= 0)
    frame = pd.DataFrame({"fold": fold, "patient_id": usable["patient_id"].to_numpy(object)})[fold >= 0]
    table = pd.DataFrame({"n_patients": frame.groupby("fold")["patient_id"].nunique()}).reindex(folds, fill_value=0)
    table["n"] = np.bincount(fold[is_labelled], minlength=k)
    table["n_unlabelled"] = np.bincount(fold[(fold >= 0) & ~is_labelled], minlength=k)
    rates = usable.loc[is_labelled, list(LABELS)].astype("float64").groupby(fold[is_labelled]).mean()
    return table.join(rates)


def rate_deviation(rates: pd.DataFrame) -> pd.Series:
    """Return how far the folds are apart in each label.

    Args:
        rates: what ``fold_rates`` returned.

    Returns:
        By label the largest relative deviation of a fold's rate from the rate over all folds, 0 when all are equal;
        NaN for a label that no slice has.
    """
    labels = rates[list(LABELS)]
    whole = labels.mul(rates["n"], axis=0).sum() / max(int(rates["n"].sum()), 1)
    return (labels / whole.where(whole > 0) - 1).abs().max()


def write_folds(plan: FoldPlan, path: Path) -> None:
    """Write a plan as parquet, with k, seed, hash and number of linked groups in its metadata."""
    frame = pd.DataFrame({"patient_id": list(plan.fold_of), "fold": list(plan.fold_of.values())})
    inputs = {"k": plan.k, "seed": plan.seed, "plan_hash": plan.plan_hash, "n_linked_groups": plan.n_linked_groups}
    write_table(frame, path, FOLDS, inputs=inputs)


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
    fold_of = dict(zip(frame["patient_id"].tolist(), frame["fold"].tolist(), strict=True))
    plan = FoldPlan(k, seed, fold_of, int(about.get("n_linked_groups", 0)))
    if plan.plan_hash != noted:
        raise DataError(
            f"{path} was changed: plan_hash {plan.plan_hash}, expected {noted}; run `ichtune prepare` again"
        )
    return plan


def _check_k(k: int) -> None:
    if k < 2:
        raise ConfigError(f"the number of folds must be at least 2, got {k}; write --folds 5")


def _counts_by_group(usable: pd.DataFrame, group_of: pd.Series) -> pd.DataFrame:
    """Slices with each label, labelled and unlabelled slices of every group, in order of group."""
    is_labelled = usable["is_labelled"].to_numpy(bool)
    group = group_of.reindex(usable["patient_id"].to_numpy(object)).to_numpy()
    values = {label: np.where(is_labelled, np.nan_to_num(usable[label].to_numpy(float)), 0.0) for label in LABELS}
    columns = {**values, "labelled": is_labelled.astype(float), "unlabelled": (~is_labelled).astype(float)}
    return pd.DataFrame({name: np.bincount(group, value) for name, value in columns.items()})


def _dealing_order(counts: pd.DataFrame, seed: int) -> np.ndarray:
    """Groups by the rarest label they have, then by how many slices of it and in all; ties by seed."""
    n_of = counts[list(LABELS)].to_numpy()
    rarest_first = np.argsort(n_of.sum(axis=0), kind="stable")
    has = np.c_[n_of[:, rarest_first] > 0, np.ones(len(counts), bool)]
    first = has.argmax(axis=1)
    of_rarest = np.c_[n_of[:, rarest_first], np.zeros(len(counts))][np.arange(len(counts)), first]
    tie = np.random.default_rng(seed).permutation(len(counts))
    return np.lexsort((tie, -counts["unlabelled"], -counts["labelled"], -of_rarest, first))


def _shares(counts: pd.DataFrame) -> np.ndarray:
    """Each group's share of every label and of the slices, weighted; (groups, 8)."""
    values = counts.to_numpy(float)
    totals = np.maximum(values.sum(axis=0), 1.0)
    weights = np.array([1.0] * len(LABELS) + [_SIZE_WEIGHT, _SIZE_WEIGHT])
    return values / totals * np.sqrt(weights)
