"""Stored pixel values from the bytes of a file: one decoder a transfer syntax, all permissively licensed.

Every decoder gets bytes that were checked first, and what it returns is checked again: a stream that is cut
short is refused, never padded.
"""

import struct
from collections.abc import Iterator

import numpy as np

from ichtune.data.dicom.encapsulation import frame_bytes
from ichtune.data.dicom.header import SliceHeader
from ichtune.data.dicom.isolated_decoder import decode_isolated
from ichtune.data.dicom.known_terms import quoted_uid
from ichtune.data.dicom.lossless_jpeg import check_lossless_jpeg
from ichtune.data.dicom.parse import ParsedFile
from ichtune.data.dicom.run_lengths import decode_run_lengths
from ichtune.errors import DataError

#: Rows times columns beyond which a header is taken for damaged; CT matrices end at 2048 x 2048.
MAX_PIXELS = 4096 * 4096

_JPEG = "1.2.840.10008.1.2.4."
_EXPLICIT_BIG = "1.2.840.10008.1.2.2"
_RLE = "1.2.840.10008.1.2.5"
_NATIVE = {"1.2.840.10008.1.2", "1.2.840.10008.1.2.1", "1.2.840.10008.1.2.1.99", _EXPLICIT_BIG}
_CODECS = {
    f"{_JPEG}50": "jpeg8",
    f"{_JPEG}51": "jpeg8",
    f"{_JPEG}57": "jpegsof3",
    f"{_JPEG}70": "jpegsof3",
    f"{_JPEG}80": "jpegls",
    f"{_JPEG}81": "jpegls",
    f"{_JPEG}90": "jpeg2k",
    f"{_JPEG}91": "jpeg2k",
}
#: Huffman codes take a bit at least: one a pixel in lossless JPEG, two a block of 64 in JPEG. The others have no bound.
_MAX_PIXELS_PER_BYTE = {"jpegsof3": 8, "jpeg8": 256}
#: Markers that open a JPEG frame: every SOFn but DHT, JPG and DAC, and SOF55 of JPEG-LS.
_FRAME_MARKERS = ({*range(0xC0, 0xD0)} - {0xC4, 0xC8, 0xCC}) | {0xF7}


def decode_pixels(parsed: ParsedFile, frame: int = 0) -> np.ndarray:
    """Return the stored values of one frame of a single-sample image.

    Of a file that was cut short the frames that are there are decoded; one whose header contradicts the length
    that its pixel data declare is refused, since then nobody knows where a frame begins.

    Args:
        parsed: the file; rows_px, columns_px and bits_allocated of its header have been checked.
        frame: 0 for the first, below n_frames of the header.

    Returns:
        uint8 or uint16 bit patterns (H, W) in native byte order; bits above bits_stored are not masked yet.
        They may lie in the file's own memory: not to be written to.

    Raises:
        DataError: the message starts with ``no_pixel_data``, ``truncated_pixel_data``, ``pixel_data_length``,
            ``unsupported_transfer_syntax``, ``undecodable_pixels``, ``decoder_timed_out`` or ``decoder_died``.
        StorageError: the process that decodes compressed frames cannot be started.
    """
    data, header = parsed.pixel_data, parsed.header
    if not 0 <= frame < max(1, header.n_frames):
        raise ValueError(f"frame must lie in 0..{max(1, header.n_frames) - 1}, got {frame}")
    if data is None or not len(data):
        raise DataError("no_pixel_data: PixelData is empty")
    syntax = header.transfer_syntax_uid
    if not parsed.is_encapsulated and (syntax in _NATIVE or not syntax):
        return _decode_native(data, parsed, frame)
    if not parsed.is_encapsulated or not (syntax == _RLE or syntax in _CODECS):
        raise DataError(
            f"unsupported_transfer_syntax: no decoder for {'' if parsed.is_encapsulated else 'unfragmented '}"
            f"transfer syntax ({quoted_uid(syntax)} is stated); convert the file to explicit little endian first"
        )
    compressed = frame_bytes(parsed, frame, is_fragment_a_frame=syntax == _RLE)
    if syntax == _RLE:
        return decode_run_lengths(compressed, header.rows_px, header.columns_px, header.bits_allocated // 8)
    return _decode_codestream(compressed, header)


def _decode_native(data: memoryview, parsed: ParsedFile, frame: int) -> np.ndarray:
    header = parsed.header
    rows, columns, sample_bytes = header.rows_px, header.columns_px, header.bits_allocated // 8
    expected, n_frames = rows * columns * sample_bytes, max(1, header.n_frames)
    if parsed.pixel_data_bytes - expected * n_frames >= columns * sample_bytes or (
        n_frames > 1 and parsed.pixel_data_bytes < expected * n_frames
    ):
        frames = f"{n_frames} x " if n_frames > 1 else ""
        raise DataError(
            f"pixel_data_length: {parsed.pixel_data_bytes} bytes, but {frames}{rows} x {columns} pixels take "
            f"{expected * n_frames}"
        )
    if len(data) < expected * (frame + 1):
        raise DataError(f"truncated_pixel_data: {len(data)} bytes, {expected * (frame + 1)} needed")
    kind = np.dtype(np.uint8) if sample_bytes == 1 else np.dtype(">u2" if parsed.is_big_endian else "<u2")
    stored = np.frombuffer(data, kind, count=rows * columns, offset=frame * expected)
    return stored.reshape(rows, columns).astype(kind.newbyteorder("="), copy=False)


def _decode_codestream(frame: bytes, header: SliceHeader) -> np.ndarray:
    codec = _CODECS[header.transfer_syntax_uid]
    rows, columns = header.rows_px, header.columns_px
    shape = codestream_shape(frame)
    if shape != (rows, columns):
        raise DataError(f"undecodable_pixels: the compressed image is {_by(shape)}, the header says {rows} x {columns}")
    if frame.rstrip(b"\0")[-2:] != b"\xff\xd9":
        raise DataError("truncated_pixel_data: the compressed image has no end marker")
    if len(frame) * _MAX_PIXELS_PER_BYTE.get(codec, rows * columns) < rows * columns:
        raise DataError(f"truncated_pixel_data: {len(frame)} compressed bytes cannot hold {rows} x {columns} pixels")
    stored = _checked(decode_isolated(codec, frame, shape, header.bits_allocated // 8), header)
    if codec == "jpegsof3":
        check_lossless_jpeg(frame, stored)
    return stored


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


def _checked(stored: np.ndarray, header: SliceHeader) -> np.ndarray:
    """Check what a decoder returned against the header, and return its bit patterns.

    A damaged codestream may state another depth or sign and still be decoded: then values are off by a power of
    two, or would be cut to the stored bits.
    """
    n_bits = 8 * stored.itemsize
    if n_bits <= header.high_bit or (stored.dtype.kind == "i" and not header.is_signed):
        sign = "signed" if header.is_signed else "unsigned"
        raise DataError(
            f"undecodable_pixels: the compressed image is {stored.dtype}, the header says {header.bits_stored} bits, "
            f"{sign}"
        )
    pattern = stored.view(f"u{stored.itemsize}")
    if n_bits - header.high_bit > 1:
        from_sign_bit = pattern >> pattern.dtype.type(header.high_bit)
        extended = (1 << (n_bits - header.high_bit)) - 1
        if ((from_sign_bit > 1) & ~(header.is_signed & (from_sign_bit == extended))).any():
            raise DataError(f"undecodable_pixels: the compressed image has values outside {header.bits_stored} bits")
    return pattern


def _by(shape: tuple[int, ...] | None) -> str:
    return " x ".join(str(side) for side in shape) if shape else "of unknown size"
