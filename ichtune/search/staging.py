"""Node-local copies of a workspace's tables and HU caches, from shared storage or an fsspec URL, one copy a node.

Below the staging folder lie ``hu/<cache>``, one copy of each cache whatever workspace it belongs to, and one small
folder a state of a workspace: its tables, and links to its caches. A file has its final name only when every byte of
it is there and agrees with the checksum, and ``workspace.json`` and ``cache.json`` come last: a copy that was killed
goes on where it stopped, and is never taken for whole. ``runs/`` and ``searches/`` are not copied but linked, so that
what is written goes to the original.
"""

import errno
import fcntl
import hashlib
import json
import shutil
from collections.abc import Callable, Collection, Iterator
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import xxhash

from ichtune.data.cache.hu_cache import CACHE_JSON, INDEX_FILE
from ichtune.errors import ConfigError, DataError, StorageError, nearest
from ichtune.layout import Layout
from ichtune.store.store import Store
from ichtune.tables import remove_leftovers, whole_file

#: Files copied at a time: one stream from shared storage seldom fills the line.
N_STREAMS = 8
#: Bytes that are left free on the node's disk, for everything else that runs there.
SPARE_BYTES = 256 * 1024 * 1024
_LAYOUT = Layout(Path())
_TABLES = (_LAYOUT.slices, _LAYOUT.folds, _LAYOUT.label_issues, _LAYOUT.sample_submission)


@dataclass(frozen=True)
class StageProgress:
    """How far a copy is.

    Attributes:
        done_bytes: copied by this call.
        total_bytes: to be copied by this call.
        waits: another process of this node is copying, and this one waits for it.
    """

    done_bytes: int
    total_bytes: int
    waits: bool = False


OnProgress = Callable[[StageProgress], None]


def stage_workspace(
    work: str | Path, stage: Path, *, caches: Collection[str] | None = None, on_progress: OnProgress | None = None
) -> Path:
    """Copy what training reads of a workspace to a folder of this node, unless it lies there already.

    Any number of processes may ask at once: one copies, the others wait for it. A workspace that has changed since
    gets another copy; its caches are copied again only if they changed.

    Args:
        work: the workspace: a path, or a URL that fsspec knows (``file://``, ``s3://``, ``gs://``, ``memory://``).
        stage: folder on a disk of this node; made if need be.
        caches: cache_ids to copy; all that the workspace has by default.
        on_progress: told after each file.

    Returns:
        The root of the copy: ``Workspace`` reads it as it reads the original.

    Raises:
        ConfigError: no such cache, or a URL whose file system is not installed.
        DataError: nothing was prepared there, or it is damaged or changes while it is copied.
        StorageError: it cannot be read, or the node's disk cannot hold it.
    """
    plan = _plan(Store(str(work)), stage, caches)
    if plan.is_whole():
        return plan.view
    with _one_copier(stage, on_progress):
        if not plan.is_whole():
            _copy(plan, on_progress or (lambda _: None))
            if _plan(Store(str(work)), stage, caches).view != plan.view:
                raise DataError(f"workspace {work} changed while it was copied to {stage}; wait until it is prepared")
    return plan.view


@dataclass(frozen=True)
class _File:
    """One file to copy: from where in the origin, to where, how long, and the digest that it must have."""

    name: str
    target: Path
    n_bytes: int
    algorithm: str = ""
    digest: str = ""

    def is_there(self) -> bool:
        try:
            return self.target.stat().st_size == self.n_bytes
        except OSError:
            return False


@dataclass(frozen=True)
class _Folder:
    """A folder of the stage: its files, and the marker that is written when they are whole."""

    path: Path
    files: tuple[_File, ...]
    marker: str
    content: bytes

    @cached_property
    def missing(self) -> tuple[_File, ...]:
        return tuple(file for file in self.files if not file.is_there())

    def is_whole(self) -> bool:
        return (self.path / self.marker).is_file() and all(file.is_there() for file in self.files)


@dataclass(frozen=True)
class _Plan:
    """What is copied where: the caches first, then the view of the workspace that links to them."""

    origin: Store
    stage: Path
    caches: dict[str, _Folder]
    tables: _Folder

    @property
    def view(self) -> Path:
        return self.tables.path

    def link(self, cache_id: str) -> Path:
        return Layout(self.view).hu / cache_id

    def is_whole(self) -> bool:
        linked = all(self.link(cache_id).is_dir() for cache_id in self.caches)
        return linked and all(folder.is_whole() for folder in (*self.caches.values(), self.tables))


def _plan(origin: Store, stage: Path, caches: Collection[str] | None) -> _Plan:
    described = origin.read(str(_LAYOUT.workspace_json))
    try:
        about = json.loads(described or b"null")
        known = {str(about["cache_id"]), *(str(note["cache_id"]) for note in about.get("caches") or ())}
    except (ValueError, TypeError, LookupError) as error:
        what = "holds no prepared data" if described is None else f"cannot be read ({error!r})"
        raise DataError(f"workspace {origin.url} {what}: run `ichtune prepare` there first") from error
    for cache_id in caches or ():
        if cache_id not in known:
            raise ConfigError(f"workspace {origin.url} has no HU cache {cache_id!r}. {nearest(cache_id, known)}")
    wanted = sorted(known if caches is None else set(caches))
    tables = _tables(origin, stage, about, described or b"")
    return _Plan(origin, stage, {cache_id: _cache(origin, stage, cache_id) for cache_id in wanted}, tables)


def _tables(origin: Store, stage: Path, about: dict[str, Any], described: bytes) -> _Folder:
    """The view of one state of the workspace, named by its ids and by a digest of what tells states apart."""
    entries = {str(name): entry for name in _TABLES if (entry := origin.entry(str(name))) is not None}
    if str(_LAYOUT.slices) not in entries:
        raise DataError(f"{origin.url}/{_LAYOUT.slices} is missing; run `ichtune prepare` again")
    state = [origin.root, hashlib.sha256(described).hexdigest()]
    state += [repr((name, entry.stamp)) for name, entry in entries.items()]
    digest = hashlib.sha256(json.dumps(state).encode()).hexdigest()
    parts = (str(about["cache_id"])[:12], str(about.get("fold_plan_hash") or "unfolded")[:12], digest[:12])
    path = stage / "-".join(parts)
    files = tuple(_File(name, path / name, entry.n_bytes) for name, entry in entries.items())
    return _Folder(path, files, str(_LAYOUT.workspace_json), described)


def _cache(origin: Store, stage: Path, cache_id: str) -> _Folder:
    source = f"{_LAYOUT.hu}/{cache_id}"
    described = origin.read(f"{source}/{CACHE_JSON}")
    try:
        about = json.loads(described or b"null")
        digest = hashlib.sha256(described or b"").hexdigest()
        path = Layout(stage).hu / f"{cache_id}-{digest[:12]}"
        files = [
            _File(f"{source}/{s['name']}", path / s["name"], s["n_bytes"], "xxh3", s["checksum"])
            for s in about["shards"]
        ]
        rows = [(shard["rows"], "xxh3", shard["rows_checksum"]) for shard in about["shards"] if "rows" in shard]
        for name, algorithm, expected in ((INDEX_FILE, "sha256", about["index_sha256"]), *rows):
            entry = origin.entry(f"{source}/{name}")
            files.append(_File(f"{source}/{name}", path / name, entry.n_bytes if entry else 0, algorithm, expected))
    except (ValueError, TypeError, LookupError) as error:
        what = f"{CACHE_JSON} is missing" if described is None else f"{CACHE_JSON} cannot be read ({error!r})"
        raise DataError(
            f"{origin.url}/{source} is no finished HU cache: {what}; run `ichtune prepare` again"
        ) from error
    return _Folder(path, tuple(files), CACHE_JSON, described or b"")


@contextmanager
def _one_copier(stage: Path, on_progress: OnProgress | None) -> Iterator[None]:
    """Hold the lock of the staging folder; the system lets go of it when its process ends, however it ends."""
    try:
        stage.mkdir(parents=True, exist_ok=True)
        with (stage / "staging.lock").open("w") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                if on_progress:
                    on_progress(StageProgress(0, 0, waits=True))
                fcntl.flock(lock, fcntl.LOCK_EX)
            yield
    except OSError as error:
        raise StorageError(f"cannot stage to {stage}: {error.strerror or error}; name another folder") from error


def _copy(plan: _Plan, on_progress: OnProgress) -> None:
    folders = (*plan.caches.values(), plan.tables)
    missing = [file for folder in folders for file in folder.missing]
    total = sum(file.n_bytes for file in missing)
    for folder in folders:
        folder.path.mkdir(parents=True, exist_ok=True)
        remove_leftovers(folder.path)
    _check_space(plan, total)
    done = 0
    on_progress(StageProgress(done, total))
    with ThreadPoolExecutor(N_STREAMS, thread_name_prefix="staging") as pool:
        copies = {pool.submit(_copy_file, plan.origin, file, plan.stage): file for file in missing}
        try:
            for copied in as_completed(copies):
                copied.result()
                done += copies[copied].n_bytes
                on_progress(StageProgress(done, total))
        finally:
            pool.shutdown(cancel_futures=True)
    for cache_id, folder in plan.caches.items():
        _finish(folder)
        _link(plan.link(cache_id), Path("..") / ".." / _LAYOUT.hu / folder.path.name)
    if plan.origin.is_local:
        for name in (_LAYOUT.runs, _LAYOUT.searches):
            _link(plan.view / name, Path(plan.origin.root) / name)
    _finish(plan.tables)


def _check_space(plan: _Plan, total: int) -> None:
    free = shutil.disk_usage(plan.stage).free
    if free < total + SPARE_BYTES:
        raise StorageError(
            f"staging {plan.origin.url} takes {_size(total)} and {_size(SPARE_BYTES)} to spare, but {plan.stage} has "
            f"{_size(free)} free; remove copies there that no search uses, or name a folder on a larger disk"
        )


def _copy_file(origin: Store, file: _File, stage: Path) -> None:
    digest: Any = {"xxh3": xxhash.xxh3_128, "sha256": hashlib.sha256, "": None}[file.algorithm]
    digest = digest() if digest else None
    n_bytes = 0
    try:
        with whole_file(file.target) as temporary:
            with temporary.open("wb") as out:
                for block in origin.blocks(file.name):
                    n_bytes += out.write(block)
                    if digest:
                        digest.update(block)
            _check_copy(origin, file, n_bytes, digest.hexdigest() if digest else "")
    except LookupError:
        raise DataError(f"{origin.address(file.name)} is missing; run `ichtune prepare` again") from None
    except StorageError as error:
        if isinstance(error.__cause__, OSError) and error.__cause__.errno in (errno.ENOSPC, errno.EDQUOT):
            raise StorageError(
                f"no space left in {stage} while staging {origin.url}; remove copies there that no search uses, or "
                f"name a folder on a larger disk. What is copied is kept"
            ) from error
        raise


def _check_copy(origin: Store, file: _File, n_bytes: int, digest: str) -> None:
    if n_bytes != file.n_bytes:
        raise DataError(
            f"{origin.url}/{file.name} has {n_bytes} bytes, expected {file.n_bytes}; run `ichtune prepare` again"
        )
    if digest != file.digest:
        raise DataError(f"{origin.url}/{file.name} is damaged: its checksum differs; run `ichtune prepare` again")


def _finish(folder: _Folder) -> None:
    with whole_file(folder.path / folder.marker) as temporary:
        temporary.write_bytes(folder.content)


def _link(link: Path, target: Path) -> None:
    """Make a link, or make it anew where it leads elsewhere."""
    link.parent.mkdir(parents=True, exist_ok=True)
    if link.is_symlink() and link.readlink() == target:
        return
    link.unlink(missing_ok=True)
    link.symlink_to(target)


def _size(n_bytes: float) -> str:
    return f"{n_bytes / 1024**3:.1f} GiB" if n_bytes >= 1024**3 else f"{n_bytes / 1024**2:.0f} MiB"
