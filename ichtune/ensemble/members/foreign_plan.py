"""On which folds were foreign predictions made? Only those made on the workspace's own folds can be blended.

A model of another plan has learnt from patients whom this workspace holds out: in a blend its out-of-fold predictions
would be weighed by what it remembers.

Dimension key: R rows of a foreign table.
"""

import re
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from ichtune.ensemble.members.foreign_tables import ForeignTable, folds_of, names_of, read_columns
from ichtune.errors import ConfigError, ConflictError, DataError
from ichtune.workspace import Workspace

#: What a person writes who vouches that the folds are the workspace's.
THIS = "this"
_HASH = re.compile(r"[0-9a-f]{16}")
_WHY = (
    "its models have learnt from patients who are held out here, so that a blend would be weighed by what they "
    "remember; train again on the folds of this workspace (folds.parquet), or leave it out"
)


@dataclass(frozen=True)
class Vouched:
    """How it is known that the folds are the workspace's.

    Attributes:
        how: ``hash``, ``this`` or ``patients`` (a table of patients and folds).
        own_fold: the workspace's number of each fold by what it is called there; None where numbers are not known.
        note: for the user; empty where there is nothing to say.
    """

    how: str
    own_fold: dict[str, int] | None = None
    note: str = ""


def vouched_plan(workspace: Workspace, named: str) -> Vouched:
    """Check the plan that a person names against the workspace's.

    Args:
        workspace: with its fold plan.
        named: the plan's hash, ``this``, or a CSV or parquet table ``patient_id, fold``.

    Raises:
        ConfigError: none of the three.
        ConflictError: another plan.
        DataError: a table that does not list every patient of the workspace once.
    """
    own_hash = workspace.fold_plan.plan_hash
    if named == THIS:
        return Vouched(THIS)
    if Path(named).is_file():
        return _of_patients(workspace, Path(named))
    if named.lower() == own_hash:
        return Vouched("hash")
    if _HASH.fullmatch(named.lower()):
        raise ConflictError(f"fold plan {named} is not this workspace's, which is {own_hash}: {_WHY}")
    raise ConfigError(
        f"--fold-plan must be the hash of the plan ({own_hash} here), `{THIS}` if you vouch that the folds are the "
        f"workspace's, or a CSV or parquet file with patient_id and fold; got {named!r}"
    )


def check_recorded_plan(workspace: Workspace, table: ForeignTable) -> None:
    """Refuse a table in which an ichtune recorded another plan, whatever its user says.

    Raises:
        ConflictError: it did.
    """
    own_hash = workspace.fold_plan.plan_hash
    if table.plan_hash and table.plan_hash != own_hash:
        raise ConflictError(
            f"{table.path} was made on fold plan {table.plan_hash}, as the file itself says, but this workspace's is "
            f"{own_hash}: {_WHY}"
        )


def own_folds(table: ForeignTable, own_R: np.ndarray, vouched: Vouched) -> dict[str, int]:
    """Check a table's fold column slice by slice; the folds may be numbered otherwise, or have names.

    Args:
        table: out-of-fold predictions with a column ``fold``.
        own_R: the workspace's fold of each row.
        vouched: what is known of the plan.

    Returns:
        The workspace's number of each fold.

    Raises:
        ConflictError: slices that a model predicted which saw their patient; the first rows are named.
    """
    if table.fold_R is None:
        raise DataError(f"{table.path} has no column 'fold'")
    own_fold = vouched.own_fold or _best_match(table.fold_R, own_R)
    expected_R = pd.Series(table.fold_R).map(own_fold).to_numpy(float)
    wrong = np.flatnonzero(expected_R != own_R)
    if len(wrong):
        first = wrong[0]
        raise ConflictError(
            f"{table.path}: {len(wrong)} of {len(own_R)} slices were predicted in a fold that is not their patient's "
            f"here, as {table.named(wrong)}: fold {table.fold_R[first]!r} there, fold {own_R[first]} here; {_WHY}"
        )
    return own_fold


def _best_match(fold_R: np.ndarray, own_R: np.ndarray) -> dict[str, int]:
    """Pair folds one to one by how many slices they share, most first."""
    counts = (
        pd.Series(1, index=[fold_R, own_R]).groupby(level=[0, 1]).size().sort_values(ascending=False, kind="stable")
    )
    pairs: dict[str, int] = {}
    for given, own in counts.index:
        if given not in pairs and own not in pairs.values():
            pairs[str(given)] = int(own)
    return pairs


def _of_patients(workspace: Workspace, path: Path) -> Vouched:
    table = read_columns(path)
    columns = {name.lower().replace("_", ""): name for name in table.column_names}
    if not {"patientid", "fold"} <= set(columns):
        raise DataError(f"{path} must have the columns patient_id and fold, got {', '.join(table.column_names)}")
    given = pd.DataFrame(
        {"patient": names_of(table, columns["patientid"], path), "fold": folds_of(table[columns["fold"]])}
    )
    given["row"] = np.arange(1, len(given) + 1)
    distinct = given.drop_duplicates(["patient", "fold"])
    twice = distinct[distinct["patient"].duplicated()]
    if len(twice):
        patient = twice["patient"].iloc[0]
        raise ConflictError(f"{path} puts patient {patient!r} into two folds, again in row {twice['row'].iloc[0]}")
    own = pd.Series(workspace.fold_plan.fold_of)
    labelled = set(workspace.labelled["patient_id"])
    missing = sorted(labelled - set(distinct["patient"]))
    if missing:
        raise DataError(
            f"{path} lists no fold for {len(missing)} patients with labels, the first is {missing[0]!r}; every patient "
            "must be listed, so that it can be seen that the folds are the same"
        )
    shared = distinct[distinct["patient"].isin(own.index)]
    own_R = own.loc[shared["patient"]].to_numpy(np.int64)
    own_fold = _best_match(shared["fold"].to_numpy(object), own_R)
    wrong = np.flatnonzero(shared["fold"].map(own_fold).to_numpy(float) != own_R)
    if len(wrong):
        row = shared.iloc[wrong[0]]
        raise ConflictError(
            f"{path} is another fold plan than this workspace's ({workspace.fold_plan.plan_hash}): {len(wrong)} of "
            f"{len(shared)} patients lie elsewhere, the first is {row['patient']!r} (row {row['row']}): fold "
            f"{row['fold']!r} there, {own_R[wrong[0]]} here; {_WHY}"
        )
    n_more = len(distinct) - len(shared)
    note = f"{path.name} lists {n_more} patients that this workspace does not have" if n_more else ""
    return Vouched("patients", own_fold, note)
