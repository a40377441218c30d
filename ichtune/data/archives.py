"""Zip archives read in place: their directory once, then each member straight from where it lies.

Nothing is unpacked to disk, and a member is never larger in memory than the directory says. The directory is read
here rather than with ``zipfile``, whose objects take 800 bytes a member: the competition's archive has 874,035.

Source: PKWARE APPNOTE 6.3.10, sections 4.3 (records), 4.4 (fields) and 4.5.3 (zip64).
"""

import os
import struct
import zlib
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import imagecodecs

from ichtune.errors import DataError

ZIP_SUFFIX = ".zip"
STORED, DEFLATED = 0, 8

_MARK_LOCAL, _MARK_MEMBER, _MARK_END = b"PK\3\4", b"PK\1\2", b"PK\5\6"
_LOCAL = struct.Struct("<4s5H3L2H")
_MEMBER = struct.Struct("<4s6H3L5H2L")
_END = struct.Struct("<4s4H2LH")
_LOCATOR64 = struct.Struct("<4sLQL")
_END64 = struct.Struct("<4sQ2H2L4Q")
_MAX_COMMENT = 0xFFFF
_IN_ZIP64 = 0xFFFFFFFF
_EXTRA_ZIP64 = 1
_FLAG_ENCRYPTED = 0x1
#: A byte of deflated data stands for 1,032 bytes at most; what claims more gets no memory for it.
_MAX_DEFLATE_RATIO = 1032
# libdeflate takes half the time of zlib; its type stubs know of no length as out
_inflate: Any = imagecodecs.deflate_decode
#: Room for the extra field of a local header, so that one read fetches header and data.
_USUAL_EXTRA_BYTES = 64


@dataclass(frozen=True, slots=True)
class Archive:
    """One zip file: its path below the source folder, and its size and time of change when it was listed."""

    path: str
    size_bytes: int
    mtime_ns: int


@dataclass(frozen=True, slots=True)
class ZipMember:
    """Where one file lies in an archive.

    Attributes:
        offset: of its local header.
        n_bytes: its length in the archive, compressed.
        crc: CRC-32 of its content.
        refusal: why it cannot be read, in the form of a row's reason; empty for one that can.
    """

    archive: Archive
    offset: int
    n_bytes: int
    method: int
    crc: int
    refusal: str = ""


def list_members(location: Path, archive: Archive) -> Iterator[tuple[str, int, ZipMember]]:
    """Yield name, size and place of every file in an archive, in the order of its directory.

    Args:
        location: where the archive lies.
        archive: how members name it.

    Raises:
        DataError: no zip archive, one that is cut short, or one in several parts; the message is a row's reason.
        OSError: it cannot be read.
    """
    with location.open("rb", buffering=1 << 20) as file:
        start, end, n_listed, shift = _directory(file)
        file.seek(start)
        n_found, left = 0, end - start
        while left > 0:
            head = file.read(_MEMBER.size)
            if len(head) < _MEMBER.size or head[:4] != _MARK_MEMBER:
                raise DataError(f"unreadable_file: damaged zip archive, its directory ends after {n_found} files")
            n_found += 1
            rest = file.read(sum(_MEMBER.unpack(head)[10:13]))
            left -= len(head) + len(rest)
            name, size_bytes, member = _member(head, rest, archive, shift)
            if not name.endswith("/"):
                yield name, size_bytes, member
        if n_found != n_listed:
            raise DataError(f"unreadable_file: damaged zip archive, {n_listed} files listed and {n_found} found")


def read_member(folder: Path, member: ZipMember, size_bytes: int, max_bytes: int) -> bytes:
    """Read one member whole.

    Args:
        folder: the source folder.
        size_bytes: its length as listed.
        max_bytes: what is larger is refused before anything is read.

    Raises:
        DataError: ``unreadable_file: ...`` for a member that is damaged, encrypted or too large.
        FileNotFoundError: the archive is gone, or is no longer the one that was listed.
        OSError: it cannot be read.
    """
    if member.refusal:
        raise DataError(member.refusal)
    if max(size_bytes, member.n_bytes) > max_bytes:
        raise DataError(f"unreadable_file: larger than {max_bytes >> 20} MiB")
    data = _whole(_stored_bytes(folder, member, member.n_bytes), member.method, size_bytes)
    if len(data) != size_bytes:
        raise DataError(f"unreadable_file: damaged in its zip archive, {len(data)} of {size_bytes} bytes")
    if zlib.crc32(data) != member.crc:
        raise DataError("unreadable_file: damaged in its zip archive, its CRC-32 differs")
    return data


def read_head(folder: Path, member: ZipMember, n_bytes: int) -> bytes:
    """Return the first bytes of a member.

    Raises:
        DataError: ``unreadable_file: ...``.
        FileNotFoundError: the archive is gone, or is no longer the one that was listed.
        OSError: it cannot be read.
    """
    if member.refusal:
        raise DataError(member.refusal)
    held = min(member.n_bytes, 2 * n_bytes + 256)
    return _inflated(_stored_bytes(folder, member, held), member.method, n_bytes)[:n_bytes]


def _directory(file: BinaryIO) -> tuple[int, int, int, int]:
    """Where the directory starts and ends, how many files it lists, and by how much all offsets are too small."""
    size = file.seek(0, os.SEEK_END)
    tail_at = max(0, size - _END.size - _MAX_COMMENT)
    file.seek(tail_at)
    tail = file.read()
    at = _end_record(tail)
    if at is None:
        raise DataError("unreadable_file: no zip archive, or one that is cut short: it has no directory")
    _, disk, first_disk, _, n_listed, n_bytes, offset, _ = _END.unpack_from(tail, at)
    end = tail_at + at
    end, disk, first_disk, n_listed, n_bytes, offset = _directory64(file, end) or (
        (end, disk, first_disk, n_listed, n_bytes, offset)
    )
    if disk or first_disk:
        raise DataError("unreadable_file: one part of a split zip archive; join its parts first")
    start = end - n_bytes
    if start < offset:
        raise DataError("unreadable_file: damaged zip archive, its directory lies outside of the file")
    return start, end, n_listed, start - offset


def _end_record(tail: bytes) -> int | None:
    """Where the end record starts: its comment reaches to the end of the file, and may hold the mark itself."""
    at = found = tail.rfind(_MARK_END, 0, len(tail) - _END.size + len(_MARK_END))
    while at >= 0:
        if at + _END.size + _END.unpack_from(tail, at)[-1] == len(tail):
            return at
        at = tail.rfind(_MARK_END, 0, at)
    return found if found >= 0 else None  # bytes that somebody added behind the archive


def _directory64(file: BinaryIO, end: int) -> tuple[int, int, int, int, int, int] | None:
    """The same numbers from the zip64 records before the end record; None where there are none."""
    if end < _LOCATOR64.size + _END64.size:
        return None
    file.seek(end - _LOCATOR64.size - _END64.size)
    records = file.read(_END64.size + _LOCATOR64.size)
    locator = _LOCATOR64.unpack_from(records, _END64.size)
    if locator[0] != b"PK\6\7":
        return None
    mark, _, _, _, disk, first_disk, _, n_listed, n_bytes, offset = _END64.unpack_from(records)
    if mark != b"PK\6\6":
        raise DataError("unreadable_file: damaged zip archive, its zip64 directory is not where it should be")
    return end - _LOCATOR64.size - _END64.size, disk, first_disk, n_listed, n_bytes, offset


def _member(head: bytes, rest: bytes, archive: Archive, shift: int) -> tuple[str, int, ZipMember]:
    """Name, size and place of one member, from the fixed part of its entry and the rest."""
    (_, _, _, flags, method, _, _, crc, n_bytes, size, n_name, n_extra, n_comment, _, _, _, offset) = _MEMBER.unpack(
        head
    )
    if len(rest) < n_name + n_extra + n_comment:
        raise DataError("unreadable_file: damaged zip archive, its directory is cut short")
    if _IN_ZIP64 in (size, n_bytes, offset):
        size, n_bytes, offset = _zip64_values(rest[n_name : n_name + n_extra], size, n_bytes, offset)
    refusal = ""
    if flags & _FLAG_ENCRYPTED:
        refusal = "unreadable_file: encrypted in its zip archive"
    elif method not in (STORED, DEFLATED):
        refusal = f"unreadable_file: compressed in its zip archive by method {method}, expected stored or deflated"
    elif offset + shift + n_bytes > archive.size_bytes:
        refusal = "unreadable_file: damaged zip archive, it lies outside of the archive"
    # Without the UTF-8 flag the encoding is nobody's knowledge: bytes that are no UTF-8 stay what they are.
    name = rest[:n_name].decode("utf-8", "surrogateescape")
    return name, size, ZipMember(archive, offset + shift, n_bytes, method, crc, refusal)


def _zip64_values(extra: bytes, *values: int) -> tuple[int, ...]:
    """Replace each value that does not fit in 32 bits by the next of the zip64 extra field."""
    at = 0
    while at + 4 <= len(extra):
        kind, length = struct.unpack_from("<HH", extra, at)
        if kind == _EXTRA_ZIP64:
            held = list(struct.unpack_from(f"<{min(length, len(extra) - at - 4) // 8}Q", extra, at + 4))
            if len(held) >= values.count(_IN_ZIP64):
                return tuple(held.pop(0) if value == _IN_ZIP64 else value for value in values)
        at += 4 + length
    raise DataError("unreadable_file: damaged zip archive, a zip64 field is missing")


def _stored_bytes(folder: Path, member: ZipMember, n_bytes: int) -> bytes:
    """The first bytes of a member as they lie in the archive."""
    archive = member.archive
    with (folder / archive.path).open("rb", buffering=0) as file:
        about = os.fstat(file.fileno())
        if (about.st_size, about.st_mtime_ns) != (archive.size_bytes, archive.mtime_ns):
            raise FileNotFoundError(f"{archive.path} is no longer the archive that was listed")
        held = os.pread(file.fileno(), _LOCAL.size + _USUAL_EXTRA_BYTES + n_bytes + 256, member.offset)
        if len(held) < _LOCAL.size or held[:4] != _MARK_LOCAL:
            raise DataError("unreadable_file: damaged in its zip archive, it is not where the directory says")
        start = _LOCAL.size + sum(_LOCAL.unpack_from(held)[-2:])
        if start + n_bytes > len(held):
            return os.pread(file.fileno(), n_bytes, member.offset + start)
        return held[start : start + n_bytes]


def _whole(data: bytes, method: int, size_bytes: int) -> bytes:
    """The content of a whole member; at most one byte longer than listed."""
    if method == DEFLATED and size_bytes <= len(data) * _MAX_DEFLATE_RATIO:
        with suppress(RuntimeError):  # what it cannot read, zlib says why
            return bytes(_inflate(data, raw=True, out=size_bytes))
    return _inflated(data, method, size_bytes + 1)


def _inflated(data: bytes, method: int, max_bytes: int) -> bytes:
    """The content, no more than so many bytes of it."""
    if method == STORED:
        return data
    try:
        stream = zlib.decompressobj(-zlib.MAX_WBITS)  # no header: raw deflate
        return stream.decompress(data, max_bytes)
    except zlib.error as error:
        raise DataError(f"unreadable_file: damaged in its zip archive ({error})") from error
