"""DICOM's run lengths (RLE Lossless): one frame's bytes to stored values, never more than the frame holds.

Pure Python, because damaged run lengths ended the process in a compiled decoder; the work stops at the first
byte that the frame has no place for, so that a small file cannot grow into a large one.
"""

import struct
from itertools import pairwise

import numpy as np

from ichtune.errors import DataError

_HEADER = struct.Struct("<16I")
_NO_RUN = 128
#: Two bytes, a run and its value, expand to at most 128.
_MAX_RATIO = 64


def decode_run_lengths(frame: bytes, rows_px: int, columns_px: int, sample_bytes: int) -> np.ndarray:
    """Decode one frame of single-sample run lengths.

    Args:
        frame: the header of 16 numbers and the segments, most significant bytes first.
        rows_px: height of the image.
        columns_px: width of the image.
        sample_bytes: 1 or 2.

    Returns:
        uint8 or uint16 bit patterns (rows_px, columns_px) in native byte order.

    Raises:
        DataError: ``truncated_pixel_data`` or ``undecodable_pixels``; runs that do not fill the matrix exactly
            are damage, not padding.

    Source: DICOM PS3.5 Annex G.
    """
    n_pixels = rows_px * columns_px
    if len(frame) * _MAX_RATIO < n_pixels * sample_bytes:
        raise DataError(
            f"truncated_pixel_data: {len(frame)} bytes of run lengths cannot hold {n_pixels * sample_bytes} bytes "
            "of pixels"
        )
    starts = _segment_starts(frame, sample_bytes)
    planes = np.empty((n_pixels, sample_bytes), np.uint8)
    for byte, (start, stop) in enumerate(pairwise([*starts, len(frame)])):
        planes[:, byte] = np.frombuffer(_expanded(frame, start, stop, n_pixels), np.uint8)
    kind = np.dtype(">u2") if sample_bytes == 2 else np.dtype(np.uint8)
    stored = planes.reshape(-1).view(kind).reshape(rows_px, columns_px)
    return stored.astype(kind.newbyteorder("="), copy=False)


def _segment_starts(frame: bytes, expected: int) -> list[int]:
    if len(frame) < _HEADER.size:
        raise DataError(f"truncated_pixel_data: {len(frame)} bytes, the header of run lengths alone takes 64")
    n_segments, *offsets = _HEADER.unpack_from(frame)
    if n_segments != expected:
        raise DataError(f"undecodable_pixels: {n_segments} segments of run lengths, expected {expected}")
    starts = offsets[:expected]
    if starts != sorted(set(starts)) or starts[0] < _HEADER.size or starts[-1] >= len(frame):
        raise DataError("undecodable_pixels: the segments of run lengths do not lie behind each other in the frame")
    return starts


def _expanded(frame: bytes, at: int, stop: int, n_bytes: int) -> bytearray:
    """The bytes of one segment; a single byte may be left over, which pads a segment to an even length."""
    out = bytearray()
    while len(out) < n_bytes and at < stop:
        count = frame[at]
        if count < _NO_RUN:
            end = at + 2 + count
            out += frame[at + 1 : min(end, stop)]
        elif count > _NO_RUN:
            end = at + 2
            out += frame[at + 1 : min(end, stop)] * (257 - count)
        else:
            end = at + 1
        at = end
    while at < stop and frame[at] == _NO_RUN:
        at += 1
    if len(out) < n_bytes:
        raise DataError(f"truncated_pixel_data: run lengths for {len(out)} pixels, {n_bytes} needed")
    if len(out) > n_bytes or at > stop or stop - at > 1:
        raise DataError(f"undecodable_pixels: run lengths do not end with the last of {n_bytes} pixels")
    return out
