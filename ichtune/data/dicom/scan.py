"""One pass over the tags of a plain file, several times faster than a full parser, or no answer at all.

Plain is: little endian, explicit or implicit, uncompressed, one frame, tags in order, known value
representations, even lengths. On anything else the scan declines and pydicom parses the file; where it does
answer, header and place of the pixels are those that pydicom finds, which the tests hold.
"""

import re
import struct
from functools import lru_cache
from typing import NamedTuple

from pydicom.datadict import dictionary_has_tag, dictionary_VR

from ichtune.data.dicom.header import TAGS, SliceHeader, header_from, values_from
from ichtune.data.dicom.tag_values import RawValue

IMPLICIT_LITTLE = "1.2.840.10008.1.2"
EXPLICIT_LITTLE = "1.2.840.10008.1.2.1"

_EXPLICIT = struct.Struct("<HH2sH")
_IMPLICIT = struct.Struct("<HHI")
_LENGTH = struct.Struct("<I")
_UNDEFINED = 0xFFFFFFFF
_PIXEL_DATA = 0x7FE00010
_FIRST_PIXELS = 0x7FE00008  # FloatPixelData, DoubleFloatPixelData and PixelData follow
_FIRST_TAG = 0x00080000
_CHARACTER_SET = 0x00080005
_ITEM, _SEQUENCE_END = 0xFFFEE000, 0xFFFEE0DD
_ITEM_END = b"\xfe\xff\x0d\xe0\0\0\0\0"
_MAX_DEPTH = 16
#: Tags whose presence makes a file a case for pydicom: functional groups.
_NOT_PLAIN = frozenset({0x52009229, 0x52009230})
#: Character sets under which the allowed text reads the same as without one.
_PLAIN_CHARACTER_SETS = frozenset({b"", b"ISO_IR 6 ", b"ISO_IR 100", b"ISO_IR 192"})
_NAMES = {number: name for name, number in TAGS.items()}
_SHORT, _LONG = (
    "AE AS AT CS DA DS DT FD FL IS LO LT PN SH SL SS ST TM UI UL US",
    "OB OD OF OL OV OW SQ SV UC UN UR UT UV",
)
_SHORT_VRS = {vr.encode(): vr for vr in _SHORT.split()}
_LONG_VRS = frozenset(vr.encode() for vr in _LONG.split())
_META_VRS = (b"UI", b"OB", b"SH", b"AE", b"UR")
_PIXEL_VRS = (b"OW", b"OB")
_UID = re.compile(rb"([0-9.]+)\0?")


class FileMeta(NamedTuple):
    """The file meta information.

    Attributes:
        end: where the data set begins.
        transfer_syntax_uid: ``""`` in a file without file meta information.
        media_sop_class_uid: ``""`` where it is not stated.
    """

    end: int
    transfer_syntax_uid: str
    media_sop_class_uid: str


class Scanned(NamedTuple):
    """What the scan found.

    Attributes:
        header: the allowed tags.
        pixels_at: where the tag of PixelData begins.
        is_implicit: whether value representations are left out.
    """

    header: SliceHeader
    pixels_at: int
    is_implicit: bool


class _NotPlain(Exception):  # noqa: N818 - not an error: the scan declines
    """Something that is left to pydicom."""


def scan(data: bytes) -> Scanned | None:
    """Read the allowed tags of a plain file.

    Returns:
        None where the file is not plain: nothing is known about it then.

    Raises:
        DataError: ``bad_header: ...``, a tag that is needed holds no number.
    """
    try:
        meta = file_meta(data)
        if meta is None:
            return None
        is_implicit = _is_implicit(data, meta)
        found, pixels_at = (_implicit if is_implicit else _explicit)(data, meta.end)
    except (_NotPlain, struct.error):
        return None
    if not found:
        return None
    header = header_from(values_from(found, True), meta.transfer_syntax_uid, meta.media_sop_class_uid)
    return Scanned(header, pixels_at, is_implicit) if header.n_frames == 1 else None


def file_meta(data: bytes) -> FileMeta | None:
    """Read the file meta information, whose encoding is the same in all files.

    Returns:
        None where it is not as the standard has it; one without content where the file starts with its data set.

    Source: DICOM PS3.10 7.1.
    """
    start = 132 if data[128:132] == b"DICM" else 0
    at, last = start, 0
    uids = {0x00020010: "", 0x00020002: ""}
    try:
        while data[at : at + 2] == b"\x02\x00":
            group, element, vr, length = _EXPLICIT.unpack_from(data, at)
            tag, at = group << 16 | element, at + 8
            if vr in _LONG_VRS:
                (length,) = _LENGTH.unpack_from(data, at)
                at += 4
            is_group_length = (tag, vr, length) == (0x00020000, b"UL", 4)
            if not (is_group_length or vr in _META_VRS) or length & 1 or tag <= last:
                return None
            if tag in uids:
                match = _UID.fullmatch(data[at : at + length])
                if match is None or vr != b"UI":
                    return None
                uids[tag] = match[1].decode()
            last, at = tag, at + length
    except struct.error:
        return None
    syntax, media_class = uids.values()
    if at > len(data) or (at > start and not syntax):
        return None
    return FileMeta(at, syntax, media_class)


def _is_implicit(data: bytes, meta: FileMeta) -> bool:
    """Whether value representations are left out; raises _NotPlain where syntax and first tag disagree."""
    looks_explicit = data[meta.end + 4 : meta.end + 6].isalpha()
    syntax = meta.transfer_syntax_uid
    if syntax == EXPLICIT_LITTLE or (not syntax and looks_explicit):
        return False
    if syntax in (IMPLICIT_LITTLE, "") and not looks_explicit:
        return True
    raise _NotPlain


def _explicit(data: bytes, at: int) -> tuple[dict[str, RawValue], int]:
    """The allowed tags, and where PixelData begins."""
    found: dict[str, RawValue] = {}
    last = _FIRST_TAG - 1
    unpack, names, short_vrs = _EXPLICIT.unpack_from, _NAMES, _SHORT_VRS
    while True:
        group, element, vr, length = unpack(data, at)
        tag, start = group << 16 | element, at + 8
        if tag <= last or tag >= _FIRST_PIXELS:
            break
        last = tag
        text = short_vrs.get(vr)
        if text is None:
            at = _after_long(data, start, tag, vr)
            continue
        if length & 1:
            raise _NotPlain
        at = start + length
        if tag in names:
            found[names[tag]] = (text, data[start:at])
        elif tag == _CHARACTER_SET and data[start:at] not in _PLAIN_CHARACTER_SETS:
            raise _NotPlain
    if tag != _PIXEL_DATA or vr not in _PIXEL_VRS or _LENGTH.unpack_from(data, start)[0] == _UNDEFINED:
        raise _NotPlain
    return found, at


def _after_long(data: bytes, at: int, tag: int, vr: bytes) -> int:
    """Where the element after one with a 32-bit length begins, whose length lies at ``at``."""
    (length,) = _LENGTH.unpack_from(data, at)
    if vr not in _LONG_VRS or tag in _NAMES or tag in _NOT_PLAIN:
        raise _NotPlain
    if length == _UNDEFINED:
        if vr != b"SQ":
            raise _NotPlain
        return _after_items(data, at + 4, False, 0)
    if length & 1:
        raise _NotPlain
    return at + 4 + length


def _implicit(data: bytes, at: int) -> tuple[dict[str, RawValue], int]:
    """The allowed tags, and where PixelData begins."""
    found: dict[str, RawValue] = {}
    last = _FIRST_TAG - 1
    unpack, names = _IMPLICIT.unpack_from, _NAMES
    while True:
        group, element, length = unpack(data, at)
        tag, start = group << 16 | element, at + 8
        if tag <= last or tag >= _FIRST_PIXELS:
            break
        last = tag
        if length == _UNDEFINED or tag in _NOT_PLAIN:
            at = _after_undefined(data, start, tag)
            continue
        if length & 1:
            raise _NotPlain
        at = start + length
        if tag in names:
            found[names[tag]] = (None, data[start:at])
        elif tag == _CHARACTER_SET and data[start:at] not in _PLAIN_CHARACTER_SETS:
            raise _NotPlain
    if tag != _PIXEL_DATA or length == _UNDEFINED:
        raise _NotPlain
    return found, at


def _after_undefined(data: bytes, at: int, tag: int) -> int:
    """Where the element after an implicit one of undefined length begins, whose first item lies at ``at``."""
    if tag in _NAMES or tag in _NOT_PLAIN or not _is_sequence(tag):
        raise _NotPlain
    return _after_items(data, at, True, 0)


@lru_cache(maxsize=256)
def _is_sequence(tag: int) -> bool:
    """Whether the standard knows the tag as a sequence."""
    return (tag >> 16) & 1 == 0 and dictionary_has_tag(tag) and dictionary_VR(tag) == "SQ"


def _after_items(data: bytes, at: int, is_implicit: bool, depth: int) -> int:
    """Where the element after a sequence of undefined length begins, whose first item lies at ``at``."""
    if depth > _MAX_DEPTH:
        raise _NotPlain
    while True:
        group, element, length = _IMPLICIT.unpack_from(data, at)
        tag, at = group << 16 | element, at + 8
        if tag == _SEQUENCE_END and length == 0:
            return at
        if tag != _ITEM:
            raise _NotPlain
        if length == _UNDEFINED:
            while data[at : at + 8] != _ITEM_END:
                at = _after_nested(data, at, is_implicit, depth)
            at += 8
        else:
            end = at + length
            while at < end:
                at = _after_nested(data, at, is_implicit, depth)
            if at != end:
                raise _NotPlain


def _after_nested(data: bytes, at: int, is_implicit: bool, depth: int) -> int:
    """Where the element after the one at ``at`` begins, inside an item."""
    group, element, vr, length = _EXPLICIT.unpack_from(data, at)
    tag, at = group << 16 | element, at + 8
    if group in (0, 0xFFFE) or tag == _CHARACTER_SET:
        raise _NotPlain
    if is_implicit:
        (length,) = _LENGTH.unpack_from(data, at - 4)
        may_be_sequence = _is_sequence(tag)
    elif vr in _LONG_VRS:
        (length,) = _LENGTH.unpack_from(data, at)
        at += 4
        may_be_sequence = vr == b"SQ"
    elif vr not in _SHORT_VRS:
        raise _NotPlain
    if length == _UNDEFINED and may_be_sequence:
        return _after_items(data, at, is_implicit, depth + 1)
    if length & 1 or length == _UNDEFINED or at + length > len(data):
        raise _NotPlain
    return at + length
