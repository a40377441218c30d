"""Store: whole files below a URL, through fsspec. A file has its final name only when every byte of it is there."""

import errno
import os
import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import fsspec

from ichtune.errors import ConfigError, StorageError
from ichtune.tables import whole_file

T = TypeVar("T")
#: Bytes read at a time.
BLOCK_BYTES = 4 * 1024 * 1024
#: Seconds to wait before each further try of what a network may have spoilt.
WAITS_S = (0.5, 2.0)
#: Protocols whose uploads appear whole or not at all; elsewhere a temporary name is written, then moved.
_WHOLE_UPLOADS = frozenset({"s3", "s3a", "gs", "gcs", "az", "abfs", "abfss", "oss", "oci"})
#: What tells two states of a file apart, by file system; the first that a file has counts.
_STAMPS = ("ETag", "etag", "md5Hash", "content_md5", "mtime", "LastModified", "last_modified", "created")
_TEMPORARY = ".tmp"
#: Errors that another try does not mend.
_FINAL = (
    FileNotFoundError,
    FileExistsError,
    NotADirectoryError,
    IsADirectoryError,
    PermissionError,
    NotImplementedError,
)
#: What is in the text of an error for want of credentials.
_REFUSALS = ("credential", "access denied", "forbidden")


@dataclass(frozen=True)
class Entry:
    """A file of a store: its length in bytes, and a text that changes whenever the file does."""

    n_bytes: int
    stamp: str


class Store:
    """Files below one URL, by names relative to it.

    Args:
        url: anything that fsspec knows: ``s3://bucket/prefix``, ``gs://``, ``sftp://``, ``file://``, ``memory://``;
            or a path.

    Attributes:
        url: as it was given.
        root: the same without its protocol; an absolute path where it is a local one.
        is_local: whether it lies on a disk of this machine, or mounted here.

    Raises:
        ConfigError: an unknown protocol, or one whose package is not installed.
    """

    def __init__(self, url: str) -> None:
        self.url = url.rstrip("/")
        try:
            self._fs, root = fsspec.core.url_to_fs(url)
        except ImportError as error:
            raise ConfigError(
                f"cannot open {url}: {error}. Install that package here and on every node of the cluster (for S3: "
                f"pip install 'ichtune[s3]'), then run the same command"
            ) from error
        except ValueError as error:
            raise ConfigError(
                f"cannot open {url}: {error}; name a folder, or a URL such as s3://bucket/prefix"
            ) from error
        except Exception as error:
            raise StorageError(f"cannot open {url}: {_told(error)}{_hint(error)}") from error
        self.root = str(root).rstrip("/")
        protocols = (self._fs.protocol,) if isinstance(self._fs.protocol, str) else tuple(self._fs.protocol)
        self.is_local = "file" in protocols
        self._is_whole = bool(_WHOLE_UPLOADS & set(protocols))
        self._made: set[str] = set()

    def __repr__(self) -> str:
        return f"Store({self.url!r})"

    def address(self, name: str) -> str:
        """Return the URL of a file, for people."""
        return f"{self.url}/{name}"

    def read(self, name: str) -> bytes | None:
        """Return the content of a small file; None where there is none.

        Raises:
            StorageError: it cannot be read.
        """
        try:
            return self._try("read", name, lambda: bytes(self._fs.cat_file(self._path(name))))
        except FileNotFoundError:
            return None

    def read_all(self, names: Sequence[str]) -> list[bytes]:
        """Return the content of many small files, several at a time where the file system can.

        Raises:
            FileNotFoundError: one of them is gone.
            StorageError: one of them cannot be read.
        """
        if not names:
            return []
        paths = [self._path(name) for name in names]
        found = self._try("read", names[0], lambda: self._fs.cat(paths, on_error="raise"))
        return [bytes(found[path]) for path in paths]

    def write(self, name: str, content: bytes, *, is_new: bool = False) -> None:
        """Write a small file, whole or not at all.

        Args:
            name: of the file.
            content: of the file.
            is_new: refuse to replace a file. S3, GCS, Azure and folders make sure of that; elsewhere another writer at
                the same instant may go unseen.

        Raises:
            FileExistsError: it is there already and ``is_new``.
            StorageError: it cannot be written.
        """
        if is_new:
            self._make_parent(name)
            self._try("write", name, lambda: self._create(name, content))
        elif self.is_local:
            with whole_file(Path(self._path(name))) as temporary:
                temporary.write_bytes(content)
        elif self._is_whole:
            self._try("write", name, lambda: self._fs.pipe_file(self._path(name), content))
        else:
            self._write_and_move(name, lambda path: self._fs.pipe_file(path, content))

    def upload(self, source: Path, name: str) -> Entry:
        """Copy a local file into the store, whole or not at all.

        Returns:
            What the store says of it.

        Raises:
            StorageError: it cannot be read or written.
        """
        if self.is_local:
            with whole_file(Path(self._path(name))) as temporary:
                shutil.copyfile(source, temporary)
        elif self._is_whole:
            self._try("write", name, lambda: self._fs.put_file(str(source), self._path(name)))
        else:
            self._write_and_move(name, lambda path: self._fs.put_file(str(source), path))
        entry = self.entry(name)
        if entry is None:
            raise StorageError(f"{self.address(name)} is gone right after it was written; look what removes it")
        return entry

    def download(self, name: str, target: Path) -> None:
        """Copy a file of the store to this machine, whole or not at all.

        Raises:
            FileNotFoundError: there is none.
            StorageError: it cannot be read, or the local disk is full.
        """
        temporary = target.with_name(f".{target.name}.{os.getpid()}{_TEMPORARY}")
        target.parent.mkdir(parents=True, exist_ok=True)
        try:
            self._try("read", name, lambda: self._fs.get_file(self._path(name), str(temporary)))
            with temporary.open("rb+") as file:
                os.fsync(file.fileno())
            os.replace(temporary, target)
        finally:
            temporary.unlink(missing_ok=True)

    def blocks(self, name: str) -> Iterator[bytes]:
        """Yield a file from its beginning to its end.

        Raises:
            LookupError: there is none.
            StorageError: it cannot be read.
        """
        try:
            with self._saying("read", name), self._fs.open(self._path(name), "rb", block_size=BLOCK_BYTES) as file:
                while block := file.read(BLOCK_BYTES):
                    yield block
        except FileNotFoundError as error:  # no error of the disk that it is written to
            raise LookupError(f"{self.address(name)} does not exist") from error

    def entry(self, name: str) -> Entry | None:
        """Return what the store says of a file; None where there is none.

        Raises:
            StorageError: it cannot be asked.
        """
        self._fs.invalidate_cache()
        try:
            return _entry(self._try("read", name, lambda: self._fs.info(self._path(name))))
        except FileNotFoundError:
            return None

    def files(self, folder: str) -> dict[str, Entry]:
        """Return every file below a folder, by its name relative to that folder; hidden ones are left out.

        Raises:
            StorageError: it cannot be listed.
        """
        self._fs.invalidate_cache()
        path = self._path(folder)
        try:
            found = self._try("read", folder, lambda: self._fs.find(path, detail=True))
        except FileNotFoundError:
            return {}
        named = {str(full)[len(path) :].lstrip("/"): info for full, info in found.items()}
        return {name: _entry(info) for name, info in named.items() if name and not _is_hidden(name)}

    def folders(self, folder: str) -> list[str]:
        """Return the names of the folders in a folder, in alphabetical order.

        Raises:
            StorageError: it cannot be listed.
        """
        self._fs.invalidate_cache()
        path = self._path(folder)
        try:
            found = self._try("read", folder, lambda: self._fs.ls(path, detail=True))
        except FileNotFoundError:
            return []
        names = [str(info["name"]).rstrip("/").rpartition("/")[2] for info in found if info["type"] == "directory"]
        return sorted(name for name in names if not name.startswith("."))

    def remove(self, names: Sequence[str]) -> None:
        """Remove files; those that are gone already do not matter.

        Raises:
            StorageError: one cannot be removed.
        """
        if names:
            try:
                self._try("remove", names[0], lambda: self._fs.rm([self._path(name) for name in names]))
            except FileNotFoundError:
                for name in names if len(names) > 1 else ():
                    self.remove([name])

    def _path(self, name: str) -> str:
        return f"{self.root}/{name}" if name else self.root

    def _create(self, name: str, content: bytes) -> None:
        if self.is_local:  # fsspec would only look first whether it is there
            with Path(self._path(name)).open("xb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            return
        path = self._path(name)
        try:
            self._fs.pipe_file(path, content, mode="create")
        except (TypeError, NotImplementedError, OSError) as error:
            if isinstance(error, OSError) and error.errno != errno.ENOSYS:
                raise
            if self._fs.exists(path):  # this store knows no such thing: look first, and hope
                raise FileExistsError(errno.EEXIST, "it is there already", path) from error
            self._fs.pipe_file(path, content)

    def _make_parent(self, name: str) -> None:
        parent = self._path(name).rpartition("/")[0]
        if not self._is_whole and parent not in self._made:
            self._try("write", name, lambda: self._fs.makedirs(parent, exist_ok=True))
            self._made.add(parent)

    def _write_and_move(self, name: str, write: Callable[[str], Any]) -> None:
        path = self._path(name)
        parent, _, last = path.rpartition("/")
        temporary = f"{parent}/.{last}.{os.getpid()}{_TEMPORARY}"

        def write_and_move() -> None:
            write(temporary)
            self._fs.mv(temporary, path)

        self._make_parent(name)
        self._try("write", name, write_and_move)

    def _try(self, what: str, name: str, work: Callable[[], T]) -> T:
        """Do something with a file, again where a network may have spoilt it, and say so where it cannot be done."""
        for wait_s in WAITS_S:
            try:
                with self._saying(what, name):
                    return work()
            except StorageError as error:
                if isinstance(error.__cause__, _FINAL) or _is_refused(error.__cause__):
                    raise
            time.sleep(wait_s)
        with self._saying(what, name):
            return work()

    @contextmanager
    def _saying(self, what: str, name: str) -> Iterator[None]:
        """Say which file it was; that one does not exist, or exists already, is for the caller to judge."""
        try:
            yield
        except FileNotFoundError as error:
            if what != "write":
                raise
            raise StorageError(f"cannot write {self.address(name)}: {_told(error)}; does the bucket exist?") from error
        except (NotADirectoryError, IsADirectoryError) as error:
            raise FileNotFoundError(errno.ENOENT, "no such file", self.address(name)) from error
        except FileExistsError:
            raise
        except Exception as error:
            raise StorageError(f"cannot {what} {self.address(name)}: {_told(error)}{_hint(error)}") from error


def _entry(info: dict[str, Any]) -> Entry:
    stamp = next((info[key] for key in _STAMPS if info.get(key) is not None), "")
    stamp = stamp.timestamp() if hasattr(stamp, "timestamp") else stamp
    return Entry(int(info.get("size") or 0), f"{info.get('size')}|{stamp}|{info.get('ino', '')}")


def _is_hidden(name: str) -> bool:
    return name.rpartition("/")[2].startswith(".")


def _told(error: BaseException) -> str:
    return getattr(error, "strerror", None) or str(error).strip() or type(error).__name__


def _is_refused(error: BaseException | None) -> bool:
    """Say whether it is for want of credentials, or of the right ones."""
    told = f"{type(error).__name__} {error}".lower()
    return isinstance(error, PermissionError) or any(words in told for words in _REFUSALS)


def _hint(error: BaseException) -> str:
    if not _is_refused(error):
        return ""
    return (
        "; check the credentials that this machine and every node use for it (for S3: AWS_PROFILE, or "
        "AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY), and that they may list, read, write and delete there"
    )
