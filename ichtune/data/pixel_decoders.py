"""Stored pixel values from the bytes of a file: one decoder a transfer syntax, all permissively licensed.

Every decoder gets bytes that were checked first, and what it returns is checked again: a stream that is cut
short is refused, never padded.
"""

import struct
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import imagecodecs
import numpy as np
from pydicom.encaps import get_frame
from pydicom.pixels import get_decoder
from pydicom.uid import UID

from ichtune.data.dicom_header import SliceHeader
from ichtune.data.dicom_parse import ParsedFile
from ichtune.errors import DataError

#: Rows times columns beyond which a header is taken for damaged; CT matrices end at 2048 x 2048.
MAX_PIXELS = 4096 * 4096

_JPEG = "1.2.840.10008.1.2.4."
_EXPLICIT_BIG = "1.2.840.10008.1.2.2"
_RLE = "1.2.840.10008.1.2.5"
_NATIVE = {"1.2.840.10008.1.2", "1.2.840.10008.1.2.1", "1.2.840.10008.1.2.1.99", _EXPLICIT_BIG}
_RLE_MAX_RATIO = 64  # two bytes of PackBits expand to at most 128
#: Markers that open a JPEG frame: every SOFn but DHT, JPG and DAC, and SOF55 of JPEG-LS.
_FRAME_MARKERS = ({*range(0xC0, 0xD0)} - {0xC4, 0xC8, 0xCC}) | {0xF7}


def decode_pixels(parsed: ParsedFile) -> np.ndarray:
    """Return the stored values of a single-frame, single-sample image.

    Args:
        parsed: the file; rows_px, columns_px and bits_allocated of its header have been checked.

    Returns:
        uint8 or uint16 bit patterns (H, W) in native byte order; bits above bits_stored are not masked yet.
        They may lie in the file's own memory: not to be written to.

    Raises:
        DataError: the message starts with ``no_pixel_data``, ``truncated_pixel_data``, ``pixel_data_length``,
            ``unsupported_transfer_syntax`` or ``undecodable_pixels``.
    """
    data, header = parsed.pixel_data, parsed.header
    if data is None or not len(data):
        raise DataError("no_pixel_data: PixelData is empty")
    syntax = header.transfer_syntax_uid
    if not parsed.is_encapsulated and (syntax in _NATIVE or not syntax):
        return _decode_native(data, header, parsed.is_big_endian)
    if not parsed.is_encapsulated or not (syntax == _RLE or syntax in _CODECS):
        raise DataError(
            f"unsupported_transfer_syntax: no decoder for {'' if parsed.is_encapsulated else 'unfragmented '}"
            f"transfer syntax {syntax or '(none stated)'}; convert the file to explicit little endian first"
        )
    decode = _decode_rle if syntax == _RLE else _decode_codestream
    return _checked(decode(bytes(data), header), header)


def _decode_native(data: memoryview, header: SliceHeader, is_big_endian: bool) -> np.ndarray:
    sample_bytes = header.bits_allocated // 8
    expected = header.rows_px * header.columns_px * sample_bytes
    if len(data) < expected:
        raise DataError(f"truncated_pixel_data: {len(data)} bytes, {expected} needed")
    if len(data) - expected >= header.columns_px * sample_bytes:
        raise DataError(
            f"pixel_data_length: {len(data)} bytes, but {header.rows_px} x {header.columns_px} pixels take {expected}"
        )
    kind = np.dtype(np.uint8) if sample_bytes == 1 else np.dtype(">u2" if is_big_endian else "<u2")
    stored = np.frombuffer(data, kind, count=header.rows_px * header.columns_px)
    return stored.reshape(header.rows_px, header.columns_px).astype(kind.newbyteorder("="), copy=False)


def _decode_rle(data: bytes, header: SliceHeader) -> np.ndarray:
    expected = header.rows_px * header.columns_px * header.bits_allocated // 8
    if len(data) * _RLE_MAX_RATIO < expected:
        raise DataError(
            f"truncated_pixel_data: {len(data)} bytes of run lengths cannot hold {expected} bytes of pixels"
        )
    with _refusing("undecodable_pixels"), warnings.catch_warnings():
        warnings.simplefilter("error")  # runs that do not fill the matrix exactly are damage, not padding
        stored, _ = get_decoder(UID(_RLE)).as_array(data, **_rle_options(header))
    return stored


def _rle_options(header: SliceHeader) -> dict[str, Any]:
    return {
        "index": 0,
        "raw": True,
        "decoding_plugin": "pydicom",
        "rows": header.rows_px,
        "columns": header.columns_px,
        "number_of_frames": 1,
        "samples_per_pixel": 1,
        "bits_allocated": header.bits_allocated,
        "bits_stored": header.bits_stored,
        "pixel_representation": header.pixel_representation,
        "photometric_interpretation": "MONOCHROME2",
        "pixel_keyword": "PixelData",
    }


def _decode_codestream(data: bytes, header: SliceHeader) -> np.ndarray:
    with _refusing("undecodable_pixels"):
        frame = get_frame(data, 0, number_of_frames=1)
        shape = codestream_shape(frame)
    if shape != (header.rows_px, header.columns_px):
        raise DataError(
            f"undecodable_pixels: the compressed image is {_by(shape)}, the header says "
            f"{header.rows_px} x {header.columns_px}"
        )
    if frame.rstrip(b"\0")[-2:] != b"\xff\xd9":
        raise DataError("truncated_pixel_data: the compressed image has no end marker")
    with _refusing("undecodable_pixels"):
        return _CODECS[header.transfer_syntax_uid](frame)


def codestream_shape(frame: bytes) -> tuple[int, int] | None:
    """Return (rows, columns) that a JPEG, JPEG-LS or JPEG 2000 stream declares, without decoding it.

    Returns:
        None where no frame header is found.

    Source: ISO/IEC 10918-1 B.2.2 (frame header), ISO/IEC 15444-1 A.5.1 (image size).
    """
    if frame[:4] == b"\xff\x4f\xff\x51" and len(frame) >= 24:
        x_end, y_end, x_start, y_start = struct.unpack_from(">4I", frame, 8)
        return y_end - y_start, x_end - x_start
    for marker, start in _jpeg_segments(frame):
        if marker in _FRAME_MARKERS and start + 7 <= len(frame):
            rows, columns = struct.unpack_from(">HH", frame, start + 3)
            return rows, columns
    return None


def _jpeg_segments(frame: bytes) -> Iterator[tuple[int, int]]:
    """Yield each marker before the first scan with the offset of its length field."""
    offset = 2 if frame[:2] == b"\xff\xd8" else len(frame)
    while offset + 4 <= len(frame) and frame[offset] == 0xFF:
        marker = frame[offset + 1]
        if marker == 0xFF:  # fill byte
            offset += 1
            continue
        if marker == 0xDA:  # start of scan
            return
        yield marker, offset + 2
        offset += 2 + int.from_bytes(frame[offset + 2 : offset + 4], "big")


def _jpeg_2000(frame: bytes) -> np.ndarray:
    return imagecodecs.jpeg2k_decode(frame, numthreads=1)


_CODECS: dict[str, Callable[[bytes], np.ndarray]] = {
    f"{_JPEG}50": imagecodecs.jpeg8_decode,
    f"{_JPEG}51": imagecodecs.jpeg8_decode,
    f"{_JPEG}57": imagecodecs.jpegsof3_decode,
    f"{_JPEG}70": imagecodecs.jpegsof3_decode,
    f"{_JPEG}80": imagecodecs.jpegls_decode,
    f"{_JPEG}81": imagecodecs.jpegls_decode,
    f"{_JPEG}90": _jpeg_2000,
    f"{_JPEG}91": _jpeg_2000,
}


def _checked(stored: np.ndarray, header: SliceHeader) -> np.ndarray:
    """Check what a decoder returned, and return its bit patterns."""
    if stored.shape != (header.rows_px, header.columns_px):
        raise DataError(
            f"undecodable_pixels: the decoder returned {_by(stored.shape)}, the header says "
            f"{header.rows_px} x {header.columns_px}"
        )
    if stored.dtype.kind not in "iu" or stored.dtype.itemsize not in (1, 2):
        raise DataError(f"undecodable_pixels: the decoder returned {stored.dtype}, expected 8- or 16-bit integers")
    return stored.view(f"u{stored.dtype.itemsize}")


def _by(shape: tuple[int, ...] | None) -> str:
    return " x ".join(str(side) for side in shape) if shape else "of unknown size"


@contextmanager
def _refusing(code: str) -> Iterator[None]:
    """Turn whatever a decoder raises on damaged bytes into a DataError that starts with ``code``."""
    try:
        yield
    except DataError:
        raise
    except Exception as error:
        raise DataError(f"{code}: {type(error).__name__}: {str(error)[:160]}") from error
