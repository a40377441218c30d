"""What a prepared workspace holds, counted for a person and for scripts."""

from collections import Counter
from dataclasses import dataclass
from typing import Any

import pandas as pd

from ichtune.data.cache.cache_set import CacheNote, base_note
from ichtune.data.folds import FoldPlan
from ichtune.data.index import shared_names
from ichtune.data.label_table import KNOWN_BAD
from ichtune.data.series_geometry import series_table
from ichtune.labels import LABELS


@dataclass(frozen=True)
class PrepareSummary:
    """What was found and written; ``as_json`` is what ``ichtune prepare --json`` prints.

    Attributes:
        files: files that have rows in the SliceTable; a file of several frames has several.
        slices: rows that can be used.
        ignored: files that are not DICOM and have no row.
        multi_frame: files of several frames.
        lossy: slices whose values were changed by compression, now or before they came here.
        padding_ignored: slices whose padding value lies among those of tissue, and was taken for tissue.
        known_bad: slices that are known to be damaged in the competition's files.
        duplicate_positions: series with several slices at one position.
        uneven_spacing: series in which the distance from slice to slice varies.
        stacks: series that were parted from one of several orientations.
        refused: rows that cannot be used, by reason; duplicates are among them.
        label_issues: label rows that contradict each other or name no usable file, by issue.
        positive: slices with each label.
        cache_id: of the base cache: whole slices, at ``size_px`` (None for native).
        caches: every cache of the workspace.
        cache_reused: whether no file had to be read.
        warnings: sentences for a person.
    """

    files: int
    slices: int
    ignored: int
    multi_frame: int
    series: int
    patients: int
    labelled: int
    duplicates: int
    repaired_12bit: int
    lossy: int
    padding_ignored: int
    blank: int
    known_bad: int
    duplicate_positions: int
    uneven_spacing: int
    stacks: int
    refused: dict[str, int]
    label_issues: dict[str, int]
    positive: dict[str, int]
    k: int | None
    fold_plan_hash: str | None
    cache_id: str
    size_px: int | None
    caches: list[CacheNote]
    cache_reused: bool
    seconds: float
    warnings: tuple[str, ...]

    def as_json(self) -> dict[str, Any]:
        """Return plain values under the names of the attributes."""
        return {**self.__dict__, "warnings": list(self.warnings), "seconds": round(self.seconds, 3)}


def summarise(
    slices: pd.DataFrame,
    issues: pd.DataFrame,
    plan: FoldPlan | None,
    rows: pd.DataFrame,
    caches: list[CacheNote],
    *,
    n_ignored: int,
    is_reused: bool,
    seconds: float,
) -> PrepareSummary:
    """Count what was prepared.

    Args:
        slices: the SliceTable as written.
        issues: the label issues as written.
        rows: what the files told, a row for each of ``slices``.
        caches: every cache of the workspace.
        n_ignored: files that are not DICOM.
        is_reused: whether no file had to be read.
    """
    usable = slices[slices["status"] == "ok"]
    series = series_table(slices)
    base = base_note(caches)
    return PrepareSummary(
        files=int(slices["path"].nunique()),
        slices=len(usable),
        ignored=n_ignored,
        multi_frame=int(slices.loc[slices["frame_number"] > 1, "path"].nunique()),
        series=len(series),
        patients=int(usable["patient_id"].nunique()),
        labelled=int(usable["is_labelled"].sum()),
        duplicates=int((slices["status"] == "duplicate").sum()),
        repaired_12bit=int(usable["repaired_12bit"].sum()),
        lossy=int(usable["is_lossy"].sum()),
        padding_ignored=int(usable["padding_ignored"].sum()),
        blank=int(usable["is_blank"].sum()),
        known_bad=int(slices["image_id"].isin(KNOWN_BAD).sum()),
        duplicate_positions=int((series["n_positions"] < series["n_slices"]).sum()),
        uneven_spacing=int(series["is_uneven"].sum()),
        stacks=int(series["is_stack"].sum()),
        refused=dict(sorted(Counter(refusal_codes(slices)).items())),
        label_issues=dict(sorted(Counter(issues["issue"].tolist()).items())),
        positive={label: int((usable[label] == 1).sum()) for label in LABELS},
        k=plan.k if plan else None,
        fold_plan_hash=plan.plan_hash if plan else None,
        cache_id=str(base["cache_id"]),
        size_px=base["size_px"],
        caches=caches,
        cache_reused=is_reused,
        seconds=seconds,
        warnings=tuple(_warnings(slices, plan, rows)),
    )


def refusal_codes(slices: pd.DataFrame) -> list[str]:
    """Return the reason code of every row that cannot be used."""
    return [reason.split(":", 1)[0] for reason in slices["reason"].tolist() if reason]


def _warnings(slices: pd.DataFrame, plan: FoldPlan | None, all_rows: pd.DataFrame) -> list[str]:
    """What a person should know before going on, in whole sentences."""
    is_ok = (slices["status"] == "ok").to_numpy(bool)
    usable = slices[is_ok]
    by_patient = usable.groupby("patient_id")["is_labelled"].agg(["any", "all"])
    has_position = usable["ordered_by"].str.startswith("position")
    n_labelled = int(by_patient["any"].sum())
    n_shared = int((shared_names(slices) != "").sum())
    counted = {
        "slices share their name (SOP Instance UID or ID_ file name) with a different one: none takes a label by it": (
            n_shared
        ),
        "slices have no PatientID: each study counts as a patient of its own": int(
            (all_rows.loc[is_ok, "patient_id"] == "").sum()
        ),
        "series lack positions: they are ordered by slice location or instance number": int(
            usable.loc[~has_position, "series_instance_uid"].nunique()
        ),
        "patients have labelled and unlabelled slices: all of them stay in one fold": int(
            (by_patient["any"] & ~by_patient["all"]).sum()
        ),
    }
    if plan is not None:
        linked = "groups of patients share a study, a series or identical slices: each group stays in one fold"
        counted[linked] = plan.n_linked_groups
    warnings = [f"{count} {what}" for what, count in counted.items() if count]
    if plan is None:
        warnings.append("only one patient has labels, so there are no folds and nothing can be cross-validated")
    elif plan.k == n_labelled:
        warnings.append(f"{plan.k} folds: only {n_labelled} patients have labels")
    return warnings
