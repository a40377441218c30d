"""Schemas of every parquet table, and the one way to write, read and check them.

Every file carries ``schema_version``, the package's version and the hashes of its inputs in its metadata, and is
written to a temporary name first, so that a half-written table is never taken for a whole one.
"""

import errno
import json
import os
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from ichtune.errors import DataError, StorageError
from ichtune.labels import LABELS
from ichtune.version import __version__

SCHEMA_VERSION = 2
#: What ends the name of a file until it is whole.
_TEMPORARY = ".tmp"
P_COLUMNS = tuple(f"p_{label}" for label in LABELS)


@dataclass(frozen=True)
class TableSchema:
    """Columns of one table: its name, the pandas dtype of each column, and the columns that form the key."""

    name: str
    columns: Mapping[str, str]
    key: tuple[str, ...]
    made_by: str


_LABEL_COLUMNS = {label: "float32" for label in LABELS}

SLICES = TableSchema(
    name="slices",
    columns={
        "image_id": "string",
        "sop_instance_uid": "string",
        "patient_id": "string",
        "dicom_study_uid": "string",
        "series_instance_uid": "string",
        "path": "string",
        "frame_number": "int32",
        "status": "string",
        "reason": "string",
        "slice_rank": "int32",
        "z_mm": "float64",
        "spacing_mm": "float64",
        "n_at_position": "int32",
        "instance_number": "float64",
        "ordered_by": "string",
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
        "is_labelled": "bool",
        **_LABEL_COLUMNS,
    },
    key=("image_id",),
    made_by="ichtune prepare",
)

FOLDS = TableSchema(
    name="folds",
    columns={"patient_id": "string", "fold": "int32"},
    key=("patient_id",),
    made_by="ichtune prepare",
)

PREDICTIONS = TableSchema(
    name="predictions",
    columns={
        "recipe_id": "string",
        "fold": "int32",
        "image_id": "string",
        **{column: "float64" for column in P_COLUMNS},
    },
    key=("recipe_id", "fold", "image_id"),
    made_by="ichtune train",
)

TRIALS = TableSchema(
    name="trials",
    columns={
        "search": "string",
        "trial": "int32",
        "recipe_id": "string",
        "status": "string",
        "reason": "string",
        "epochs": "int32",
        "epochs_spent": "float64",
        "n_rungs": "int32",
        "rung_loss": "float64",
        "duplicate_of": "string",
        "best_loss": "float64",
        "last_loss": "float64",
        "seconds": "float64",
        "recipe": "string",
        "parameters": "string",
        "optuna": "string",
        "curve": "string",
    },
    key=("search", "trial"),
    made_by="ichtune search",
)

LABEL_ISSUES = TableSchema(
    name="label_issues",
    columns={"image_id": "string", "issue": "string", "detail": "string"},
    key=("image_id", "issue", "detail"),
    made_by="ichtune prepare",
)

TABLES: dict[str, TableSchema] = {t.name: t for t in (SLICES, FOLDS, PREDICTIONS, TRIALS, LABEL_ISSUES)}


def conform(frame: pd.DataFrame, schema: TableSchema) -> pd.DataFrame:
    """Return ``frame`` with the schema's columns and dtypes, in order.

    Raises:
        DataError: a column is missing or cannot be converted, or the key is empty or not unique.
    """
    missing = [column for column in schema.columns if column not in frame.columns]
    if missing:
        raise DataError(f"table {schema.name!r} lacks the columns {missing}; run `{schema.made_by}` again")
    try:
        table = frame[list(schema.columns)].astype(dict(schema.columns)).reset_index(drop=True)
    except (TypeError, ValueError) as error:
        raise DataError(f"table {schema.name!r} holds values of the wrong type: {error}") from error
    _check_whole_numbers(frame, table, schema)
    empty = [column for column in schema.key if table[column].isna().any()]
    if empty:
        raise DataError(f"table {schema.name!r} has rows without {' and '.join(empty)}; its key must be given")
    repeated = table.duplicated(list(schema.key))
    if repeated.any():
        first = table[repeated][list(schema.key)].iloc[0].to_dict()
        raise DataError(
            f"table {schema.name!r} must have one row for each {' + '.join(schema.key)}, got "
            f"{int(repeated.sum())} repeated rows, the first {first}"
        )
    return table


def prediction_frame(
    recipe_id: str, fold: np.ndarray | int, image_ids: Iterable[str], p_NL: np.ndarray
) -> pd.DataFrame:
    """Lay out probabilities (N, L) as rows of a Predictions table; one fold for all of them, or one each."""
    frame = pd.DataFrame(p_NL, columns=list(P_COLUMNS))
    return frame.assign(recipe_id=recipe_id, fold=fold, image_id=list(image_ids))


def _check_whole_numbers(frame: pd.DataFrame, table: pd.DataFrame, schema: TableSchema) -> None:
    """Refuse what conversion to an integer changed: pandas cuts 1.5 to 1 and wraps large numbers in silence."""
    for column, dtype in schema.columns.items():
        if dtype.startswith("int") and (table[column].to_numpy() != frame[column].to_numpy()).any():
            raise DataError(f"table {schema.name!r} must hold {dtype} in {column!r}, got values that do not fit")


@contextmanager
def whole_file(path: Path) -> Iterator[Path]:
    """Give a temporary name to write to, which becomes ``path`` when the block ends well and is removed otherwise.

    Raises:
        StorageError: the disk is full, or the folder may not be written.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}{_TEMPORARY}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield temporary
        with temporary.open("rb+") as file:
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except OSError as error:
        raise StorageError(f"cannot write {path}: {error.strerror or error}") from error
    finally:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)


def check_writable(path: Path) -> None:
    """Make sure that ``whole_file`` can write a file, before the work that leads to it; nothing is left of the try.

    Folders on the way that do not exist are made and removed again; a file that is there is not touched.

    Raises:
        StorageError: a folder lies there, or the folder for it cannot be made or written.
    """
    missing: list[Path] = []
    trial = path.parent / f".{path.name}.{os.getpid()}{_TEMPORARY}"
    try:
        if path.is_dir():
            raise IsADirectoryError(errno.EISDIR, "it is a folder")
        missing = [folder for folder in path.parents if not folder.exists()]
        path.parent.mkdir(parents=True, exist_ok=True)
        trial.touch()
    except OSError as error:
        raise StorageError(f"cannot write {path}: {error.strerror or error}; name another place") from error
    finally:
        with suppress(OSError):
            trial.unlink(missing_ok=True)
        for folder in missing:
            with suppress(OSError):  # another process writes there by now, or it was never made
                folder.rmdir()


def remove_leftovers(folder: Path, name: str = "") -> None:
    """Remove what a killed process was writing into a folder with ``whole_file``; whole files stay.

    Args:
        folder: where to look; not in its sub-folders.
        name: of the file that was to be written; by default any.
    """
    for path in folder.glob(f".{name}*{_TEMPORARY}"):
        path.unlink(missing_ok=True)


def write_table(frame: pd.DataFrame, path: Path, schema: TableSchema, inputs: Mapping[str, Any] | None = None) -> None:
    """Check a table and write it as parquet, whole or not at all.

    Args:
        frame: the rows; columns beyond the schema are refused by leaving them out.
        path: the file to write.
        schema: what it must look like.
        inputs: hashes or ids of what it was made from, kept in the file's metadata.

    Raises:
        DataError: the rows are not such a table; nothing is written.
        StorageError: the file cannot be written; one that was there stays as it was.
    """
    table = pa.Table.from_pandas(conform(frame, schema), preserve_index=False)
    write_parquet(table, path, inputs)


def write_parquet(table: pa.Table, path: Path, inputs: Mapping[str, Any] | None = None) -> None:
    """Write an Arrow table of any form as parquet, whole or not at all, with its versions and ``inputs``.

    Raises:
        StorageError: the file cannot be written; one that was there stays as it was.
    """
    about = {"schema_version": SCHEMA_VERSION, "ichtune_version": __version__, "inputs": dict(inputs or {})}
    metadata = {**(table.schema.metadata or {}), b"ichtune": json.dumps(about, sort_keys=True).encode()}
    with whole_file(path) as temporary:
        pq.write_table(table.replace_schema_metadata(metadata), temporary)


def read_table(path: Path, schema: TableSchema) -> pd.DataFrame:
    """Read a parquet table and check it against its schema.

    Raises:
        DataError: no such file (the message names the command that makes it), or not such a table.
    """
    if not path.is_file():
        raise DataError(f"{path} does not exist yet: run `{schema.made_by}` first, it writes this table")
    try:
        table = pq.read_table(path, partitioning=None)  # a folder called a=b is no column
    except PermissionError as error:
        raise StorageError(f"cannot read {path}: {error.strerror or error}") from error
    except (OSError, pa.ArrowException) as error:
        raise DataError(f"{path} is no readable parquet file ({error}); run `{schema.made_by}` again") from error
    version = table_about(path).get("schema_version")
    if version != SCHEMA_VERSION:
        raise DataError(
            f"{path} has schema_version {version!r}, expected {SCHEMA_VERSION}: it was written by another version "
            f"of ichtune; run `{schema.made_by}` again"
        )
    return conform(table.to_pandas(), schema)


def table_about(path: Path) -> dict[str, Any]:
    """Return what ``write_table`` recorded in a file: schema_version, ichtune_version and inputs."""
    raw = (pq.read_schema(path).metadata or {}).get(b"ichtune", b"{}")
    try:
        about = json.loads(raw)
    except ValueError:
        about = None
    return about if isinstance(about, dict) else {}


def write_json(value: Mapping[str, Any] | list[Any], path: Path) -> None:
    """Write JSON with sorted keys, whole or not at all; mappings gain the version fields."""
    if isinstance(value, Mapping):
        value = {"schema_version": SCHEMA_VERSION, "ichtune_version": __version__, **value}
    text = json.dumps(value, indent=1, sort_keys=True, allow_nan=False)
    with whole_file(path) as temporary:
        temporary.write_text(f"{text}\n", encoding="utf-8")
