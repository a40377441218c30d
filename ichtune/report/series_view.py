"""What a montage shows of one series: its slices in order, what is marked on each, and what is left out."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from ichtune.data.series_geometry import UNEVEN_SHARE, whole_series
from ichtune.errors import DataError, nearest
from ichtune.labels import LABELS
from ichtune.workspace import Workspace

#: More slices than this are thinned out, evenly, and the view says so.
MAX_SLICES = 480
#: Names listed in an error about a name that is not there.
_NEAREST_AMONG = 2000
_ROW = "table_row"


@dataclass(frozen=True)
class Tile:
    """One slice, or one file that gave none.

    Attributes:
        row: its row in the SliceTable and in the HU cache.
        rank: place in the series; -1 for a refused file or a duplicate.
        z_mm: position along the slice normal, NaN when unknown.
        marks: what is worth a look, in a word or two each: ``blank``, ``2 at z``, ``gap 10.0`` where the distance to
            the next position changes.
        is_positive: one value a label, in label order; None without labels.
        refusal: code of the reason why there is no slice; ``""`` for a slice.
    """

    row: int
    rank: int
    z_mm: float
    marks: tuple[str, ...]
    is_positive: tuple[bool, ...] | None
    refusal: str


@dataclass(frozen=True)
class SeriesView:
    """One series as it is shown.

    Attributes:
        crop: what is shown of each slice.
        tiles: slices in position order, then duplicates and refused files.
        facts: one line on geometry and encoding.
        positives: slices with each label; None without labels.
        notes: whole sentences on what is not shown or unusual.
    """

    series_instance_uid: str
    patient_id: str
    crop: str
    facts: str
    tiles: tuple[Tile, ...]
    n_slices: int
    positives: dict[str, int] | None
    notes: tuple[str, ...]


def find_series(
    slices: pd.DataFrame, series: str | None = None, image: str | None = None, patient: str | None = None
) -> list[str]:
    """Return the series that a name stands for, one argument being given.

    Raises:
        DataError: no such series, image or patient, or a refused file that belongs to no series.
    """
    column, name = next(
        (column, name)
        for column, name in (("series_instance_uid", series), ("image_id", image), ("patient_id", patient))
        if name is not None
    )
    found = slices[slices[column] == name]
    if column == "series_instance_uid":  # with the stacks that were parted from it
        found = slices[(slices[column] == name) | (whole_series(slices[column]) == name)]
    if found.empty:
        known = slices[column].drop_duplicates().head(_NEAREST_AMONG)
        what = {"series_instance_uid": "series", "image_id": "image", "patient_id": "patient"}[column]
        raise DataError(f"no {what} is called {name!r} in this workspace. {_near(name, known.tolist())}")
    uids = [str(uid) for uid in found["series_instance_uid"].drop_duplicates() if uid]
    if not uids:
        reason = found["reason"].iloc[0]
        raise DataError(f"{name!r} belongs to no series that is known, because its file was refused: {reason}")
    return uids


def example_series(slices: pd.DataFrame) -> str:
    """Return the series with the most positive labels over all its slices; the longest one where none has labels.

    Raises:
        DataError: there is no usable slice.
    """
    usable = slices[slices["status"] == "ok"]
    if usable.empty:
        raise DataError("there is no usable slice to show; `ichtune inspect --json` lists why files were refused")
    positive = (usable[list(LABELS)].to_numpy(np.float32) > 0.5).sum(axis=1)
    codes, uids = pd.factorize(usable["series_instance_uid"])
    order = np.lexsort((np.asarray(uids, dtype=object).astype(str), -np.bincount(codes), -np.bincount(codes, positive)))
    return str(uids[order[0]])


def view_series(workspace: Workspace, series_instance_uid: str, crop: str = "none") -> SeriesView:
    """Put together what is shown of one series.

    Args:
        workspace: a prepared one; labels are not needed.
        series_instance_uid: one of its series.
        crop: what is shown of each slice, from ``recipe.CROPS``.
    """
    slices = workspace.slices
    rows = slices[slices["series_instance_uid"] == series_instance_uid]
    in_order = rows[rows["status"] == "ok"].sort_values("slice_rank", kind="stable")
    others = rows[rows["status"] != "ok"].sort_values(["status", "path"], kind="stable")
    records = in_order.reset_index(names=_ROW).to_dict("records")
    before = [None, *records][: len(records)]
    tiles = [_tile(row, earlier) for row, earlier in zip(records, before, strict=True)]
    kept, notes = _thinned(tiles)
    refused = [_tile(row, None) for row in others.reset_index(names=_ROW).to_dict("records")]
    if refused:
        notes.append(f"{len(refused)} files of this series are refused or duplicates; they stand at the end.")
    is_labelled = bool(in_order["is_labelled"].any())
    return SeriesView(
        series_instance_uid=series_instance_uid,
        patient_id=str(rows["patient_id"].iloc[0]),
        crop=crop,
        facts=_facts(in_order),
        tiles=(*kept, *refused[:MAX_SLICES]),
        n_slices=len(in_order),
        positives={label: int((in_order[label] > 0.5).sum()) for label in LABELS} if is_labelled else None,
        notes=tuple(notes),
    )


def _near(name: str, known: Sequence[str]) -> str:
    """The nearest known name only: a list of thousands of UIDs helps nobody."""
    said = nearest(name, known)
    return said.split(" Known: ")[0] if said.startswith("Did you mean") else "`ichtune inspect` shows an example"


def _tile(row: dict[Any, Any], before: dict[Any, Any] | None) -> Tile:
    """One slice, and what differs from the slice before it."""
    marks = [str(row["status"])] if row["status"] != "ok" else []
    if row["is_blank"]:
        marks.append("blank")
    if row["repaired_12bit"]:
        marks.append("repaired")
    if row["is_lossy"]:
        marks.append("lossy")
    if row["padding_ignored"]:
        marks.append("padding")
    if row["n_at_position"] > 1:
        marks.append(f"{row['n_at_position']} at z")
    spacing, spacing_before = (float(r["spacing_mm"]) if r else np.nan for r in (row, before))
    if abs(spacing - spacing_before) > UNEVEN_SHARE * spacing_before:
        marks.append(f"gap {spacing:.1f}")
    labels = tuple(float(row[label]) > 0.5 for label in LABELS) if row["is_labelled"] else None
    return Tile(
        row=int(row[_ROW]),
        rank=int(row["slice_rank"]),
        z_mm=float(row["z_mm"]),
        marks=tuple(marks),
        is_positive=labels,
        refusal=str(row["reason"]).split(":", 1)[0],
    )


def _thinned(tiles: list[Tile]) -> tuple[list[Tile], list[str]]:
    """At most MAX_SLICES tiles: every n-th, the first one included, and a sentence that says so."""
    step = -(-len(tiles) // MAX_SLICES)
    if step <= 1:
        return tiles, []
    kept = tiles[::step]
    return kept, [f"{len(kept)} of {len(tiles)} slices are shown: one in {step}, counted from the first."]


def _facts(in_order: pd.DataFrame) -> str:
    """Geometry and encoding in one line; whatever varies within the series is shown with all its values."""
    size = in_order["rows_px"].astype(str) + " x " + in_order["columns_px"].astype(str)
    parts = [
        f"{len(in_order)} slices",
        f"matrix {_values(size)}",
        f"pixel {_values(in_order['pixel_spacing_mm'].map('{:.3g} mm'.format))}",
        f"gap {_values(in_order['spacing_mm'].map('{:.1f} mm'.format))}",
        f"thickness {_values(in_order['slice_thickness_mm'].map('{:.3g} mm'.format))}",
        f"tilt {_values(in_order['tilt_deg'].map('{:.1f}°'.format))}",
        f"encoding {_values(in_order['encoding'].replace('', 'unknown'))}",
    ]
    return ", ".join(parts).replace("nan mm", "unknown").replace("nan°", "unknown")


def _values(column: pd.Series) -> str:
    found = column.astype(str).value_counts()
    shown = " / ".join(str(value) for value in found.index[:3])
    return f"{shown} and {len(found) - 3} more" if len(found) > 3 else shown or "unknown"
