"""Building a HU cache: shards in parallel, then the index, then the one file that says that it is whole.

A cache is named by what it holds: ``cache_id`` is a hash over its pixels, its rows, its size, its crop and the
version of its preprocessing. Which source gave which cache is noted in ``built_from.json`` by path, size and time of
change of every file, so that an unchanged source is recognised without opening a file, and a touched one is
read again.
"""

import logging
import shutil
import time
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from ichtune.data.cache.finish import CacheBuild, find_built, finish_cache, note_built, settle, source_key
from ichtune.data.cache.hu_cache import read_about
from ichtune.data.cache.shard_pool import RunShards, available_cores, local_shards
from ichtune.data.cache.shards import (
    CacheSpec,
    DiskFullError,
    ShardResult,
    ShardTask,
    cut_files,
    read_shard,
    shard_state,
)
from ichtune.data.source_files import SourceFiles
from ichtune.errors import DataError, StorageError
from ichtune.locks import only_one
from ichtune.tables import remove_leftovers

__all__ = ["CacheBuild", "CacheSpec", "Progress", "RunShards", "build_cache"]

#: Below this many files starting processes costs more than it saves.
_WORTH_PROCESSES = 2048
_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Progress:
    """How far a build is.

    Attributes:
        n_files: files in all.
        n_done: files read, those of earlier runs among them.
        n_rows: slices and refused files that they gave.
        n_refused: rows without pixels.
        n_resumed: files that an earlier run had read.
        seconds: since this run began.
    """

    n_files: int
    n_done: int
    n_rows: int
    n_refused: int
    n_resumed: int
    seconds: float

    @property
    def files_per_second(self) -> float:
        """Files read in this run; those that an earlier run had finished do not count."""
        return (self.n_done - self.n_resumed) / self.seconds if self.seconds > 0 else 0.0

    @property
    def eta_s(self) -> float | None:
        """Seconds until the last file is read; None as long as nothing tells."""
        return (self.n_files - self.n_done) / self.files_per_second if self.files_per_second else None


OnProgress = Callable[[Progress], None]


def build_cache(
    source: SourceFiles,
    hu_folder: Path,
    spec: CacheSpec,
    *,
    boxes: np.ndarray | None = None,
    base: CacheBuild | None = None,
    n_processes: int | None = None,
    run_shards: RunShards | None = None,
    on_progress: OnProgress | None = None,
) -> CacheBuild:
    """Build the cache of a source, or find the one that is there.

    Args:
        source: the files, in order.
        hu_folder: folder of all caches of a workspace.
        spec: what is cached of each slice.
        boxes: float64 (n_rows, 3), what a crop keeps of each row: top, left and side as fractions of the padded
            square. None for ``crop="none"``.
        base: the uncropped cache of the same source whose rows the boxes belong to; goes with them.
        n_processes: worker processes; None takes every core that this process may use.
        run_shards: builds the shards elsewhere; None builds them on this machine.
        on_progress: called once before and after every shard.

    Raises:
        DataError: a listed file has gone, a worker process died, or the source is not the one of the base.
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
        remove_leftovers(hu_folder)
        key = source_key(source, spec, boxes)
        found = find_built(hu_folder, key, source)
        if found:
            return found
        building = hu_folder / f".building-{spec.size_px or 'native'}{'' if spec.crop == 'none' else '-' + spec.crop}"
        building.mkdir(parents=True, exist_ok=True)
        remove_leftovers(building)
        tasks = plan_shards(source, building, spec, boxes, base)
        if run_shards is None:
            few = len(source.files) < _WORTH_PROCESSES
            run_shards = local_shards(n_processes or (1 if few else available_cores()))
        results = _run(tasks, run_shards, on_progress)
        build = finish_cache(building, results, spec)
        if base and build.rows_id != base.rows_id:
            raise DataError(f"{source.folder} changed while it was read; run `ichtune prepare` again")
        note_built(hu_folder, key, build.cache_id)
        settle(building, hu_folder / build.cache_id)
        return replace(build, folder=hu_folder / build.cache_id)


def plan_shards(
    source: SourceFiles,
    folder: Path,
    spec: CacheSpec,
    boxes: np.ndarray | None = None,
    base: CacheBuild | None = None,
) -> list[ShardTask]:
    """Cut the files, in order, into tasks, and the boxes by the rows that each shard of the base has.

    Raises:
        DataError: boxes without a base, or a base of other files.
    """
    parts = list(cut_files(source.files))
    of_part: list[np.ndarray | None] = [None] * len(parts)
    if boxes is not None:
        if base is None:
            raise DataError("boxes belong to the rows of an uncropped cache: give that cache as base")
        n_rows = [shard["n_rows"] for shard in read_about(base.folder)["shards"]]
        if len(n_rows) != len(parts) or boxes.shape != (sum(n_rows), 3):
            raise DataError(
                f"boxes must be ({sum(n_rows)}, 3) for {len(n_rows)} shards, got {boxes.shape} for {len(parts)}; run "
                "`ichtune prepare` again"
            )
        of_part = list(np.split(boxes, np.cumsum(n_rows)[:-1]))
    return [
        ShardTask(number, source.folder, files, shard_state(files, spec, part), folder, spec, part)
        for number, (files, part) in enumerate(zip(parts, of_part, strict=True))
    ]


def _run(tasks: Sequence[ShardTask], run_shards: RunShards, on_progress: OnProgress | None) -> list[ShardResult]:
    """Build every shard that is not there yet; returns all of them in order."""
    start = time.monotonic()
    results = {task.number: result for task in tasks if (result := read_shard(task))}
    n_files = sum(len(task.files) for task in tasks)
    n_resumed = sum(result.n_files for result in results.values())
    n_done, n_rows = n_resumed, sum(result.n_rows for result in results.values())
    n_refused = sum(result.n_refused for result in results.values())

    def report() -> None:
        if on_progress:
            on_progress(Progress(n_files, n_done, n_rows, n_refused, n_resumed, time.monotonic() - start))

    report()
    built = run_shards([task for task in tasks if task.number not in results])
    try:
        for result in built:
            results[result.number] = result
            n_done, n_rows = n_done + result.n_files, n_rows + result.n_rows
            n_refused += result.n_refused
            report()
    except DiskFullError as error:
        raise _disk_full(error, tasks, results) from error
    except KeyboardInterrupt:
        _log.warning("stopped with %d of %d files read; run the same command again to go on", n_done, n_files)
        raise
    finally:
        if isinstance(built, Generator):
            built.close()  # ends its workers now, whatever else still holds it
        remove_leftovers(tasks[0].folder)
    if len(results) != len(tasks):
        raise DataError(f"{len(results)} of {len(tasks)} shards were built; run the same command again to go on")
    return [results[task.number] for task in tasks]


def _disk_full(error: DiskFullError, tasks: Sequence[ShardTask], results: dict[int, ShardResult]) -> StorageError:
    """The same error with what is free, what is needed, and what to do."""
    free = shutil.disk_usage(tasks[0].folder).free
    left = sum(len(task.files) for task in tasks if task.number not in results)
    n_done = sum(result.n_files for result in results.values())
    needed = f"{left} files are left"
    if n_done:
        n_bytes = sum(result.n_bytes for result in results.values()) / n_done * left
        needed += f", which need about {_size(n_bytes)}"
    return StorageError(
        f"{error}; {_size(free)} are free, {needed}. Finished shards are kept: make room and run the same "
        "command again, or use another --out"
    )


def _size(n_bytes: float) -> str:
    return f"{n_bytes / 1e9:.1f} GB" if n_bytes >= 1e9 else f"{n_bytes / 1e6:.1f} MB"


@contextmanager
def _storage_errors(folder: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise StorageError(f"cannot write to {folder}: {error.strerror or error}") from error
