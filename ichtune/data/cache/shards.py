"""Writing the HU cache: one shard is one unit of work, of resuming and of loss.

A shard and its rows are written under temporary names, flushed to disk and renamed, and a note is written
after them, so that a shard counts as done only when both are whole. The notes go when the cache is finished.
"""

import errno
import hashlib
import json
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import pyarrow as pa
import xxhash

from ichtune.data.cache.hu_cache import HU_DTYPE, checksum, pack_slice
from ichtune.data.cache.resize import fit_lifted
from ichtune.data.cache.shard_rows import ShardRows, parquet_bytes, read_rows, rows_hash
from ichtune.data.index import FileReading, read_file
from ichtune.data.source_files import SourceFile, read_ahead, read_source, state_hash
from ichtune.errors import DataError, StorageError
from ichtune.tables import whole_file, write_json

#: Files in one shard at most, and bytes of them: a file of many frames fills a shard sooner.
MAX_SHARD_FILES = 2048
MAX_SHARD_BYTES = 2 << 30
_MIN_SHARD_FILES = 64
_SMALL_SET_SHARDS = 16
#: A read that takes longer comes from a disk rather than from memory, and so will the next ones.
_SLOW_READ_S, _FILES_AHEAD = 0.0004, 64
DONE_SUFFIX = ".done.json"
_DISK_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}


class DiskFullError(StorageError):
    """No room for what a shard had to write."""


@dataclass(frozen=True)
class CacheSpec:
    """What a cache holds of each slice.

    Attributes:
        size_px: side of the cached slices; None keeps each file's own matrix.
        crop: name of the part that is kept; ``"none"`` keeps all of it.
    """

    size_px: int | None
    crop: str = "none"


@dataclass(frozen=True)
class ShardTask:
    """Everything a worker needs to build one shard, in any process.

    Attributes:
        source: the folder that the paths start from.
        state: hash of its files, what is cached of them, and the boxes; a finished shard of another state is stale.
        folder: where the shard is written.
        boxes: float64 (n_rows, 3), top, left and side of what is kept of each row, as fractions of the padded
            square; None keeps everything.
    """

    number: int
    source: Path
    files: tuple[SourceFile, ...]
    state: str
    folder: Path
    spec: CacheSpec
    boxes: np.ndarray | None = None

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
    """What one shard holds, in a few numbers: its rows stay on disk.

    Attributes:
        n_bytes: length of the shard.
        checksum: xxh3 of the shard, 128 bits: finds damage, proves no origin.
        content_hash: over shape and values of every slice, whatever compresses them.
        rows_hash: over what the files told.
        rows_checksum: xxh3 of the rows file.
    """

    number: int
    n_files: int
    n_rows: int
    n_refused: int
    n_unreadable: int
    n_bytes: int
    checksum: str
    content_hash: str
    rows_hash: str
    rows_checksum: str

    def about(self) -> dict[str, Any]:
        """What ``cache.json`` says about it."""
        return {
            "name": shard_name(self.number),
            "n_rows": self.n_rows,
            "n_bytes": self.n_bytes,
            "checksum": self.checksum,
            "rows": rows_name(self.number),
            "rows_checksum": self.rows_checksum,
        }


def shard_name(number: int) -> str:
    """File name of a shard."""
    return f"{number:05d}.hu.b2"


def rows_name(number: int) -> str:
    """File name of the rows of a shard."""
    return f"{number:05d}.rows.parquet"


def cut_files(files: Sequence[SourceFile]) -> Iterator[tuple[SourceFile, ...]]:
    """Cut the files, in order, into shards; depends on nothing but their number and sizes.

    A shard has 2,048 files, fewer in a small set so that all processes have work, and fewer where they are large.
    """
    share = -(-len(files) // _SMALL_SET_SHARDS)
    rounded = -(-share // _MIN_SHARD_FILES) * _MIN_SHARD_FILES
    most = min(max(rounded, _MIN_SHARD_FILES), MAX_SHARD_FILES)
    start, n_bytes = 0, 0
    for place, file in enumerate(files):
        if place > start and (place - start == most or n_bytes + file.size_bytes > MAX_SHARD_BYTES):
            yield tuple(files[start:place])
            start, n_bytes = place, 0
        n_bytes += file.size_bytes
    yield tuple(files[start:])


def shard_state(files: Sequence[SourceFile], spec: CacheSpec, boxes: np.ndarray | None) -> str:
    """Return the hash of everything that a shard is made from."""
    digest = hashlib.sha256(json.dumps([state_hash(files), spec.size_px, spec.crop]).encode())
    if boxes is not None:
        digest.update(np.ascontiguousarray(boxes, dtype="<f8").data)
    return digest.hexdigest()


def build_shard(task: ShardTask) -> ShardResult:
    """Read the files of one shard, once each, and write their slices.

    Raises:
        DataError: a listed file is gone, or its frames are no longer those that the boxes were made for.
        StorageError: the disk is full or may not be written, or the source cannot be reached.
    """
    try:
        with whole_file(task.pixels) as partial, partial.open("wb") as file:
            rows, n_bytes, stored, content = _write_slices(task, file)
        table = rows.table()
        packed_rows = parquet_bytes(table)
        with whole_file(task.rows) as partial:
            partial.write_bytes(packed_rows)
        result = ShardResult(
            number=task.number,
            n_files=len(task.files),
            n_rows=len(rows),
            n_refused=rows.n_refused,
            n_unreadable=rows.n_unreadable,
            n_bytes=n_bytes,
            checksum=stored,
            content_hash=content,
            rows_hash=rows_hash(table),
            rows_checksum=_rows_checksum(packed_rows),
        )
        write_json({"state": task.state, "result": asdict(result)}, task.done)
    except StorageError as error:
        if isinstance(error.__cause__, OSError) and error.__cause__.errno in _DISK_FULL:
            raise DiskFullError(str(error)) from error
        raise
    return result


def read_shard(task: ShardTask) -> ShardResult | None:
    """Return a shard that an earlier build finished from the same files; None when it has to be built.

    One with files that could not be opened is built again: that can be mended without a trace in the files.
    """
    try:
        note = json.loads(task.done.read_text(encoding="utf-8"))
        result = ShardResult(**note["result"])
        is_whole = (
            note["state"] == task.state
            and result.number == task.number
            and not result.n_unreadable
            and task.pixels.stat().st_size == result.n_bytes
            and _rows_checksum(task.rows.read_bytes()) == result.rows_checksum
        )
    except (OSError, KeyError, TypeError, ValueError):
        return None
    return result if is_whole else None


def shard_table(folder: Path, number: int) -> pa.Table:
    """Read the rows of one shard of a cache.

    Raises:
        DataError: no such file, or not such a table.
    """
    return read_rows(folder / rows_name(number))


def _write_slices(task: ShardTask, file: BinaryIO) -> tuple[ShardRows, int, str, str]:
    """Write every slice; returns the rows, the length, and the hashes of what is stored and of what it holds."""
    rows, n_bytes = ShardRows(), 0
    stored, content = xxhash.xxh3_128(), xxhash.xxh3_128()
    for reading in _readings(task):
        box = _box(task, len(rows))
        if reading.hu is None or reading.lifted_hu is None:
            rows.add(reading.row, (0, 0), 0, 0)
            content.update(b"-")
            continue
        hu = _cached(reading.hu, reading.lifted_hu, task.spec.size_px, box)
        packed = pack_slice(hu)
        file.write(packed)
        rows.add(reading.row, hu.shape, len(packed), checksum(packed))
        n_bytes += len(packed)
        stored.update(packed)
        content.update(f"{hu.shape[0]}x{hu.shape[1]}:".encode())
        content.update(hu.data)
    if task.boxes is not None and len(task.boxes) != len(rows):
        raise _changed_frames(task, len(task.boxes))
    return rows, n_bytes, stored.hexdigest(), content.hexdigest()


def _readings(task: ShardTask) -> Iterator[FileReading]:
    """Read file after file; where that takes time, the system fetches the next one meanwhile."""
    ahead_until = 0
    for place, file in enumerate(task.files):
        if place < ahead_until and place + 1 < len(task.files):
            read_ahead(task.source, task.files[place + 1])
        start = time.perf_counter()
        data = _data(task.source, file)
        if time.perf_counter() - start > _SLOW_READ_S:
            ahead_until = place + _FILES_AHEAD
        yield from read_file(data, file.path)


def _data(source: Path, file: SourceFile) -> bytes | DataError:
    try:
        return read_source(source, file)
    except DataError as error:
        return error
    except FileNotFoundError as error:
        if not source.exists():
            raise DataError(
                f"the folder {source} is gone; bring it back and run the same command, it goes on where it stopped"
            ) from error
        raise DataError(
            f"{source / file.path} was there a moment ago and is gone or changed; bring it back, or run "
            "`ichtune prepare` again to go on without it"
        ) from error


def _box(task: ShardTask, row: int) -> np.ndarray | None:
    if task.boxes is None:
        return None
    if row >= len(task.boxes):
        raise _changed_frames(task, len(task.boxes))
    return task.boxes[row]


def _changed_frames(task: ShardTask, n_boxes: int) -> DataError:
    return DataError(
        f"the files of {task.source} from {task.files[0].path} on no longer hold {n_boxes} slices: they "
        "changed while they were read; run `ichtune prepare` again"
    )


def _cached(hu: np.ndarray, lifted_hu: np.ndarray, size_px: int | None, box: np.ndarray | None) -> np.ndarray:
    """The slice as it is stored: at its own size with every value of its file."""
    if box is not None:
        hu = fit_lifted(lifted_hu, size_px or max(round(float(box[2]) * max(hu.shape)), 1), box=tuple(box.tolist()))
    elif size_px is not None:
        hu = fit_lifted(lifted_hu, size_px)
    return np.ascontiguousarray(hu, dtype=HU_DTYPE)


def _rows_checksum(data: bytes | pa.Buffer) -> str:
    return xxhash.xxh3_128_hexdigest(data)
