"""From shards to a finished HU cache: the index, ``cache.json``, its name, and the note of what it was built from."""

import hashlib
import json
import os
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa

from ichtune.data.cache.hu_cache import (
    CACHE_FORMAT,
    CACHE_JSON,
    INDEX_DTYPE,
    INDEX_FILE,
    check_rows,
    file_sha256,
    read_about,
)
from ichtune.data.cache.shard_rows import PLACE_COLUMNS, as_frame
from ichtune.data.cache.shards import DONE_SUFFIX, CacheSpec, ShardResult, shard_table
from ichtune.data.source_files import SourceFiles, read_source, readable_path, state_hash
from ichtune.errors import DataError
from ichtune.tables import whole_file, write_json

#: Raise when the same files would give other pixels or rows: reader, repair, resize, crop or columns changed.
PREPROCESSING_VERSION = 3
BUILT_FROM_JSON = "built_from.json"
_ID_DIGITS = 16


@dataclass(frozen=True)
class CacheBuild:
    """A finished cache and what its files told.

    Attributes:
        rows: one row a slice or refused file with ``index.ROW_COLUMNS``, in path order, then frame order; row i is
            row i of the cache.
        is_reused: whether it was there already, so that no file had to be opened.
        rows_id: hash of the rows; equal for all caches of one state of the source.
    """

    folder: Path
    cache_id: str
    rows: pd.DataFrame
    is_reused: bool
    rows_id: str


def finish_cache(building: Path, results: Sequence[ShardResult], spec: CacheSpec) -> CacheBuild:
    """Write the index and, last, ``cache.json`` beside finished shards; the folder keeps its name until ``settle``."""
    _remove_others(building, results)
    tables = [shard_table(building, result.number) for result in results]
    index = _index(tables)
    with whole_file(building / INDEX_FILE) as partial, partial.open("wb") as file:
        np.save(file, index)
    rows_id = _hash([result.rows_hash for result in results])
    content = [result.content_hash for result in results]
    cache_id = _hash([CACHE_FORMAT, PREPROCESSING_VERSION, spec.size_px, spec.crop, rows_id, content])
    about = {
        "cache_id": cache_id,
        "format": CACHE_FORMAT,
        "preprocessing_version": PREPROCESSING_VERSION,
        "size_px": spec.size_px,
        "crop": spec.crop,
        "rows_id": rows_id,
        "n_rows": len(index),
        "index_sha256": file_sha256(building / INDEX_FILE),
        "shards": [result.about() for result in results],
    }
    write_json(about, building / CACHE_JSON)
    return CacheBuild(building, cache_id, _all_rows(tables), False, rows_id)


def settle(building: Path, folder: Path) -> None:
    """Give a finished cache its name; one of the same name that is whole stays, it holds the same."""
    try:
        check_rows(folder, read_about(folder))
    except DataError:
        shutil.rmtree(folder, ignore_errors=True)
        os.replace(building, folder)
    else:
        shutil.rmtree(building)
    remove_notes(folder)


def remove_notes(folder: Path) -> None:
    """Remove the notes that only an unfinished build needs."""
    for note in folder.glob(f"*{DONE_SUFFIX}"):
        note.unlink(missing_ok=True)


def source_key(source: SourceFiles, spec: CacheSpec, boxes: np.ndarray | None) -> str:
    """Return the hash of everything that a cache is built from, without opening a file."""
    parts = [state_hash(source.files), spec.size_px, spec.crop, CACHE_FORMAT, PREPROCESSING_VERSION]
    if boxes is not None:
        parts.append(hashlib.sha256(np.ascontiguousarray(boxes, dtype="<f8").data).hexdigest())
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()


def find_built(hu_folder: Path, key: str, source: SourceFiles) -> CacheBuild | None:
    """Return the cache that was built from the same files, unless it is gone, not whole, or could be more complete.

    A file that could not be opened may have been mended without a trace in it, so it is tried again.
    """
    cache_id = _built_from(hu_folder).get(key)
    if cache_id is None:
        return None
    folder = hu_folder / cache_id
    try:
        about = read_about(folder)
        check_rows(folder, about)
        tables = [shard_table(folder, number) for number in range(len(about["shards"]))]
        rows = _all_rows(tables)
    except DataError:
        return None
    if _can_be_read_now(rows, source):
        return None
    remove_notes(folder)
    return CacheBuild(folder, cache_id, rows, True, about["rows_id"])


def note_built(hu_folder: Path, key: str, cache_id: str) -> None:
    """Remember which source gave a cache."""
    write_json({"caches": {**_built_from(hu_folder), key: cache_id}}, hu_folder / BUILT_FROM_JSON)


def _built_from(hu_folder: Path) -> dict[str, str]:
    try:
        noted = json.loads((hu_folder / BUILT_FROM_JSON).read_text(encoding="utf-8"))["caches"]
    except (OSError, ValueError, LookupError):
        return {}
    return dict(noted) if isinstance(noted, dict) else {}


def _can_be_read_now(rows: pd.DataFrame, source: SourceFiles) -> bool:
    """Whether a file that could not be opened can be by now."""
    closed = set(rows.loc[rows["reason"].str.startswith("unreadable_file"), "path"].tolist())
    if not closed:
        return False
    for file in source.files:
        if readable_path(file.path) in closed:
            try:
                read_source(source.folder, file)
            except (DataError, FileNotFoundError):
                continue
            return True
    return False


def _remove_others(building: Path, results: Sequence[ShardResult]) -> None:
    """Remove shards that a stopped build made when the source had more files."""
    numbers = {result.number for result in results}
    for path in building.glob("[0-9]*"):
        if int(path.name.split(".", 1)[0]) not in numbers:
            path.unlink()


def _index(tables: Sequence[pa.Table]) -> np.ndarray:
    index = np.zeros(sum(len(table) for table in tables), dtype=INDEX_DTYPE)
    start = 0
    for shard, table in enumerate(tables):
        part = index[start : start + len(table)]
        part["shard"] = shard
        for column in PLACE_COLUMNS:
            part[column] = table[column].to_numpy()
        part["offset"] = np.cumsum(part["n_bytes"], dtype=np.int64) - part["n_bytes"]
        start += len(table)
    return index


def _all_rows(tables: Sequence[pa.Table]) -> pd.DataFrame:
    return as_frame(pa.concat_tables(tables))


def _hash(parts: list[object]) -> str:
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:_ID_DIGITS]
