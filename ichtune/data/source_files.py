"""Every file under a folder that could be a DICOM file, in one fixed order."""

import hashlib
import os
import stat
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from ichtune.data.dicom_parse import is_dicom
from ichtune.errors import DataError, NothingUsableError, StorageError

#: Names that promise DICOM: such a file is a row of the table even when it turns out to be something else.
DICOM_SUFFIXES = frozenset({".dcm", ".dicom", ".ima"})
#: What ichtune and the competition lay beside the images.
_OTHER_SUFFIXES = frozenset({".csv", ".json", ".parquet", ".yaml", ".yml", ".md", ".html"})
_HEAD_BYTES = 256


@dataclass(frozen=True)
class SourceFile:
    """One file: its path below the folder with forward slashes, its size and time of change."""

    path: str
    size_bytes: int
    mtime_ns: int


@dataclass(frozen=True)
class SourceFiles:
    """The files of one source folder, in path order, and how many others were left alone."""

    folder: Path
    files: tuple[SourceFile, ...]
    n_ignored: int


def state_hash(files: Iterable[SourceFile]) -> str:
    """Hash over every path, size and time of change: the same until a file is touched."""
    digest = hashlib.sha256()
    for file in files:
        line = f"{file.path}\0{file.size_bytes}\0{file.mtime_ns}\n"
        digest.update(line.encode("utf-8", "surrogateescape"))
    return digest.hexdigest()


def find_files(folder: Path, leave_out: Path | None = None) -> SourceFiles:
    """List the files of a folder and its sub-folders.

    A name that ends in .dcm, .dicom or .ima counts by its name; any other file counts when its first bytes
    look like DICOM. Hidden files, tables and text files are ignored and counted, as is a DICOMDIR.

    Args:
        folder: where to look; links to folders are followed, each folder is visited once.
        leave_out: a folder to skip, the workspace when it lies inside.

    Raises:
        DataError: no such folder, or it is a file.
        NothingUsableError: no file at all, or none that could be DICOM.
        StorageError: the folder may not be read.
    """
    if not folder.exists():
        raise DataError(f"{folder} does not exist; name the folder that holds the DICOM files")
    if not folder.is_dir():
        raise DataError(f"{folder} is a file, expected the folder that holds the DICOM files")
    found: list[SourceFile] = []
    n_ignored = 0
    for entry, relative in _walk(folder, leave_out):
        if _could_be_dicom(entry):
            found.append(_source_file(entry, relative))
        else:
            n_ignored += 1
    if not found:
        held = f"holds {n_ignored} files, none of them DICOM" if n_ignored else "is empty"
        raise NothingUsableError(f"{folder} {held}; name the folder that holds the DICOM files")
    found.sort(key=lambda file: os.fsencode(file.path))
    return SourceFiles(folder, tuple(found), n_ignored)


def readable_path(path: str) -> str:
    """Return a path as text that every table can hold; bytes that are no UTF-8 are written as escapes."""
    return path.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")


def _walk(folder: Path, leave_out: Path | None) -> Iterator[tuple[os.DirEntry[str], str]]:
    skipped = leave_out.resolve() if leave_out else None
    visited: set[tuple[int, int]] = set()
    pending = [(str(folder), "")]
    while pending:
        where, prefix = pending.pop()
        try:
            about = os.stat(where)
            if (about.st_dev, about.st_ino) in visited or (skipped and Path(where).resolve() == skipped):
                continue
            visited.add((about.st_dev, about.st_ino))
            entries = list(os.scandir(where))
        except OSError as error:
            raise StorageError(f"cannot read the folder {where}: {error.strerror or error}") from error
        for entry in entries:
            if entry.is_dir():
                pending.append((entry.path, f"{prefix}{entry.name}/"))
            else:
                yield entry, f"{prefix}{entry.name}"


def _could_be_dicom(entry: os.DirEntry[str]) -> bool:
    suffix = os.path.splitext(entry.name)[1].lower()
    if entry.name.startswith(".") or suffix in _OTHER_SUFFIXES or entry.name.upper() == "DICOMDIR":
        return False
    try:
        if not stat.S_ISREG(entry.stat().st_mode):
            return False  # opening a pipe would wait for ever
        if suffix in DICOM_SUFFIXES:
            return True
        with open(entry.path, "rb") as file:
            return is_dicom(file.read(_HEAD_BYTES))
    except OSError:
        return True  # becomes a row that says that it cannot be read


def _source_file(entry: os.DirEntry[str], relative: str) -> SourceFile:
    try:
        about = entry.stat()
    except OSError:
        return SourceFile(relative, 0, 0)
    return SourceFile(relative, about.st_size, about.st_mtime_ns)
