"""The prepared data, as plain values: counts, labels, folds and a few slices to look at."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from ichtune.data.folds import fold_rates
from ichtune.data.label_table import LABEL_ISSUE_KINDS
from ichtune.errors import DataError
from ichtune.labels import ANY, LABELS, SUBTYPES
from ichtune.metrics import prior_predictions, weighted_log_loss
from ichtune.workspace import Workspace

#: Series of which a slice is shown.
N_PICTURES = 4


@dataclass(frozen=True)
class FoldRow:
    """One fold: its patients, slices, and the share of labelled slices with each label."""

    fold: int
    n_patients: int
    n_labelled: int
    n_unlabelled: int
    rates: dict[str, float]


@dataclass(frozen=True)
class Slice:
    """A slice to look at: its cache image, and what it is labelled with in words."""

    image_id: str
    labels: str
    hu_HW: np.ndarray


@dataclass(frozen=True)
class DataFacts:
    """What was prepared.

    Attributes:
        counts: what was counted and how many, in the order to show.
        refused: files that cannot be used, by the code of the reason.
        rates: share of labelled slices with each label; empty without labels.
        positives: slices with each label.
        prior_loss: weighted log loss of the label rates alone; None without labels.
        folds: empty where there is no fold plan, and ``folds_note`` says why.
        encodings: usable slices by pixel encoding.
        matrices: usable slices by rows and columns in the file.
        label_issues: kind of issue, what it means, how many label rows.
        per_series: usable slices of each series.
        slices: one from the middle of each of a few series; empty with ``slices_note``.
    """

    counts: dict[str, int]
    refused: dict[str, int]
    rates: dict[str, float]
    positives: dict[str, int]
    prior_loss: float | None
    folds: tuple[FoldRow, ...]
    folds_note: str
    encodings: dict[str, int]
    matrices: dict[str, int]
    label_issues: tuple[tuple[str, str, int], ...]
    per_series: tuple[int, ...]
    slices: tuple[Slice, ...]
    slices_note: str


def collect_data(workspace: Workspace) -> DataFacts:
    """Count what a workspace holds.

    Raises:
        DataError: nothing was prepared, or a table is damaged.
    """
    table = workspace.slices
    usable = table[table["status"] == "ok"]
    y_NL = workspace.labelled[list(LABELS)].to_numpy(np.float64)
    folds, folds_note = _folds(workspace)
    slices, slices_note = _slices(workspace)
    matrices = usable["rows_px"].astype(str) + " x " + usable["columns_px"].astype(str)
    return DataFacts(
        counts=_counts(workspace),
        refused=by_count(table.loc[table["status"] != "ok", "reason"].str.split(":").str[0]),
        rates=dict(zip(LABELS, y_NL.mean(axis=0).tolist(), strict=True)) if len(y_NL) else {},
        positives=dict(zip(LABELS, (y_NL > 0.5).sum(axis=0).tolist(), strict=True)),
        prior_loss=weighted_log_loss(y_NL, prior_predictions(y_NL, len(y_NL))) if len(y_NL) else None,
        folds=folds,
        folds_note=folds_note,
        encodings=by_count(usable["encoding"].replace("", "unknown")),
        matrices=by_count(matrices),
        label_issues=label_issue_counts(workspace),
        per_series=tuple(sorted(usable.groupby("series_instance_uid").size().tolist())),
        slices=slices,
        slices_note=slices_note,
    )


def _counts(workspace: Workspace) -> dict[str, int]:
    table = workspace.slices
    usable, labelled = table[table["status"] == "ok"], workspace.labelled
    return {
        "DICOM files": len(table),
        "usable slices": len(usable),
        "labelled slices": len(labelled),
        "slices to predict": len(workspace.unlabelled),
        "patients": int(usable["patient_id"].nunique()),
        "patients with labels": int(labelled["patient_id"].nunique()),
        "studies": int(usable["dicom_study_uid"].nunique()),
        "series": int(usable["series_instance_uid"].nunique()),
        "12-bit wraps repaired": int(usable["repaired_12bit"].sum()),
        "blank slices": int(usable["is_blank"].sum()),
    }


def by_count(values: pd.Series) -> dict[str, int]:
    """Count values, the most frequent first, equal counts in alphabetical order."""
    counts = values.astype(str).value_counts()
    return {str(k): int(n) for k, n in sorted(counts.items(), key=lambda item: (-item[1], str(item[0])))}


def label_issue_counts(workspace: Workspace) -> tuple[tuple[str, str, int], ...]:
    """Return each kind of label issue, what it means, and how many label rows have it."""
    if not workspace.layout.label_issues.is_file():
        return ()
    counts = by_count(workspace.label_issues["issue"])
    return tuple((issue, LABEL_ISSUE_KINDS.get(issue, ""), n) for issue, n in counts.items())


def _folds(workspace: Workspace) -> tuple[tuple[FoldRow, ...], str]:
    if not workspace.layout.folds.is_file():
        return (), "no fold plan: it takes at least two patients with labels"
    table = fold_rates(workspace.slices, workspace.fold_plan)
    rows = [
        FoldRow(
            fold=int(fold),
            n_patients=int(row["n_patients"]),
            n_labelled=int(row["n"]),
            n_unlabelled=int(row["n_unlabelled"]),
            rates={label: float(row[label]) for label in LABELS} if row["n"] else {},
        )
        for fold, row in zip(table.index.tolist(), table.to_dict("records"), strict=True)
    ]
    return tuple(rows), ""


def _slices(workspace: Workspace) -> tuple[tuple[Slice, ...], str]:
    """Return the slices to show; the second value says why there are none."""
    try:
        return tuple(
            Slice(str(row["image_id"]), labels_in_words(row), workspace.hu(str(row["image_id"])))
            for row in choose_slices(workspace.slices).to_dict("records")
        ), ""
    except DataError as error:
        return (), f"no pictures: {error}"


def choose_slices(table: pd.DataFrame, n: int = N_PICTURES) -> pd.DataFrame:
    """Choose one slice from the middle of each of a few series, to show as many different labels as possible.

    Args:
        table: a SliceTable.
        n: how many.

    Returns:
        At most n rows: one without a bleed first, if there is one, then those that show most subtypes not yet
        shown.
        Series without labels only where no series has any. The same table gives the same rows.
    """
    usable = table[(table["status"] == "ok") & ~table["is_blank"]]
    if usable["is_labelled"].any():
        usable = usable[usable["is_labelled"]]
    ordered = usable.sort_values(["series_instance_uid", "slice_rank"], kind="stable")
    grouped = ordered.groupby("series_instance_uid")
    middle = ordered[grouped.cumcount() == grouped["image_id"].transform("size") // 2]
    middle = middle.sort_values("image_id", kind="stable").reset_index(drop=True)
    y_NS = middle[list(SUBTYPES)].fillna(0.0).to_numpy() > 0.5
    return middle.iloc[_cover(y_NS, n)]


def _cover(y_NS: np.ndarray, n: int) -> list[int]:
    """Rows in the order of choice: a negative one, then those that add most; ties go to the first row."""
    left = list(range(len(y_NS)))
    chosen: list[int] = []
    shown = np.zeros(y_NS.shape[1], dtype=bool)
    while left and len(chosen) < n:
        gains = [int((y_NS[row] & ~shown).sum()) for row in left]
        negative = next((row for row in left if not y_NS[row].any()), None)
        row = negative if not chosen and negative is not None else left[int(np.argmax(gains))]
        left.remove(row)
        chosen.append(row)
        shown |= y_NS[row]
    return chosen


def labels_in_words(row: Mapping[Any, Any]) -> str:
    """Say what a slice is labelled with: ``subdural, epidural``, ``no hemorrhage`` or ``unlabelled``."""
    if not row["is_labelled"]:
        return "unlabelled"
    return in_words([label for label in LABELS if row[label] > 0.5])


def in_words(positive: Sequence[str]) -> str:
    """Name the subtypes; ``any`` alone is a bleed of no given type."""
    subtypes = [label for label in positive if label != ANY]
    if subtypes:
        return ", ".join(subtypes)
    return "hemorrhage of no given type" if positive else "no hemorrhage"
