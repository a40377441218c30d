"""Building the HU cache on a Ray cluster: each shard is one task, on whichever node has a core free."""

import os
import platform
import tempfile
import time
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2

from ichtune.data.cache.shard_pool import RunShards
from ichtune.data.cache.shards import ShardResult, ShardTask, build_shard
from ichtune.errors import ConfigError, DataError, IchtuneError, StorageError
from ichtune.search.cluster import ray_session
from ichtune.version import __version__

#: Times that a shard is begun again when the node or process that built it is lost.
MAX_RETRIES = 3
#: Seconds that a file written on one node may take to be seen on another; network file systems keep old listings.
SEEN_WITHIN_S = 30.0
_LOOK_AGAIN_S = 0.25
_SHARED = "the DICOM files and the workspace must lie on storage that every node sees under the same path"


@contextmanager
def ray_shards(address: str) -> Iterator[RunShards]:
    """Join a Ray cluster, and give the way to build shards on it: ``build_cache(..., run_shards=...)``.

    A shard is one task of one CPU, and no more are handed out than there are CPUs. A node that is lost costs its
    shards in flight, which others begin again. Before it reads anything a task makes sure that its node sees the
    source and the very folder that the cache is written to, and has the same version of ichtune.

    Args:
        address: of the cluster, ``host:port``; ``local`` starts a Ray here for the length of the block.

    Raises:
        ConfigError: there is no cluster at the address.
    """
    with (
        tempfile.TemporaryDirectory(prefix="ichtune-ray-") as folder,
        ray_session(address, Path(folder) / "token", dashboard=False),
    ):
        yield _run_on_ray


def _run_on_ray(tasks: Sequence[ShardTask]) -> Iterator[ShardResult]:
    """Build shards as Ray tasks; yields them in whatever order they finish."""
    if not tasks:
        return
    waiting = iter([replace(task, source=task.source.resolve(), folder=task.folder.resolve()) for task in tasks])
    with _marker(tasks[0].folder.resolve()) as marker:
        yield from _finished(waiting, marker)


def _finished(waiting: Iterator[ShardTask], marker: Path) -> Iterator[ShardResult]:
    import ray

    remote = ray.remote(num_cpus=1, max_retries=MAX_RETRIES)(_build)
    running: dict[Any, ShardTask] = {}

    def hand_out() -> None:
        while len(running) < _n_cpus() and (task := next(waiting, None)) is not None:
            named = remote.options(name=f"shard_{task.number:05d}")
            running[named.remote(task, marker.name, __version__)] = task

    try:
        hand_out()
        while running:
            ready, _ = ray.wait(list(running), num_returns=1)
            task = running.pop(ready[0])
            result = _result(ready[0])
            hand_out()  # before whoever asked takes time over the result
            _check_written(task)
            yield result
    finally:
        for reference in running:
            with suppress(ray.exceptions.RayError):
                ray.cancel(reference, force=True)


def _n_cpus() -> int:
    """CPUs of the cluster now: it may grow and shrink."""
    import ray

    return max(1, int(ray.cluster_resources().get("CPU", 0)))


def _result(reference: Any) -> ShardResult:
    """What a task returned; its own deliberate error as itself."""
    import ray

    try:
        result: ShardResult = ray.get(reference)
        return result
    except ray.exceptions.RayTaskError as error:
        if isinstance(error.cause, IchtuneError):
            raise error.cause from error
        raise
    except ray.exceptions.RayError as error:
        first = str(error).strip().splitlines()[0]
        raise DataError(
            f"a shard was lost {MAX_RETRIES + 1} times on the cluster, with its node or its process ({first}): a node "
            "was stopped, or memory ran out. Finished shards are kept; run the same command again"
        ) from error


def _build(task: ShardTask, marker: str, version: str) -> ShardResult:
    """Build one shard, on a node of the cluster."""
    check_node(task, marker, version)
    cv2.setNumThreads(1)
    return build_shard(task)


def check_node(task: ShardTask, marker: str, version: str, within_s: float = SEEN_WITHIN_S) -> None:
    """Make sure that this node can build a shard that the others will see.

    Args:
        task: the shard, with absolute paths.
        marker: name of a file that was laid into the cache's folder.
        version: of ichtune, where the build was started.
        within_s: how long to wait until the marker is seen.

    Raises:
        ConfigError: another version of ichtune runs here.
        StorageError: the source or the folder is not seen here.
    """
    node = platform.node()
    if version != __version__:
        raise ConfigError(
            f"node {node} has ichtune {__version__}, the build was started with {version}; install the same version "
            "on every node"
        )
    first = task.files[0]
    source = task.source / (first.member.archive.path if first.member else first.path)
    if not os.path.lexists(source):
        raise StorageError(f"node {node} does not see {source}: {_SHARED}, or the file is gone")
    if not _is_seen(task.folder / marker, within_s):
        raise StorageError(f"node {node} does not see the cache's folder {task.folder}, or sees another one: {_SHARED}")


def _is_seen(path: Path, within_s: float) -> bool:
    """Whether a path is there; waits for it, listing its folder anew, as long as that folder is there."""
    deadline = time.monotonic() + within_s
    while not os.path.lexists(path):
        if time.monotonic() >= deadline or not path.parent.is_dir():
            return False
        with suppress(OSError):
            os.listdir(path.parent)
        time.sleep(_LOOK_AGAIN_S)
    return True


def _check_written(task: ShardTask) -> None:
    """Make sure that what a node wrote is seen here."""
    for path in (task.pixels, task.rows):
        if not _is_seen(path, SEEN_WITHIN_S):
            raise StorageError(f"a node wrote {path}, which is not seen here: {_SHARED}")


@contextmanager
def _marker(folder: Path) -> Iterator[Path]:
    """Lay an empty file into the cache's folder, by which a node knows it from another of the same name."""
    path = folder / f".shared-{uuid.uuid4().hex}.tmp"  # the next build removes it should this one be killed
    try:
        path.touch()
    except OSError as error:
        raise StorageError(f"cannot write {path}: {error.strerror or error}") from error
    try:
        yield path
    finally:
        path.unlink(missing_ok=True)
