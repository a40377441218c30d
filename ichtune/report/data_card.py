"""The data card: what a workspace holds, counted file by file, series by series and patient by patient."""

import json
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
import pandas as pd

from ichtune.data.cache.hu_cache import CACHE_JSON
from ichtune.data.folds import fold_rates
from ichtune.data.series_geometry import series_table
from ichtune.labels import LABELS
from ichtune.report.data_facts import by_count, label_issue_counts
from ichtune.workspace import Workspace

#: Units that a label is counted in: a series or patient has it when one of its slices has it.
UNITS = ("slices", "series", "patients")


@dataclass(frozen=True)
class Spread:
    """How one number is distributed; NaN throughout where no value is known."""

    n_known: int
    n_unknown: int
    minimum: float
    p5: float
    median: float
    p95: float
    maximum: float


@dataclass(frozen=True)
class DataCard:
    """What a workspace holds.

    Attributes:
        is_generated: whether the data was made by ``ichtune phantom``.
        counts: what was counted and how many, in the order to show.
        encodings: usable slices by pixel encoding, and how many of them were repaired.
        matrices: usable slices by rows and columns in the file.
        spreads: distributions over series; slices per series, spacings, thickness and tilt.
        ordered_by: series by what their slices were ordered by.
        labels: for each label and each of ``UNITS`` the positive ones, of how many, and the share.
        co_occurrence: slices with both of two labels; the diagonal counts each label itself.
        refused: reason code, files, name of the first one without its folders; the most frequent first. Duplicates are
            among them.
        label_issues: kind, what it means, label rows.
        folds: patients, slices and label rates of each fold; empty where there is no plan.
        caches: cache_id, size_px, crop, slices, bytes, bytes a slice.
        series: one row a series, as ``series_geometry.series_table`` gives it, with pixel_spacing_mm.
    """

    is_generated: bool
    counts: dict[str, int]
    encodings: list[dict[str, Any]]
    matrices: dict[str, int]
    spreads: dict[str, Spread]
    ordered_by: dict[str, int]
    labels: dict[str, dict[str, dict[str, float]]]
    co_occurrence: dict[str, dict[str, int]]
    refused: list[dict[str, Any]]
    label_issues: list[dict[str, Any]]
    folds: list[dict[str, Any]]
    caches: list[dict[str, Any]]
    series: pd.DataFrame = field(repr=False, compare=False)

    def as_json(self) -> dict[str, Any]:
        """Return plain values under the names of the attributes, without the row for each series."""
        return {
            name: {key: asdict(spread) for key, spread in value.items()} if name == "spreads" else value
            for name, value in self.__dict__.items()
            if name != "series"
        }


def collect_card(workspace: Workspace) -> DataCard:
    """Count what a workspace holds; labels and folds may be absent.

    Raises:
        DataError: nothing was prepared, or a table is damaged.
    """
    slices = workspace.slices
    usable = slices[slices["status"] == "ok"]
    series = series_table(slices)
    first = usable.drop_duplicates("series_instance_uid").set_index("series_instance_uid")["pixel_spacing_mm"]
    series["pixel_spacing_mm"] = series["series_instance_uid"].map(first)
    labelled = usable[usable["is_labelled"]]
    return DataCard(
        is_generated=bool(workspace.about.get("generated")),
        counts=_counts(slices, usable, labelled, series),
        encodings=_encodings(usable),
        matrices=by_count(usable["rows_px"].astype(str) + " x " + usable["columns_px"].astype(str)),
        spreads={name: _spread(series[column].to_numpy(float)) for name, column in SPREAD_COLUMNS.items()},
        ordered_by=by_count(series["ordered_by"].astype(str)),
        labels=_label_rates(labelled),
        co_occurrence=_co_occurrence(labelled),
        refused=_refused(slices),
        label_issues=[
            {"issue": issue, "meaning": meaning, "rows": n} for issue, meaning, n in label_issue_counts(workspace)
        ],
        folds=_folds(workspace),
        caches=_caches(workspace),
        series=series,
    )


#: Distributions that are shown, and the column of the series table that each comes from.
SPREAD_COLUMNS: dict[str, str] = {
    "slices_per_series": "n_slices",
    "pixel_spacing_mm": "pixel_spacing_mm",
    "slice_spacing_mm": "spacing_median_mm",
    "slice_thickness_mm": "slice_thickness_mm",
    "tilt_deg": "tilt_deg",
}


def _counts(slices: pd.DataFrame, usable: pd.DataFrame, labelled: pd.DataFrame, series: pd.DataFrame) -> dict[str, int]:
    is_doubled = series["n_positions"] < series["n_slices"]
    return {
        "files": int(slices["path"].nunique()),
        "rows": len(slices),
        "usable_slices": len(usable),
        "duplicates": int((slices["status"] == "duplicate").sum()),
        "refused": int((slices["status"] == "refused").sum()),
        "series": len(series),
        "studies": int(usable["dicom_study_uid"].nunique()),
        "patients": int(usable["patient_id"].nunique()),
        "labelled_slices": len(labelled),
        "labelled_patients": int(labelled["patient_id"].nunique()),
        "unlabelled_slices": len(usable) - len(labelled),
        "repaired_12bit": int(usable["repaired_12bit"].sum()),
        "lossy_slices": int(usable["is_lossy"].sum()),
        "padding_ignored": int(usable["padding_ignored"].sum()),
        "blank_slices": int(usable["is_blank"].sum()),
        "uneven_series": int(series["is_uneven"].sum()),
        "series_with_doubled_positions": int(is_doubled.sum()),
        "slices_beyond_one_a_position": int((series["n_slices"] - series["n_positions"]).sum()),
        "series_parted_by_orientation": int(series["is_stack"].sum()),
    }


def _encodings(usable: pd.DataFrame) -> list[dict[str, Any]]:
    named = usable["encoding"].replace("", "unknown")
    n_repaired = usable["repaired_12bit"].groupby(named).sum()
    return [{"encoding": name, "slices": n, "repaired": int(n_repaired[name])} for name, n in by_count(named).items()]


def _spread(values: np.ndarray) -> Spread:
    known = values[np.isfinite(values)]
    quantiles = np.quantile(known, [0, 0.05, 0.5, 0.95, 1]) if len(known) else np.full(5, np.nan)
    return Spread(len(known), len(values) - len(known), *(float(value) for value in quantiles))


def _label_rates(labelled: pd.DataFrame) -> dict[str, dict[str, dict[str, float]]]:
    """Positive slices, series and patients with each label; empty without labels."""
    if labelled.empty:
        return {}
    y_NL = labelled[list(LABELS)].to_numpy(np.float32) > 0.5
    of_unit = {"slices": y_NL}
    for unit, column in (("series", "series_instance_uid"), ("patients", "patient_id")):
        codes, names = pd.factorize(labelled[column])
        of_unit[unit] = np.zeros((len(names), len(LABELS)), dtype=bool)
        np.logical_or.at(of_unit[unit], codes, y_NL)
    return {
        label: {
            unit: {"positive": int(y[:, n].sum()), "of": len(y), "rate": float(y[:, n].mean())}
            for unit, y in of_unit.items()
        }
        for n, label in enumerate(LABELS)
    }


def _co_occurrence(labelled: pd.DataFrame) -> dict[str, dict[str, int]]:
    y_NL = (labelled[list(LABELS)].to_numpy(np.float64) > 0.5).astype(np.float64)
    both_LL = (y_NL.T @ y_NL).astype(int)
    return {label: dict(zip(LABELS, row, strict=True)) for label, row in zip(LABELS, both_LL.tolist(), strict=True)}


def _refused(slices: pd.DataFrame) -> list[dict[str, Any]]:
    others = slices[slices["status"] != "ok"]
    codes = others["reason"].str.split(":", n=1).str[0].astype(str)
    examples = others["path"].str.rsplit("/", n=1).str[-1].groupby(codes).first()
    return [{"reason": code, "files": n, "example": str(examples[code])} for code, n in by_count(codes).items()]


def _folds(workspace: Workspace) -> list[dict[str, Any]]:
    if not workspace.layout.folds.is_file():
        return []
    table = fold_rates(workspace.slices, workspace.fold_plan)
    return [
        {
            "fold": int(fold),
            "patients": int(row["n_patients"]),
            "labelled_slices": int(row["n"]),
            "unlabelled_slices": int(row["n_unlabelled"]),
            "rates": {label: float(row[label]) for label in LABELS},
        }
        for fold, row in zip(table.index.tolist(), table.to_dict("records"), strict=True)
    ]


def _caches(workspace: Workspace) -> list[dict[str, Any]]:
    n_slices = int((workspace.slices["status"] != "refused").sum())
    return [{**cache, **_size_on_disk(workspace, str(cache["cache_id"]), n_slices)} for cache in workspace.caches]


def _size_on_disk(workspace: Workspace, cache_id: str, n_slices: int) -> dict[str, Any]:
    """Bytes of all shards by what the cache says of itself; None where it is gone."""
    try:
        about = json.loads((workspace.layout.hu / cache_id / CACHE_JSON).read_text(encoding="utf-8"))
        n_bytes = sum(int(shard["n_bytes"]) for shard in about["shards"])
    except (OSError, ValueError, LookupError, TypeError):
        return {"slices": n_slices, "bytes": None, "bytes_per_slice": None}
    return {"slices": n_slices, "bytes": n_bytes, "bytes_per_slice": n_bytes / n_slices if n_slices else None}
