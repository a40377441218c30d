"""What a prepared workspace holds, counted for a person and for scripts."""

from collections import Counter
from dataclasses import dataclass
from typing import Any

import pandas as pd

from ichtune.data.cache_build import CacheBuild
from ichtune.data.folds import FoldPlan
from ichtune.labels import LABELS


@dataclass(frozen=True)
class PrepareSummary:
    """What was found and written; ``as_json`` is what ``ichtune prepare --json`` prints.

    Attributes:
        files: rows of the SliceTable, one a DICOM file.
        slices: rows that can be used.
        ignored: files that are not DICOM and have no row.
        refused: rows that cannot be used, by reason; duplicates are among them.
        label_issues: label rows that contradict each other or name no usable file, by issue.
        positive: slices with each label.
        warnings: sentences for a person.
    """

    files: int
    slices: int
    ignored: int
    series: int
    patients: int
    labelled: int
    duplicates: int
    repaired_12bit: int
    blank: int
    refused: dict[str, int]
    label_issues: dict[str, int]
    positive: dict[str, int]
    k: int | None
    fold_plan_hash: str | None
    cache_id: str
    size_px: int | None
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
    build: CacheBuild,
    *,
    n_ignored: int,
    size_px: int | None,
    seconds: float,
) -> PrepareSummary:
    """Count what was prepared.

    Args:
        slices: the SliceTable as written.
        issues: the label issues as written.
        build: the cache and the rows that the files gave.
        n_ignored: files that are not DICOM.
        size_px: side of the cached slices; None for native.
    """
    usable = slices[slices["status"] == "ok"]
    return PrepareSummary(
        files=len(slices),
        slices=len(usable),
        ignored=n_ignored,
        series=int(usable["series_instance_uid"].nunique()),
        patients=int(usable["patient_id"].nunique()),
        labelled=int(usable["is_labelled"].sum()),
        duplicates=int((slices["status"] == "duplicate").sum()),
        repaired_12bit=int(usable["repaired_12bit"].sum()),
        blank=int(usable["is_blank"].sum()),
        refused=dict(sorted(Counter(refusal_codes(slices)).items())),
        label_issues=dict(sorted(Counter(issues["issue"].tolist()).items())),
        positive={label: int((usable[label] == 1).sum()) for label in LABELS},
        k=plan.k if plan else None,
        fold_plan_hash=plan.plan_hash if plan else None,
        cache_id=build.cache_id,
        size_px=size_px,
        cache_reused=build.is_reused,
        seconds=seconds,
        warnings=tuple(_warnings(slices, plan, build)),
    )


def refusal_codes(slices: pd.DataFrame) -> list[str]:
    """Return the reason code of every row that cannot be used."""
    return [reason.split(":", 1)[0] for reason in slices["reason"].tolist() if reason]


def _warnings(slices: pd.DataFrame, plan: FoldPlan | None, build: CacheBuild) -> list[str]:
    """What a person should know before going on, in whole sentences."""
    is_ok = (slices["status"] == "ok").to_numpy(bool)
    usable, rows = slices[is_ok], build.rows[is_ok]
    by_patient = usable.groupby("patient_id")["is_labelled"].agg(["any", "all"])
    has_position = rows["position_z_mm"].notna().to_numpy(bool)
    n_labelled = int(by_patient["any"].sum())
    counted = {
        "slices have no PatientID: each study counts as a patient of its own": int((rows["patient_id"] == "").sum()),
        "series lack positions: they are ordered by slice location or instance number": int(
            usable.loc[~has_position, "series_instance_uid"].nunique()
        ),
        "patients have labelled and unlabelled slices: all of them stay in one fold": int(
            (by_patient["any"] & ~by_patient["all"]).sum()
        ),
    }
    warnings = [f"{count} {what}" for what, count in counted.items() if count]
    if plan is None:
        warnings.append("only one patient has labels, so there are no folds and nothing can be cross-validated")
    elif plan.k == n_labelled:
        warnings.append(f"{plan.k} folds: only {n_labelled} patients have labels")
    return warnings
