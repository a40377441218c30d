"""DICOM files of the phantom: the competition's headers, its seven pixel encodings, and its faults.

Files are encoded here (explicit VR, little endian) rather than through a library, so that the bytes depend on
nothing but the values. They are plain DICOM part 10 files; the tests read them back with pydicom.
"""

import struct
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

_CT_IMAGE_STORAGE = "1.2.840.10008.5.1.4.1.1.2"
_EXPLICIT_LITTLE_ENDIAN = "1.2.840.10008.1.2.1"
_IMPLEMENTATION_UID = "1.2.826.0.1.3680043.8.498.20190911"
_LONG_VRS = frozenset({"OB", "OW", "UN", "SQ", "UT"})
PADDING = -2000


@dataclass(frozen=True)
class Encoding:
    """How HU become stored pixels.

    ``broken`` marks the competition's damaged 12-bit series: the header lacks the offset and negative HU wrap
    around at 4096. The published repair (stored += 1000; minus 4096 from 4096 on; intercept -1000) restores
    them. ``train_share`` is the encoding's share in the competition's stage-2 training images.
    """

    name: str
    bits_stored: int
    signed: bool
    intercept: int
    broken: bool
    train_share: float


# Source: pixel encodings counted over the competition's stage-2 training images.
ENCODINGS: tuple[Encoding, ...] = (
    Encoding("unsigned12_minus1024", 12, False, -1024, False, 326_639),
    Encoding("unsigned12_minus1000", 12, False, -1000, False, 6_681),
    Encoding("unsigned12_broken_0", 12, False, 0, True, 73),
    Encoding("unsigned12_broken_1", 12, False, 1, True, 50),
    Encoding("signed12_0", 12, True, 0, False, 2_312),
    Encoding("signed16_minus1024", 16, True, -1024, False, 414_096),
    Encoding("signed16_0", 16, True, 0, False, 2_951),
)


@dataclass(frozen=True)
class SeriesHeader:
    """What all files of a series share.

    ``window_centre`` and ``window_width`` are the DS strings, several values separated by a backslash, empty
    when the tags are absent.
    """

    patient_id: str
    study_uid: str
    series_uid: str
    encoding: Encoding
    window_centre: str
    window_width: str
    has_study_id: bool
    has_padding_tag: bool
    pixel_mm: float
    orientation: tuple[float, float, float, float, float, float]


def stored_pixels(hu: NDArray[np.int16], outside: NDArray[np.bool_], encoding: Encoding) -> NDArray[np.uint16]:
    """Encode HU as the file stores them.

    Args:
        hu: HU, int16 (H, W). outside: pixels outside the round field of view, bool (H, W); 16-bit files pad
        them with -2000, 12-bit files
            with the lowest value that they can hold.
        encoding: the pixel encoding.

    Returns:
        Stored values as their 16-bit patterns, uint16 (H, W).
    """
    value = hu.astype(np.int32)
    if encoding.broken:
        return (np.clip(np.where(outside, -1000, value), -1000, 3071) % 4096).astype(np.uint16)
    stored = value - encoding.intercept
    if encoding.signed and encoding.bits_stored == 16:
        stored = np.where(outside, PADDING, stored)
    elif encoding.signed:
        stored = np.clip(np.where(outside, -1024, stored), -2048, 2047)
    else:
        stored = np.clip(np.where(outside, 0, stored), 0, 4095)
    return stored.astype(np.int16).view(np.uint16)


def _element(group: int, element: int, vr: str, value: bytes) -> bytes:
    if len(value) % 2:
        value += b"\0" if vr in ("UI", "OB") else b" "
    head = struct.pack("<HH2s", group, element, vr.encode())
    if vr in _LONG_VRS:
        return head + struct.pack("<HI", 0, len(value)) + value
    return head + struct.pack("<H", len(value)) + value


def _text(group: int, element: int, vr: str, value: str) -> bytes:
    return _element(group, element, vr, value.encode("ascii"))


def _short(group: int, element: int, value: int) -> bytes:
    return _element(group, element, "US", struct.pack("<H", value & 0xFFFF))


def _decimals(values: tuple[float, ...]) -> str:
    return "\\".join(f"{v:.6f}".rstrip("0").rstrip(".") if v % 1 else f"{v:.1f}" for v in values)


def _meta(sop_uid: str) -> bytes:
    body = b"".join(
        (
            _element(2, 0x01, "OB", b"\0\1"),
            _text(2, 0x02, "UI", _CT_IMAGE_STORAGE),
            _text(2, 0x03, "UI", sop_uid),
            _text(2, 0x10, "UI", _EXPLICIT_LITTLE_ENDIAN),
            _text(2, 0x12, "UI", _IMPLEMENTATION_UID),
            _text(2, 0x13, "SH", "ICHTUNE_PHANTOM"),
        )
    )
    return _element(2, 0, "UL", struct.pack("<I", len(body))) + body


def encode_file(
    header: SeriesHeader, sop_uid: str, position_mm: tuple[float, float, float], stored: NDArray[np.uint16]
) -> bytes:
    """Encode one slice as a DICOM part 10 file.

    Args:
        header: what the series shares.
        sop_uid: SOPInstanceUID, the competition's ``ID_...`` form.
        position_mm: ImagePositionPatient.
        stored: stored pixels, uint16 bit patterns (H, W).

    Returns:
        The file's bytes.
    """
    encoding, (rows, columns) = header.encoding, stored.shape
    windows = b""
    if header.window_centre:
        windows = _text(0x28, 0x1050, "DS", header.window_centre) + _text(0x28, 0x1051, "DS", header.window_width)
    padding = b""
    if header.has_padding_tag:
        vr = "SS" if encoding.signed else "US"
        low = PADDING if encoding.signed and encoding.bits_stored == 16 else 0
        padding = _element(0x28, 0x120, vr, struct.pack("<H", low & 0xFFFF))
    body = (
        _text(8, 0x16, "UI", _CT_IMAGE_STORAGE),
        _text(8, 0x18, "UI", sop_uid),
        _text(8, 0x60, "CS", "CT"),
        _text(0x10, 0x20, "LO", header.patient_id),
        _text(0x20, 0x0D, "UI", header.study_uid),
        _text(0x20, 0x0E, "UI", header.series_uid),
        _text(0x20, 0x10, "SH", "") if header.has_study_id else b"",
        _text(0x20, 0x32, "DS", _decimals(position_mm)),
        _text(0x20, 0x37, "DS", _decimals(header.orientation)),
        _short(0x28, 0x02, 1),
        _text(0x28, 0x04, "CS", "MONOCHROME2"),
        _short(0x28, 0x10, rows),
        _short(0x28, 0x11, columns),
        _text(0x28, 0x30, "DS", _decimals((header.pixel_mm, header.pixel_mm))),
        _short(0x28, 0x100, 16),
        _short(0x28, 0x101, encoding.bits_stored),
        _short(0x28, 0x102, encoding.bits_stored - 1),
        _short(0x28, 0x103, int(encoding.signed)),
        padding,
        windows,
        _text(0x28, 0x1052, "DS", str(encoding.intercept)),
        _text(0x28, 0x1053, "DS", "1"),
        _element(0x7FE0, 0x10, "OW", stored.astype("<u2").tobytes()),
    )
    return b"\0" * 128 + b"DICM" + _meta(sop_uid) + b"".join(body)


def write_file(path: Path, content: bytes, *, truncated: bool = False) -> None:
    """Write a file; a truncated one ends two fifths into its pixels, as one of the competition's does."""
    path.write_bytes(content[: len(content) * 2 // 5] if truncated else content)
