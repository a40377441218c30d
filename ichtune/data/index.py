"""The SliceTable: one row for every DICOM file and every frame of one, whether it can be read or not."""

import math
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any

import numpy as np
import pandas as pd

from ichtune.data.cache.resize import lift_padding
from ichtune.data.content_hash import fingerprint
from ichtune.data.dicom.header import SliceHeader, slice_normal
from ichtune.data.dicom.reader import SliceReading, read_slices
from ichtune.data.series_geometry import add_series_geometry, normal_tilt_deg
from ichtune.data.source_files import readable_path
from ichtune.errors import DataError
from ichtune.labels import LABELS
from ichtune.tables import SLICES, conform

COMPETITION_PREFIX = "ID_"
#: Stands between a name and the number of its second, third ... bearer.
_ANOTHER = "~"
_POSITION = tuple(f"position_{axis}_mm" for axis in "xyz")
_NORMAL = tuple(f"normal_{axis}" for axis in "xyz")
#: Where a slice lies, as its header says.
_PLACE = ("series_instance_uid", "instance_number", *_POSITION)
_NOWHERE = "|nan" * (len(_PLACE) - 1)

#: What a file tells about itself; positions are kept until the series are put in order.
ROW_COLUMNS: dict[str, str] = {
    "path": "string",
    "frame_number": "int32",
    "reason": "string",
    "sop_instance_uid": "string",
    "patient_id": "string",
    "dicom_study_uid": "string",
    "series_instance_uid": "string",
    "instance_number": "float64",
    "slice_location_mm": "float64",
    **dict.fromkeys(_POSITION, "float64"),
    **dict.fromkeys(_NORMAL, "float64"),
    "slice_thickness_mm": "float64",
    "tilt_deg": "float64",
    "pixel_spacing_mm": "float64",
    "window_center_hu": "float64",
    "window_width_hu": "float64",
    "rows_px": "int32",
    "columns_px": "int32",
    "encoding": "string",
    "repaired_12bit": "bool",
    "is_lossy": "bool",
    "is_blank": "bool",
    "content_hash": "string",
    "near_hash": "string",
    "padding_ignored": "bool",
}


@dataclass(frozen=True)
class FileReading:
    """What one pass over one file gave for one slice.

    Attributes:
        row: ``ROW_COLUMNS`` of the slice.
        hu: int16 (H, W), HU; None where it was refused.
        lifted_hu: the same with padding below air lifted to air: what is resized, and what its fingerprints are of.
    """

    row: dict[str, Any]
    hu: np.ndarray | None
    lifted_hu: np.ndarray | None


def read_file(data: bytes | DataError, path: str) -> Iterator[FileReading]:
    """Read header and pixels of one file, once.

    Args:
        data: the whole file, or why it could not be read.
        path: how the table names it.

    Yields:
        One reading a frame, in frame order; one in all for a plain file and for a file that is refused as a
        whole. The row has ``ROW_COLUMNS``; ``reason`` is empty and ``hu`` int16 (H, W) when the slice could be
        read.
    """
    name = readable_path(path)
    readings = iter([SliceReading(None, None, str(data))]) if isinstance(data, DataError) else read_slices(data)
    for reading in readings:
        lifted_hu = None if reading.hu is None else lift_padding(reading.hu)
        yield FileReading(_row(name, reading, lifted_hu), reading.hu, lifted_hu)


def _row(path: str, reading: SliceReading, lifted_hu: np.ndarray | None) -> dict[str, Any]:
    row: dict[str, Any] = {**_EMPTY_ROW, "path": path, "reason": reading.reason}
    header = reading.header
    if header is not None:
        row |= _header_row(header)
    if lifted_hu is not None and header is not None:
        row["content_hash"], row["near_hash"], row["is_blank"] = fingerprint(lifted_hu)
        row["repaired_12bit"] = header.is_broken_12bit
        row["padding_ignored"] = reading.padding_ignored
    return row


def build_slice_table(rows: pd.DataFrame) -> pd.DataFrame:
    """Turn what the files told into the SliceTable: identities, duplicates, order within each series.

    Args:
        rows: one row a file or frame with ``ROW_COLUMNS``, in path order, then frame order.

    Returns:
        The columns of ``tables.SLICES``, unlabelled, in the same order.
    """
    table = rows.copy(deep=False)  # columns are replaced, never changed: the rows stay as they are
    _add_identity(table)
    add_series_geometry(table)
    table["is_labelled"] = False
    for label in LABELS:
        table[label] = np.float32(np.nan)
    return conform(table, SLICES)


def shared_names(slices: pd.DataFrame) -> pd.Series:
    """Return for every row the name that it would have, where several usable slices would have the same.

    Args:
        slices: a SliceTable.

    Returns:
        Text (n,); ``""`` where a row is the only usable one of its name.
    """
    shared = pd.Series("", index=slices.index, dtype="string")
    names = slices["image_id"].astype("string")
    is_ok = (slices["status"] == "ok").to_numpy(bool)
    numbered = names[is_ok & names.str.contains(_ANOTHER, regex=False).to_numpy(bool)]
    if numbered.empty:
        return shared
    wanted = numbered.str.replace(rf"{_ANOTHER}\d+$", "", regex=True)
    is_wanted = names.isin(wanted.unique().tolist()).to_numpy(bool)  # fast, since few are wanted
    wanted = wanted[(wanted != numbered) & wanted.isin(names[is_wanted].tolist())]
    is_first = is_ok & is_wanted & names.isin(wanted.tolist()).to_numpy(bool)
    shared[is_first] = names[is_first]
    shared[wanted.index] = wanted
    return shared


def image_id_of(sop_instance_uid: str, path: str) -> str:
    """Return the name of an image: the competition's ``ID_...`` if there is one, else the SOP Instance UID.

    A file that could not be parsed is called by its ``ID_...`` file name or, failing that, by its path.
    """
    if sop_instance_uid.startswith(COMPETITION_PREFIX):
        return sop_instance_uid
    file_name = path.rpartition("/")[2]
    if file_name.startswith(COMPETITION_PREFIX):
        return PurePosixPath(file_name).stem
    return sop_instance_uid or path


def _add_identity(table: pd.DataFrame) -> None:
    """Fill image_id, status, and the patient and series that a header leaves out."""
    usable = (table["reason"] == "").to_numpy(bool)
    uids, paths, frames = table["sop_instance_uid"].tolist(), table["path"].tolist(), _frame_suffixes(table)
    names = [image_id_of(uid, path) + frame for uid, path, frame in zip(uids, paths, frames, strict=True)]
    keys = [uid + frame if uid else name for uid, frame, name in zip(uids, frames, names, strict=True)]
    # a file that can be read goes before one that cannot, a lossless copy before a lossy one
    order = np.lexsort((table["is_lossy"].to_numpy(bool), ~usable)).tolist()
    first_of: dict[str, int] = {}
    for row in order:
        first_of.setdefault(keys[row], row)
    copied = _copies(table, [row for row in order if usable[row]], keys)
    status = np.where(usable, "ok", "refused").astype(object)
    reasons = table["reason"].tolist()
    times_seen: dict[str, int] = {}
    taken: set[str] = set()
    for row, key in enumerate(keys):
        name = names[row] = names[first_of[key]]
        if row in copied:
            status[row] = "duplicate"
            reasons[row] = f"duplicate_sop_instance_uid: same as {paths[copied[row]]}"
        if row != first_of[key] or name in taken:
            times_seen[name] = times_seen.get(name, 1) + 1
            names[row] = f"{name}{_ANOTHER}{times_seen[name]}"
        while names[row] in taken:
            names[row] += _ANOTHER
        taken.add(names[row])
    table["image_id"], table["status"], table["reason"] = names, status, reasons
    _fill_groups(table)


def _copies(table: pd.DataFrame, order: list[int], keys: list[str]) -> dict[int, int]:
    """Rows that repeat an earlier one of ``order``, and which: the same UID, and the same pixels or the same place.

    Files with one UID, other pixels and another place are different slices, as after an anonymiser's mistake.
    """
    counts = Counter(keys[row] for row in order)
    repeated = [row for row in order if counts[keys[row]] > 1]
    of_place = table.iloc[repeated][list(_PLACE)].itertuples(index=False, name=None)
    places = ["|".join(map(str, values)) for values in of_place]
    content = table["content_hash"].iloc[repeated].tolist()
    copied: dict[int, int] = {}
    first_like: dict[tuple[str, str, str], int] = {}
    for row, *likes in zip(repeated, content, places, strict=True):
        marks = [(keys[row], what, like) for what, like in zip(("content", "place"), likes, strict=True)]
        if likes[1].endswith(_NOWHERE):
            marks.pop()
        first = next((first_like[mark] for mark in marks if mark in first_like), row)
        if first != row:
            copied[row] = first
        for mark in marks:
            first_like.setdefault(mark, first)
    return copied


def _frame_suffixes(table: pd.DataFrame) -> list[str]:
    """``#n`` for frame n of a file with several frames, nothing for a plain file."""
    frames = table["frame_number"].to_numpy()
    if not (frames > 1).any():
        return [""] * len(table)
    n_frames = table.groupby("path")["frame_number"].transform("max").to_numpy()
    return [f"#{frame}" if several else "" for frame, several in zip(frames, n_frames > 1, strict=True)]


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
_LARGEST_INT32 = int(np.iinfo(np.int32).max)
_EMPTY_ROW: dict[str, Any] = {
    column: {"string": "", "float64": _NAN, "int32": 0, "bool": False}[dtype]
    for column, dtype in ROW_COLUMNS.items()
    if column not in ("path", "reason")
} | {"frame_number": 1}


def _header_row(header: SliceHeader) -> dict[str, Any]:
    position = header.image_position_mm or (_NAN, _NAN, _NAN)
    normal = slice_normal(header.image_orientation)
    spacing = header.pixel_spacing_mm or (_NAN, _NAN)
    center_hu, width_hu = header.window_hu or (_NAN, _NAN)
    return {
        "frame_number": header.frame_number,
        "sop_instance_uid": header.sop_instance_uid,
        "patient_id": header.patient_id,
        "dicom_study_uid": header.dicom_study_uid,
        "series_instance_uid": header.series_instance_uid,
        "instance_number": _or_nan(header.instance_number),
        "slice_location_mm": _or_nan(header.slice_location_mm),
        **dict(zip(_POSITION, position, strict=True)),
        **dict(zip(_NORMAL, normal, strict=True)),
        "slice_thickness_mm": _or_nan(header.slice_thickness_mm),
        "tilt_deg": _or_nan(header.tilt_deg) if math.isnan(normal[0]) else normal_tilt_deg(normal),
        "pixel_spacing_mm": spacing[0],
        "window_center_hu": center_hu,
        "window_width_hu": width_hu,
        "rows_px": min(header.rows_px, _LARGEST_INT32),
        "columns_px": min(header.columns_px, _LARGEST_INT32),
        "encoding": header.encoding,
        "is_lossy": header.is_lossy,
    }


def _or_nan(value: float | None) -> float:
    return _NAN if value is None else value
