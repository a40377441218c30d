"""Building a HU cache: shards in parallel, then the index, then the one file that says that it is whole.

A cache is named by what it holds: ``cache_id`` is a hash over its pixels, its rows, its size and the version
of its preprocessing. Which source gave which cache is noted in ``built_from.json`` by path, size and time of
change of every file, so that an unchanged source is recognised without opening a file, and a touched one is
read again.
"""

import hashlib
import json
import os
import shutil
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing import connection, get_context, parent_process
from pathlib import Path

import cv2
import numpy as np
import pandas as pd

from ichtune.data.hu_cache import (
    CACHE_FORMAT,
    CACHE_JSON,
    INDEX_DTYPE,
    INDEX_FILE,
    file_sha256,
    read_about,
)
from ichtune.data.shards import (
    DONE_SUFFIX,
    ShardResult,
    ShardTask,
    build_shard,
    plan_shards,
    read_rows,
    read_shard,
    remove_leftovers,
    rows_name,
)
from ichtune.data.source_files import SourceFiles, state_hash
from ichtune.errors import DataError, StorageError
from ichtune.locks import only_one
from ichtune.tables import write_json

#: Raise when the same files would give other pixels: reader, repair or resize changed.
PREPROCESSING_VERSION = 1
BUILT_FROM_JSON = "built_from.json"
_ID_DIGITS = 16
#: Below this many files starting processes costs more than it saves.
_WORTH_PROCESSES = 2048


@dataclass(frozen=True)
class Progress:
    """How far a build is."""

    n_files: int
    n_done: int
    n_refused: int
    n_resumed: int
    seconds: float

    @property
    def files_per_second(self) -> float:
        """Files read in this run; those that an earlier run had finished do not count."""
        return (self.n_done - self.n_resumed) / self.seconds if self.seconds > 0 else 0.0


@dataclass(frozen=True)
class CacheBuild:
    """A finished cache and what its files told.

    Attributes:
        rows: one row a file with ``index.ROW_COLUMNS``, in path order; row i is row i of the cache.
        is_reused: whether it was there already, so that no file had to be opened.
    """

    folder: Path
    cache_id: str
    rows: pd.DataFrame
    is_reused: bool


def build_cache(
    source: SourceFiles,
    hu_folder: Path,
    size_px: int | None,
    n_processes: int | None = None,
    on_progress: Callable[[Progress], None] | None = None,
) -> CacheBuild:
    """Build the cache of a source, or find the one that is there.

    Args:
        source: the files, in order.
        hu_folder: folder of all caches of a workspace.
        size_px: side of the cached slices; None keeps each file's own matrix.
        n_processes: worker processes; None takes every core that this process may use.
        on_progress: called after every shard.

    Raises:
        DataError: a listed file has gone, or a worker process died.
        ConflictError: another build is running in the same workspace.
        StorageError: the disk is full or may not be written.
    """
    with (
        _storage_errors(hu_folder),
        only_one(
            hu_folder / ".lock",
            f"another `ichtune prepare` is writing to {hu_folder}; wait for its end or use another --out",
        ),
    ):
        key = _source_key(source, size_px)
        found = _find_built(hu_folder, key)
        if found:
            return found
        building = hu_folder / f".building-{size_px or 'native'}"
        building.mkdir(parents=True, exist_ok=True)
        remove_leftovers(building)
        tasks = plan_shards(source, building, size_px)
        results = _run(tasks, n_processes, len(source.files), on_progress)
        cache_id = _finish(building, results, size_px)
        if not _has_unreadable_files(results):
            _note_built(hu_folder, key, cache_id)
        folder = _settle(building, hu_folder / cache_id)
        return CacheBuild(folder, cache_id, _all_rows([result.rows for result in results]), False)


def available_cores() -> int:
    """Return how many cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _run(
    tasks: Sequence[ShardTask],
    n_processes: int | None,
    n_files: int,
    on_progress: Callable[[Progress], None] | None,
) -> list[ShardResult]:
    """Build every shard that is not there yet; returns all of them in order."""
    start = time.monotonic()
    results = {task.number: result for task in tasks if (result := read_shard(task))}
    n_resumed = sum(len(result.rows) for result in results.values())
    open_tasks = [task for task in tasks if task.number not in results]
    if n_processes is None:
        n_processes = available_cores() if n_files >= _WORTH_PROCESSES else 1

    def report() -> None:
        if on_progress:
            n_done = sum(len(result.rows) for result in results.values())
            n_refused = sum(result.n_refused for result in results.values())
            on_progress(Progress(n_files, n_done, n_refused, n_resumed, time.monotonic() - start))

    report()
    for result in _built(open_tasks, min(n_processes, len(open_tasks))):
        results[result.number] = result
        report()
    return [results[task.number] for task in tasks]


def _built(tasks: Sequence[ShardTask], n_processes: int) -> Iterator[ShardResult]:
    """Yield finished shards in whatever order they finish."""
    if n_processes <= 1:
        yield from (build_shard(task) for task in tasks)
        return
    pool = ProcessPoolExecutor(n_processes, mp_context=get_context("spawn"), initializer=_start_worker)
    try:
        for future in as_completed([pool.submit(build_shard, task) for task in tasks]):
            yield future.result()
    except BrokenProcessPool as error:
        raise DataError(
            "a worker process died while it read files: a decoder crashed or memory ran out. Finished shards "
            "are kept; run the same command again, with --processes 1 if it happens twice"
        ) from error
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def _start_worker() -> None:
    """One thread a worker, and no worker outlives a parent that was killed."""
    cv2.setNumThreads(1)
    parent = parent_process()
    if parent is not None:
        threading.Thread(target=_end_with, args=(parent.sentinel,), daemon=True).start()


def _end_with(sentinel: int) -> None:
    connection.wait([sentinel])
    os._exit(1)


def _finish(building: Path, results: Sequence[ShardResult], size_px: int | None) -> str:
    """Write the index and, last, ``cache.json``; returns the cache_id."""
    _remove_others(building, results)
    index = np.zeros(sum(len(result.rows) for result in results), dtype=INDEX_DTYPE)
    index["shard"] = np.repeat(np.arange(len(results)), [len(result.rows) for result in results])
    for axis in ("height", "width"):
        index[axis] = np.concatenate([result.rows[axis].to_numpy() for result in results])
    index["offset"] = np.concatenate([_offsets(result) for result in results])
    np.save(building / INDEX_FILE, index)
    cache_id = _cache_id(results, size_px)
    about = {
        "cache_id": cache_id,
        "format": CACHE_FORMAT,
        "preprocessing_version": PREPROCESSING_VERSION,
        "size_px": size_px,
        "n_rows": len(index),
        "index_sha256": file_sha256(building / INDEX_FILE),
        "shards": [result.about() for result in results],
    }
    write_json(about, building / CACHE_JSON)
    return cache_id


def _remove_others(building: Path, results: Sequence[ShardResult]) -> None:
    """Remove shards that a stopped build made when the source had more files."""
    numbers = {result.number for result in results}
    for path in building.glob("[0-9]*"):
        if int(path.name.split(".", 1)[0]) not in numbers:
            path.unlink()


def _offsets(result: ShardResult) -> np.ndarray:
    """Where each slice of a shard starts, counted in values."""
    n_values = result.rows["height"].to_numpy(np.int64) * result.rows["width"].to_numpy(np.int64)
    return np.cumsum(n_values) - n_values


def _cache_id(results: Sequence[ShardResult], size_px: int | None) -> str:
    digest = hashlib.sha256(json.dumps([CACHE_FORMAT, PREPROCESSING_VERSION, size_px]).encode())
    for result in results:
        digest.update(result.sha256.encode())
        digest.update(pd.util.hash_pandas_object(result.rows, index=False).to_numpy().astype("<u8").tobytes())
    return digest.hexdigest()[:_ID_DIGITS]


def _settle(building: Path, folder: Path) -> Path:
    """Give a finished cache its name; one of the same name that is whole stays, it holds the same."""
    try:
        read_about(folder)
    except DataError:
        shutil.rmtree(folder, ignore_errors=True)
        os.replace(building, folder)
    else:
        shutil.rmtree(building)
    _remove_notes(folder)
    return folder


def _remove_notes(folder: Path) -> None:
    for note in folder.glob(f"*{DONE_SUFFIX}"):
        note.unlink(missing_ok=True)


def _source_key(source: SourceFiles, size_px: int | None) -> str:
    parts = [state_hash(source.files), size_px, CACHE_FORMAT, PREPROCESSING_VERSION]
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()


def _built_from(hu_folder: Path) -> dict[str, str]:
    try:
        noted = json.loads((hu_folder / BUILT_FROM_JSON).read_text(encoding="utf-8"))["caches"]
    except (OSError, ValueError, LookupError):
        return {}
    return dict(noted) if isinstance(noted, dict) else {}


def _find_built(hu_folder: Path, key: str) -> CacheBuild | None:
    """The cache that was built from the same files, unless it is gone or not whole."""
    cache_id = _built_from(hu_folder).get(key)
    if cache_id is None:
        return None
    folder = hu_folder / cache_id
    try:
        n_shards = len(read_about(folder)["shards"])
        rows = _all_rows([read_rows(folder / rows_name(number)) for number in range(n_shards)])
    except DataError:
        return None
    _remove_notes(folder)
    return CacheBuild(folder, cache_id, rows, True)


def _note_built(hu_folder: Path, key: str, cache_id: str) -> None:
    write_json({"caches": {**_built_from(hu_folder), key: cache_id}}, hu_folder / BUILT_FROM_JSON)


def _has_unreadable_files(results: Sequence[ShardResult]) -> bool:
    """Whether a file could not be opened: that can be mended without a trace in the file, so look again."""
    return any(result.rows["reason"].str.startswith("unreadable_file").any() for result in results)


def _all_rows(shards: Sequence[pd.DataFrame]) -> pd.DataFrame:
    return pd.concat(shards, ignore_index=True)


@contextmanager
def _storage_errors(folder: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise StorageError(f"cannot write to {folder}: {error.strerror or error}") from error
