"""From the bytes of a DICOM file to its allowed tags and the place of its pixel data, whole or cut short.

pydicom parses the header and stops at the pixel data; where those begin and end is read here, so that pixels
are not copied, a truncated file keeps its header, and a deflated file cannot inflate without bound.
"""

import io
import struct
from dataclasses import dataclass, field
from typing import Any

from pydicom import dcmread
from pydicom.dataelem import RawDataElement
from pydicom.dataset import FileDataset

from ichtune.data.dicom.deflated import MAX_PIXEL_BYTES, MAX_TRAILING_BYTES, DeflatedFile
from ichtune.data.dicom.enhanced_ct import GROUP_SEQUENCES, FunctionalGroups, functional_groups
from ichtune.data.dicom.header import TAGS, SliceHeader, header_of
from ichtune.data.dicom.parse_errors import unreadable_headers
from ichtune.data.dicom.scan import EXPLICIT_LITTLE, file_meta, scan
from ichtune.errors import DataError

_DEFLATED = "1.2.840.10008.1.2.1.99"
#: Where the transfer syntax of a file is stated, if it is.
_META_PLACE = slice(0, 4096)
_UNDEFINED_LENGTH = 0xFFFFFFFF
_LONG_VRS = (b"OB", b"OW", b"OF", b"OD", b"UN", b"OL", b"OV")
_PIXEL_DATA = (0x7FE0, 0x0010)
_PIXEL_HEAD_BYTES = 12
_WANTED_TAGS: list[Any] = [*TAGS.values(), *GROUP_SEQUENCES]


@dataclass(frozen=True)
class ParsedFile:
    """One parsed file.

    Attributes:
        header: the allowed tags.
        pixel_data: the value of PixelData as it lies in the file, None without one; shorter than it should be
            in a file that was cut short.
        is_encapsulated: whether that value is a sequence of compressed fragments.
        is_big_endian: whether multi-byte values are stored big-endian.
        pixel_data_bytes: the length that PixelData declares, which a file that was cut short does not hold; 0
            without one and where it is undefined.
        groups: what the file says about its frames one by one; None in a plain file.
        problem: why the pixels must not be used although the header could be read, ``""`` normally.
    """

    header: SliceHeader
    pixel_data: memoryview | None
    is_encapsulated: bool
    is_big_endian: bool
    pixel_data_bytes: int
    groups: FunctionalGroups | None = field(default=None, compare=False)
    problem: str = ""


def is_dicom(head: bytes) -> bool:
    """Tell from a file's first bytes whether it is worth parsing as DICOM.

    Args:
        head: at least the first 132 bytes, fewer where the file is shorter.

    Returns:
        True with the DICM mark, and for a file without preamble that opens with a tag of group 2 or 8.
    """
    if head[128:132] == b"DICM":
        return True
    return len(head) > 8 and head[:2] in (b"\x02\x00", b"\x08\x00", b"\x00\x08")


def parse(data: bytes) -> ParsedFile:
    """Parse a file.

    Raises:
        DataError: the message starts with ``not_dicom``, ``unreadable_header`` or ``bad_header``.
    """
    if not is_dicom(data[:256]):
        raise DataError("not_dicom: neither the DICM mark nor a DICOM tag at the start")
    scanned = scan(data)
    if scanned is not None:
        value = _pixel_value(memoryview(data), scanned.pixels_at, scanned.is_implicit, True)
        return ParsedFile(scanned.header, value[0], value[1], False, value[2])
    meta = file_meta(data)
    if meta is not None and meta.transfer_syntax_uid == _DEFLATED:
        return _parse_deflated(data, meta.end)
    if meta is None and _DEFLATED.encode() in data[_META_PLACE]:
        raise DataError("unreadable_header: a deflated file with damaged file meta information")
    return parse_with_pydicom(data)


def parse_with_pydicom(data: bytes) -> ParsedFile:
    """Parse any file that is not deflated, without the scan of plain ones.

    Raises:
        DataError: the message starts with ``unreadable_header`` or ``bad_header``.
    """
    stream = io.BytesIO(data)
    header, groups, (is_implicit, is_little) = _read_header(stream)
    value, is_encapsulated, n_bytes = _pixel_value(memoryview(data), stream.tell(), is_implicit, is_little)
    return ParsedFile(header, value, is_encapsulated, not is_little, n_bytes, groups)


def _parse_deflated(data: bytes, meta_end: int) -> ParsedFile:
    """Inflate the header, then as much as the pixels that it declares may take, and a row more to see too many."""
    # same length, so that nothing moves; to the parser the inflated file is an ordinary one
    meta = data[:meta_end].replace(_DEFLATED.encode(), EXPLICIT_LITTLE.encode() + b"\0\0\0")
    stream = DeflatedFile(meta, memoryview(data)[meta_end:])
    header, groups, _ = _read_header(stream)
    pixels_at = stream.tell()
    row_bytes = header.columns_px * header.bits_allocated // 8
    declared_bytes = row_bytes * header.rows_px * max(header.n_frames, 1)
    is_too_large = declared_bytes > MAX_PIXEL_BYTES
    wanted_bytes = 0 if is_too_large else declared_bytes + row_bytes
    inflated = stream.up_to(pixels_at + _PIXEL_HEAD_BYTES + wanted_bytes)
    value, is_encapsulated, n_bytes = _pixel_value(inflated, pixels_at, False, True)
    problem = ""
    if is_too_large:
        problem = f"absurd_matrix: deflated pixels of {declared_bytes} bytes, expected at most {MAX_PIXEL_BYTES}"
    elif not stream.ends_by(pixels_at + _PIXEL_HEAD_BYTES + wanted_bytes + MAX_TRAILING_BYTES):
        problem = "pixel_data_length: the deflated file goes on far beyond its pixels"
    return ParsedFile(header, value, is_encapsulated, False, n_bytes, groups, problem)


def _read_header(stream: Any) -> tuple[SliceHeader, FunctionalGroups | None, tuple[bool, bool]]:
    """The header, what is said about single frames, and the encoding; the stream is left at the pixel data."""
    with unreadable_headers():
        dataset = dcmread(stream, force=True, stop_before_pixels=True, specific_tags=_WANTED_TAGS)
        if len(dataset) == 0:
            raise DataError("unreadable_header: not one of the tags that describe an image could be read")
        return header_of(dataset), functional_groups(dataset), _encoding(dataset)


def _encoding(dataset: FileDataset) -> tuple[bool, bool]:
    """Whether value representations are left out and the byte order is little, as the tags were really read.

    What the transfer syntax says may be wrong: some writers state an implicit one and write an explicit one.
    """
    for element in reversed(list(dataset.elements())):
        if isinstance(element, RawDataElement):
            return element.is_implicit_VR, element.is_little_endian
    is_implicit, is_little = dataset.original_encoding
    return is_implicit is not False, is_little is not False


def _pixel_value(
    data: memoryview, offset: int, is_implicit: bool, is_little: bool
) -> tuple[memoryview | None, bool, int]:
    """The value of PixelData, whose tag is expected at ``offset``, whether it is encapsulated, its declared length."""
    order = "<" if is_little else ">"
    if offset + 8 > len(data) or struct.unpack_from(f"{order}HH", data, offset) != _PIXEL_DATA:
        return None, False, 0
    has_long_length = not is_implicit and bytes(data[offset + 4 : offset + 6]) in _LONG_VRS
    length_at = offset + (8 if has_long_length else 4 if is_implicit else 6)
    length_code = f"{order}{'H' if not is_implicit and not has_long_length else 'I'}"
    start = length_at + struct.calcsize(length_code)
    if start > len(data):
        return None, False, 0
    (length,) = struct.unpack_from(length_code, data, length_at)
    if length == _UNDEFINED_LENGTH:
        return data[start:], True, 0
    return data[start : start + length], False, length
