"""Writing the HU cache: one shard is one unit of work, of resuming and of loss.

A shard and its rows are written under temporary names, flushed to disk and renamed, and a note is written
after them, so that a shard counts as done only when both are whole. The notes go when the cache is finished.
"""

import hashlib
import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from ichtune.data.hu_cache import HU_DTYPE
from ichtune.data.index import ROW_COLUMNS, FileReading, read_file
from ichtune.data.resize import fit_hu
from ichtune.data.source_files import SourceFiles, state_hash
from ichtune.errors import DataError, StorageError
from ichtune.tables import write_json

MAX_SHARD_ROWS = 1024
_MIN_SHARD_ROWS = 64
_SMALL_SET_SHARDS = 32
_TEMPORARY = ".tmp"
DONE_SUFFIX = ".done.json"
#: Columns of a rows file beyond those of the table.
_SHAPE_COLUMNS = {"height": "int32", "width": "int32"}


@dataclass(frozen=True)
class ShardTask:
    """Everything a worker needs to build one shard, in any process.

    Attributes:
        state: hash of the paths, sizes and times of change of its files; a finished shard of another state is
            stale.
        folder: where the shard is written.
        size_px: side of the cached slices; None keeps each file's own matrix.
    """

    number: int
    source: Path
    paths: tuple[str, ...]
    state: str
    folder: Path
    size_px: int | None

    @property
    def pixels(self) -> Path:
        """The shard itself."""
        return self.folder / shard_name(self.number)

    @property
    def rows(self) -> Path:
        """What its files told about themselves."""
        return self.folder / rows_name(self.number)

    @property
    def done(self) -> Path:
        """Written last: says which files the shard was built from; gone when the cache is finished."""
        return self.folder / f"{self.number:05d}{DONE_SUFFIX}"


@dataclass(frozen=True)
class ShardResult:
    """What one shard holds: its checksum, and a row for every file with the shape of its slice."""

    number: int
    n_bytes: int
    sha256: str
    rows: pd.DataFrame

    @property
    def n_refused(self) -> int:
        """Files that gave no slice."""
        return int((self.rows["height"] == 0).sum())

    def about(self) -> dict[str, Any]:
        """What ``cache.json`` says about it."""
        return {"name": shard_name(self.number), "n_bytes": self.n_bytes, "sha256": self.sha256}


def shard_name(number: int) -> str:
    """File name of a shard."""
    return f"{number:05d}.hu16"


def rows_name(number: int) -> str:
    """File name of the rows of a shard."""
    return f"{number:05d}.rows.parquet"


def shard_rows(n_files: int) -> int:
    """Return how many files make one shard: 1,024, fewer in a small set so that all processes have work."""
    share = -(-n_files // _SMALL_SET_SHARDS)
    rounded = -(-share // _MIN_SHARD_ROWS) * _MIN_SHARD_ROWS
    return min(max(rounded, _MIN_SHARD_ROWS), MAX_SHARD_ROWS)


def plan_shards(source: SourceFiles, folder: Path, size_px: int | None) -> list[ShardTask]:
    """Cut the files, in order, into tasks; depends on nothing but the arguments."""
    step = shard_rows(len(source.files))
    tasks = []
    for number, start in enumerate(range(0, len(source.files), step)):
        files = source.files[start : start + step]
        paths = tuple(file.path for file in files)
        tasks.append(ShardTask(number, source.folder, paths, state_hash(files), folder, size_px))
    return tasks


def build_shard(task: ShardTask) -> ShardResult:
    """Read the files of one shard, once each, and write their slices.

    Raises:
        DataError: a listed file is gone.
        StorageError: the disk is full or may not be written.
    """
    partial = task.pixels.with_name(f"{task.pixels.name}.{os.getpid()}{_TEMPORARY}")
    digest = hashlib.sha256()
    rows: list[dict[str, Any]] = []
    n_bytes = 0
    try:
        with partial.open("wb") as file:
            for path in task.paths:
                reading = _read(task.source, path)
                hu = _cached(reading, task.size_px)
                rows.append({**reading.row, "height": hu.shape[0], "width": hu.shape[1]})
                n_bytes += file.write(hu.data)
                digest.update(hu.data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(partial, task.pixels)
        result = ShardResult(task.number, n_bytes, digest.hexdigest(), _frame(rows))
        _write_rows(result, task.rows)
    except OSError as error:
        partial.unlink(missing_ok=True)
        raise StorageError(f"cannot write {task.pixels}: {error.strerror or error}") from error
    write_json({"state": task.state, "n_bytes": n_bytes, "sha256": result.sha256}, task.done)
    return result


def read_shard(task: ShardTask) -> ShardResult | None:
    """Return a shard that an earlier build finished from the same files; None when it has to be built."""
    try:
        note = json.loads(task.done.read_text(encoding="utf-8"))
        if note["state"] != task.state or task.pixels.stat().st_size != note["n_bytes"]:
            return None
        return ShardResult(task.number, note["n_bytes"], note["sha256"], read_rows(task.rows))
    except (OSError, DataError, KeyError, TypeError, ValueError):
        return None


def read_rows(path: Path) -> pd.DataFrame:
    """Read what the files of a shard told.

    Raises:
        DataError: no such file, or not such a table.
    """
    try:
        return pq.read_table(path).to_pandas()[[*ROW_COLUMNS, *_SHAPE_COLUMNS]]
    except (OSError, pa.ArrowException, KeyError) as error:
        raise DataError(f"cannot read {path} ({error}); run `ichtune prepare` again") from error


def remove_leftovers(folder: Path) -> None:
    """Remove what a killed build was writing; finished shards stay."""
    for path in folder.glob(f"*{_TEMPORARY}"):
        path.unlink(missing_ok=True)


def _read(source: Path, path: str) -> FileReading:
    try:
        return read_file(source / path, path)
    except FileNotFoundError as error:
        raise DataError(
            f"{source / path} was there a moment ago and is gone; bring it back, or run `ichtune prepare` "
            "again to go on without it"
        ) from error


def _cached(reading: FileReading, size_px: int | None) -> np.ndarray:
    """The slice as it is stored; (0, 0) for a refused file."""
    if reading.hu is None:
        return np.empty((0, 0), dtype=HU_DTYPE)
    hu = reading.hu if size_px is None else fit_hu(reading.hu, size_px)
    return np.ascontiguousarray(hu, dtype=HU_DTYPE)


def _frame(rows: list[dict[str, Any]]) -> pd.DataFrame:
    return pd.DataFrame(rows, columns=[*ROW_COLUMNS, *_SHAPE_COLUMNS]).astype({**ROW_COLUMNS, **_SHAPE_COLUMNS})


def _write_rows(result: ShardResult, path: Path) -> None:
    partial = path.with_name(f"{path.name}.{os.getpid()}{_TEMPORARY}")
    with partial.open("wb") as file:
        pq.write_table(pa.Table.from_pandas(result.rows, preserve_index=False), file)
        file.flush()
        os.fsync(file.fileno())
    os.replace(partial, path)
