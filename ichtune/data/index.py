"""The SliceTable: one row for every DICOM file, whether it can be read or not."""

import math
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
import pandas as pd

from ichtune.data.dicom import DicomFile
from ichtune.data.dicom_header import SliceHeader
from ichtune.data.series_geometry import add_series_geometry, normal_tilt_deg
from ichtune.data.source_files import readable_path
from ichtune.errors import DataError
from ichtune.labels import LABELS
from ichtune.tables import SLICES, conform

COMPETITION_PREFIX = "ID_"
#: A slice whose values span no more than this inside the brain window shows no anatomy.
BLANK_RANGE_HU = 60
_BRAIN_WINDOW_HU = (0, 80)  # centre 40, width 80

#: What a file tells about itself; positions are kept until the series are put in order.
ROW_COLUMNS: dict[str, str] = {
    "path": "string",
    "reason": "string",
    "sop_instance_uid": "string",
    "patient_id": "string",
    "dicom_study_uid": "string",
    "series_instance_uid": "string",
    "instance_number": "float64",
    "slice_location_mm": "float64",
    **{f"position_{axis}_mm": "float64" for axis in "xyz"},
    **{f"normal_{axis}": "float64" for axis in "xyz"},
    "slice_thickness_mm": "float64",
    "tilt_deg": "float64",
    "pixel_spacing_mm": "float64",
    "rows_px": "int32",
    "columns_px": "int32",
    "encoding": "string",
    "repaired_12bit": "bool",
    "is_blank": "bool",
}


@dataclass(frozen=True)
class FileReading:
    """What one pass over one file gave: its row, and its slice in HU unless it was refused."""

    row: dict[str, Any]
    hu: np.ndarray | None


def read_file(location: Path, path: str) -> FileReading:
    """Read header and pixels of one file, once.

    Args:
        location: where the file lies.
        path: how the table names it.

    Returns:
        The row with ``ROW_COLUMNS``; ``reason`` is empty and ``hu`` int16 (H, W) when the slice could be
        read.
    """
    row: dict[str, Any] = {"path": readable_path(path), "reason": "", **_EMPTY_ROW}
    try:
        file = DicomFile(location)
        row |= _header_row(file.header)
        hu = file.hu()
    except DataError as error:
        row["reason"] = str(error)
        return FileReading(row, None)
    row["repaired_12bit"] = file.header.is_broken_12bit
    row["is_blank"] = is_blank(hu)
    return FileReading(row, hu)


def is_blank(hu: np.ndarray) -> bool:
    """Whether a slice shows nothing in the brain window: its range there is at most ``BLANK_RANGE_HU``."""
    low, high = (min(max(int(value), _BRAIN_WINDOW_HU[0]), _BRAIN_WINDOW_HU[1]) for value in (hu.min(), hu.max()))
    return high - low <= BLANK_RANGE_HU


def build_slice_table(rows: pd.DataFrame) -> pd.DataFrame:
    """Turn what the files told into the SliceTable: identities, duplicates, order within each series.

    Args:
        rows: one row a file with ``ROW_COLUMNS``, in path order.

    Returns:
        The columns of ``tables.SLICES``, unlabelled, in the same order.
    """
    table = rows.copy()
    _add_identity(table)
    add_series_geometry(table)
    table["is_labelled"] = False
    for label in LABELS:
        table[label] = np.float32(np.nan)
    return conform(table, SLICES)


def image_id_of(sop_instance_uid: str, path: str) -> str:
    """Return the name of an image: the competition's ``ID_...`` if there is one, else the SOP Instance UID.

    A file that could not be parsed is called by its ``ID_...`` file name or, failing that, by its path.
    """
    stem = PurePosixPath(path).stem
    if sop_instance_uid.startswith(COMPETITION_PREFIX):
        return sop_instance_uid
    if stem.startswith(COMPETITION_PREFIX):
        return stem
    return sop_instance_uid or path


def _add_identity(table: pd.DataFrame) -> None:
    """Fill image_id, status, and the patient and series that a header leaves out."""
    usable = (table["reason"] == "").to_numpy(bool)
    uids, paths = table["sop_instance_uid"].tolist(), table["path"].tolist()
    names = [image_id_of(uid, path) for uid, path in zip(uids, paths, strict=True)]
    keys = [uid or name for uid, name in zip(uids, names, strict=True)]
    first_of: dict[str, int] = {}
    for row in np.argsort(~usable, kind="stable"):  # a file that can be read goes before one that cannot
        first_of.setdefault(keys[row], int(row))
    status = np.where(usable, "ok", "refused").astype(object)
    reasons = table["reason"].tolist()
    times_seen: dict[str, int] = {}
    taken: set[str] = set()
    for row, key in enumerate(keys):
        first = first_of[key]
        if row != first:
            times_seen[key] = times_seen.get(key, 1) + 1
            names[row] = f"{names[first]}~{times_seen[key]}"
            if usable[row]:
                status[row] = "duplicate"
                reasons[row] = f"duplicate_sop_instance_uid: same as {paths[first]}"
        while names[row] in taken:
            names[row] += "~"
        taken.add(names[row])
    table["image_id"], table["status"], table["reason"] = names, status, reasons
    _fill_groups(table)


def _fill_groups(table: pd.DataFrame) -> None:
    """A slice without patient or series belongs to its study; it stands alone when that is absent too."""
    for column, stand_ins in (
        ("series_instance_uid", ("dicom_study_uid", "image_id")),
        ("patient_id", ("dicom_study_uid", "series_instance_uid")),
    ):
        for stand_in in stand_ins:
            is_empty = (table[column] == "") & (table["status"] != "refused")
            table[column] = table[column].mask(is_empty, table[stand_in])


_NAN = float("nan")
_EMPTY_ROW: dict[str, Any] = {
    column: {"string": "", "float64": _NAN, "int32": 0, "bool": False}[dtype]
    for column, dtype in ROW_COLUMNS.items()
    if column not in ("path", "reason")
}


def _header_row(header: SliceHeader) -> dict[str, Any]:
    position = header.image_position_mm or (_NAN, _NAN, _NAN)
    normal = slice_normal(header.image_orientation)
    spacing = header.pixel_spacing_mm or (_NAN, _NAN)
    return {
        "sop_instance_uid": header.sop_instance_uid,
        "patient_id": header.patient_id,
        "dicom_study_uid": header.dicom_study_uid,
        "series_instance_uid": header.series_instance_uid,
        "instance_number": _or_nan(header.instance_number),
        "slice_location_mm": _or_nan(header.slice_location_mm),
        **{f"position_{axis}_mm": value for axis, value in zip("xyz", position, strict=True)},
        **{f"normal_{axis}": value for axis, value in zip("xyz", normal, strict=True)},
        "slice_thickness_mm": _or_nan(header.slice_thickness_mm),
        "tilt_deg": _or_nan(header.tilt_deg) if np.isnan(normal[0]) else normal_tilt_deg(normal),
        "pixel_spacing_mm": spacing[0],
        "rows_px": min(header.rows_px, np.iinfo(np.int32).max),
        "columns_px": min(header.columns_px, np.iinfo(np.int32).max),
        "encoding": header.encoding,
    }


def slice_normal(orientation: tuple[float, ...] | None) -> tuple[float, float, float]:
    """Return the unit normal of a slice, row times column direction; NaN without a sound orientation.

    Source: DICOM PS3.3 C.7.6.2.1.1.
    """
    if orientation is None:
        return (_NAN, _NAN, _NAN)
    a, b, c, d, e, f = orientation
    x, y, z = b * f - c * e, c * d - a * f, a * e - b * d
    length = math.sqrt(x * x + y * y + z * z)
    if not 0.5 < length < 2.0:  # row and column directions are parallel or no unit vectors
        return (_NAN, _NAN, _NAN)
    return (x / length, y / length, z / length)


def _or_nan(value: float | None) -> float:
    return _NAN if value is None else value
