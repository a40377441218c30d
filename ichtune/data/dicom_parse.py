"""From the bytes of a DICOM file to its allowed tags and the place of its pixel data, whole or cut short.

pydicom parses the header and stops at the pixel data; where those begin and end is read here, so that pixels
are not copied, a truncated file keeps its header, and a deflated file cannot inflate without bound.
"""

import io
import struct
import warnings
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from pydicom import dcmread
from pydicom.dataset import FileDataset
from pydicom.errors import InvalidDicomError

from ichtune.data.dicom_header import TAGS, SliceHeader, header_of
from ichtune.errors import DataError

#: An inflated data set larger than this holds no single slice.
MAX_INFLATED_BYTES = 64 * 1024 * 1024

_DEFLATED = b"1.2.840.10008.1.2.1.99"
_EXPLICIT_LITTLE = b"1.2.840.10008.1.2.1\0\0\0"
_META_LENGTH = slice(132, 144)  # (0002,0000) UL 4, the first element after the DICM mark
_UNDEFINED_LENGTH = 0xFFFFFFFF
_LONG_VRS = (b"OB", b"OW", b"OF", b"OD", b"UN", b"OL", b"OV")
_PIXEL_DATA = (0x7FE0, 0x0010)
#: What the parser raises on damaged bytes.
_PARSE_ERRORS = (
    InvalidDicomError,
    ValueError,
    LookupError,
    TypeError,
    AttributeError,
    ArithmeticError,
    EOFError,
    OSError,
    struct.error,
    zlib.error,
    NotImplementedError,
    RecursionError,
    MemoryError,
)


@dataclass(frozen=True)
class ParsedFile:
    """One parsed file.

    Attributes:
        header: the allowed tags.
        pixel_data: the value of PixelData as it lies in the file, None without one; shorter than it should be
            in a file that was cut short.
        is_encapsulated: whether that value is a sequence of compressed fragments.
        is_big_endian: whether multi-byte values are stored big-endian.
    """

    header: SliceHeader
    pixel_data: memoryview | None
    is_encapsulated: bool
    is_big_endian: bool


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
    with _parsing():
        data = _inflated(data)
        stream = io.BytesIO(data)
        tags: list[Any] = [tag.number for tag in TAGS.values()]
        dataset = dcmread(stream, force=True, stop_before_pixels=True, specific_tags=tags)
        header = header_of(dataset)
    if len(dataset) == 0:
        raise DataError("unreadable_header: not one of the tags that describe an image could be read")
    is_implicit, is_little = _encoding(dataset)
    value, is_encapsulated = _pixel_value(memoryview(data), stream.tell(), is_implicit, is_little)
    return ParsedFile(header, value, is_encapsulated, not is_little)


@contextmanager
def _parsing() -> Iterator[None]:
    """No warning is printed, and what damaged bytes raise becomes a DataError without their content."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    except DataError:
        raise
    except _PARSE_ERRORS as error:
        raise DataError(f"unreadable_header: {type(error).__name__} while parsing") from error


def _encoding(dataset: FileDataset) -> tuple[bool, bool]:
    is_implicit, is_little = dataset.original_encoding
    return is_implicit is not False, is_little is not False


def _inflated(data: bytes) -> bytes:
    """The same file, uncompressed as far as its bytes go when its data set is deflated.

    Source: DICOM PS3.5 A.5: everything after the file meta information is one raw deflate stream.
    """
    if data[128:132] != b"DICM" or data[_META_LENGTH][:8] != b"\x02\x00\x00\x00UL\x04\x00":
        return data
    start = _META_LENGTH.stop + int.from_bytes(data[140:144], "little")
    meta = data[:start]
    if _DEFLATED not in meta:
        return data
    body = zlib.decompressobj(-zlib.MAX_WBITS).decompress(data[start:], MAX_INFLATED_BYTES)
    return meta.replace(_DEFLATED, _EXPLICIT_LITTLE) + body


def _pixel_value(data: memoryview, offset: int, is_implicit: bool, is_little: bool) -> tuple[memoryview | None, bool]:
    """The value of PixelData, whose tag is expected at ``offset``, and whether it is encapsulated."""
    order = "<" if is_little else ">"
    if offset + 8 > len(data) or struct.unpack_from(f"{order}HH", data, offset) != _PIXEL_DATA:
        return None, False
    has_long_length = not is_implicit and bytes(data[offset + 4 : offset + 6]) in _LONG_VRS
    length_at = offset + (8 if has_long_length else 4 if is_implicit else 6)
    length_code = f"{order}{'H' if not is_implicit and not has_long_length else 'I'}"
    start = length_at + struct.calcsize(length_code)
    if start > len(data):
        return None, False
    (length,) = struct.unpack_from(length_code, data, length_at)
    if length == _UNDEFINED_LENGTH:
        return data[start:], True
    return data[start : start + length], False
