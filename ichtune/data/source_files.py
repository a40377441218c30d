"""Every file under a folder or in a zip archive that could be a DICOM file, in one fixed order."""

import errno
import hashlib
import os
import stat
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path

from ichtune.data.archives import ZIP_SUFFIX, Archive, ZipMember, list_members, read_head, read_member
from ichtune.data.dicom.parse import is_dicom
from ichtune.errors import DataError, NothingUsableError, StorageError

#: Names that promise DICOM: such a file is a row of the table even when it turns out to be something else.
DICOM_SUFFIXES = frozenset({".dcm", ".dicom", ".ima"})
#: Between the path of an archive and the name of a file in it.
IN_ARCHIVE = "!/"
#: What ichtune and the competition lay beside the images.
_OTHER_SUFFIXES = frozenset({".csv", ".json", ".parquet", ".yaml", ".yml", ".md", ".html"})
#: Folder in archives made on a Mac: icons and tags, under the names of the files that they belong to.
_RESOURCE_FORKS = "__MACOSX"
_HEAD_BYTES = 256
#: A file larger than this is not read into memory; a thousand frames of 512 x 512 fit.
MAX_FILE_BYTES = 512 * 1024 * 1024
#: Errors of the machine or of a share, which say nothing about the file.
_SOURCE_IS_AWAY = {
    errno.ESTALE,
    errno.ENOTCONN,
    errno.ENODEV,
    errno.ETIMEDOUT,
    errno.EHOSTDOWN,
    errno.EHOSTUNREACH,
    errno.EMFILE,
    errno.ENFILE,
    errno.ENOMEM,
}
_NESTED = "unreadable_file: a zip archive in a zip archive; unpack the outer one first"


@dataclass(frozen=True, slots=True)
class SourceFile:
    """One file, in a folder or in an archive.

    Attributes:
        path: below the source folder, with forward slashes; ``sub/archive.zip!/inner/name.dcm`` in an archive.
        size_bytes: of its content.
        mtime_ns: time of change; 0 in an archive, where the checksum of the content says more.
        member: where it lies in an archive; None for a plain file.
    """

    path: str
    size_bytes: int
    mtime_ns: int
    member: ZipMember | None = None


@dataclass(frozen=True)
class SourceFiles:
    """The files of one source, in path order, and how many others were left alone."""

    folder: Path
    files: tuple[SourceFile, ...]
    n_ignored: int


def state_hash(files: Iterable[SourceFile]) -> str:
    """Hash over every path, size and time of change, or checksum in an archive: the same until a file is touched."""
    digest = hashlib.sha256()
    for file in files:
        about = f"crc{file.member.crc}{file.member.refusal}" if file.member else file.mtime_ns
        line = f"{file.path}\0{file.size_bytes}\0{about}\n"
        digest.update(line.encode("utf-8", "surrogateescape"))
    return digest.hexdigest()


def find_files(folder: Path, leave_out: Path | None = None) -> SourceFiles:
    """List the files of a folder, of its sub-folders, and of the zip archives in them.

    A name that ends in .dcm, .dicom or .ima counts by its name; any other file counts when its first bytes look
    like DICOM; of hidden files, tables and text files only the DICM mark does. All others are ignored and counted,
    as are a DICOMDIR and what a Mac adds to archives. An archive that cannot be opened is listed as one file, which
    becomes a row with the reason.

    Args:
        folder: where to look, or one zip archive; links to folders are followed, each folder is visited once.
        leave_out: a folder to skip, the workspace when it lies inside.

    Raises:
        DataError: no such folder, or it is a file other than a sound zip archive.
        NothingUsableError: no file at all, or none that could be DICOM.
        StorageError: the folder may not be read.
    """
    if not folder.exists():
        raise DataError(f"{folder} does not exist; name the folder or zip archive that holds the DICOM files")
    is_archive = not folder.is_dir()
    if is_archive and not _is_zip(folder.name):
        raise DataError(f"{folder} is a file, expected the folder or zip archive that holds the DICOM files")
    root = folder.parent if is_archive else folder
    found: list[SourceFile] = []
    n_ignored = 0
    for file in _archive_files(root, folder.name, is_only=True) if is_archive else _folder_files(root, leave_out):
        if file:
            found.append(file)
        else:
            n_ignored += 1
    if not found:
        held = f"holds {n_ignored} files, none of them DICOM" if n_ignored else "is empty"
        raise NothingUsableError(f"{folder} {held}; name the folder or zip archive that holds the DICOM files")
    return SourceFiles(root, _in_order(found), n_ignored)


def read_source(folder: Path, file: SourceFile) -> bytes:
    """Read one listed file whole, once.

    Raises:
        DataError: ``unreadable_file: ...``, for the reason of its row.
        FileNotFoundError: the file is gone, or its archive is no longer the one that was listed.
        StorageError: the whole source is out of reach.
    """
    location = os.path.join(folder, file.member.archive.path if file.member else file.path)
    try:
        if file.member:
            return read_member(folder, file.member, file.size_bytes, MAX_FILE_BYTES)
        return _whole_file(location)
    except FileNotFoundError as error:
        if os.path.islink(location):
            raise DataError("unreadable_file: a link to a file that is not there") from error
        raise
    except OSError as error:
        if error.errno in _SOURCE_IS_AWAY:
            raise StorageError(
                f"cannot read {location}: {error.strerror}; see that the disk or share of the source is there and run "
                "the same command again, it goes on where it stopped"
            ) from error
        raise DataError(f"unreadable_file: {error.strerror or type(error).__name__}") from error


def read_file_bytes(path: Path) -> bytes:
    """Read a file that was not listed; raises what ``read_source`` raises."""
    return read_source(path.parent, SourceFile(path.name, 0, 0))


def _whole_file(location: str) -> bytes:
    """The content of a file; nothing of one that is too large is read."""
    with open(location, "rb", buffering=0) as file:
        if os.fstat(file.fileno()).st_size > MAX_FILE_BYTES:
            raise DataError(f"unreadable_file: larger than {MAX_FILE_BYTES >> 20} MiB, no single slice or scan")
        return file.readall()


def read_ahead(folder: Path, file: SourceFile) -> None:
    """Ask the system to fetch a file that is read soon; from a cold disk that makes reading half as fast again."""
    member = file.member
    start, length = (member.offset, member.n_bytes) if member else (0, file.size_bytes)
    with suppress(OSError, AttributeError, ValueError, OverflowError):  # a hint: where it fails, reading says why
        location = os.path.join(folder, member.archive.path if member else file.path)
        descriptor = os.open(location, os.O_RDONLY | os.O_NONBLOCK)
        try:
            os.posix_fadvise(descriptor, start, length, os.POSIX_FADV_WILLNEED)
        finally:
            os.close(descriptor)


def readable_path(path: str) -> str:
    """Return a path as text that every table can hold and every terminal can show.

    Two paths never give the same text: line breaks, other invisible characters and bytes that are no UTF-8 are
    written as escapes, and a backslash is doubled.

    >>> print(readable_path("a\\nb.dcm"))
    a\\nb.dcm
    """
    if path.isprintable() and "\\" not in path:
        return path
    return "".join(_readable(character) for character in path)


def _readable(character: str) -> str:
    if character == "\\":
        return "\\\\"
    if character.isprintable():
        return character
    if "\udc80" <= character <= "\udcff":  # how Python holds a byte that is no UTF-8
        return f"\\x{ord(character) - 0xDC00:02x}"
    return {"\n": "\\n", "\r": "\\r", "\t": "\\t"}.get(character, f"\\u{{{ord(character):x}}}")


def _in_order(found: list[SourceFile]) -> tuple[SourceFile, ...]:
    """In path order, each path once: an archive may hold two files of one name, and both are rows."""
    found.sort(key=lambda file: file.member.offset if file.member else -1)
    found.sort(key=lambda file: _bytes_of(file.path))
    if all(before.path != file.path for before, file in pairwise(found)):
        return tuple(found)
    taken = {file.path for file in found}
    seen: set[str] = set()
    for place, file in enumerate(found):
        path, number = file.path, 1
        while path in seen and file.member:
            number += 1
            path = f"{file.path}~{number}" if f"{file.path}~{number}" not in taken else path
        seen.add(path)
        found[place] = replace(file, path=path)
    found.sort(key=lambda file: _bytes_of(file.path))
    return tuple(found)


def _bytes_of(path: str) -> bytes:
    return path.encode("utf-8", "surrogateescape")


def _folder_files(folder: Path, leave_out: Path | None) -> Iterator[SourceFile | None]:
    """Yield every file that could be DICOM, and None for every other."""
    for entry, relative in _walk(folder, leave_out):
        if _is_zip(entry.name) and not _is_other(entry.name) and entry.is_file():
            yield from _archive_files(folder, relative)
        elif _could_be_dicom(entry):
            yield _source_file(entry, relative)
        else:
            yield None


def _archive_files(root: Path, path: str, is_only: bool = False) -> Iterator[SourceFile | None]:
    """Yield the files of one archive, or the archive itself as one that cannot be read.

    Raises:
        DataError: the archive that was asked for cannot be read.
    """
    archive = Archive(path, 0, 0)
    try:
        about = (root / path).stat()
        archive = Archive(path, about.st_size, about.st_mtime_ns)
        for name, size_bytes, member in list_members(root / path, archive):
            yield _archive_file(root, name, size_bytes, member)
    except (DataError, OSError) as error:
        reason = str(error) if isinstance(error, DataError) else f"unreadable_file: {error.strerror or error}"
        if is_only:
            raise DataError(f"{root / path}: {reason.removeprefix('unreadable_file: ')}") from error
        broken = ZipMember(archive, 0, archive.size_bytes, 0, archive.mtime_ns, reason)
        yield SourceFile(path, archive.size_bytes, 0, broken)


def _archive_file(root: Path, name: str, size_bytes: int, member: ZipMember) -> SourceFile | None:
    *folders, last = name.split("/")
    if _RESOURCE_FORKS in folders or _is_no_image(last):
        return None
    if _is_zip(last):
        member = replace(member, refusal=_NESTED)
    file = SourceFile(f"{member.archive.path}{IN_ARCHIVE}{name}", size_bytes, 0, member)
    is_named = os.path.splitext(last)[1].lower() in DICOM_SUFFIXES
    if (member.refusal or is_named) and not _is_other(last):
        return file
    try:
        return file if _is_image(last, read_head(root, member, _HEAD_BYTES)) else None
    except DataError:
        return None if _is_other(last) else file  # becomes a row that says that it cannot be read


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
            with os.scandir(where) as entries:  # one at a time: a list of them takes 500 bytes a file
                for entry in entries:
                    if entry.is_dir():
                        pending.append((entry.path, f"{prefix}{entry.name}/"))
                    else:
                        yield entry, f"{prefix}{entry.name}"
        except OSError as error:
            raise StorageError(f"cannot read the folder {where}: {error.strerror or error}") from error


def _is_zip(name: str) -> bool:
    return name.lower().endswith(ZIP_SUFFIX)


def _is_other(name: str) -> bool:
    """Whether a name says that a file is hardly an image: hidden, a table, a text."""
    return name.startswith(".") or os.path.splitext(name)[1].lower() in _OTHER_SUFFIXES


def _is_no_image(name: str) -> bool:
    """Whether a file is never an image: a directory of images, or what a Mac keeps beside one."""
    return name.upper() == "DICOMDIR" or name.startswith("._")


def _is_image(name: str, head: bytes) -> bool:
    """Whether a file is taken for an image by its first bytes; an unlikely name takes the DICM mark."""
    return head[128:132] == b"DICM" if _is_other(name) else is_dicom(head)


def _could_be_dicom(entry: os.DirEntry[str]) -> bool:
    suffix = os.path.splitext(entry.name)[1].lower()
    if _is_no_image(entry.name):
        return False
    try:
        if not stat.S_ISREG(entry.stat().st_mode):
            return False  # opening a pipe would wait for ever
        if suffix in DICOM_SUFFIXES and not _is_other(entry.name):
            return True
        with open(entry.path, "rb") as file:
            return _is_image(entry.name, file.read(_HEAD_BYTES))
    except OSError:
        return not _is_other(entry.name)  # becomes a row that says that it cannot be read


def _source_file(entry: os.DirEntry[str], relative: str) -> SourceFile:
    try:
        about = entry.stat()
    except OSError:
        return SourceFile(relative, 0, 0)
    return SourceFile(relative, about.st_size, about.st_mtime_ns)
