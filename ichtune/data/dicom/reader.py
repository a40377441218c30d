"""The only reader of DICOM pixels: CT slices of a file as Hounsfield units, or a reason why not.

A refusal starts with one of ``REASONS`` and a colon. Values are never guessed: what is cut short, contradicts
its header or has no known path to HU is refused, and nothing is ever filled in.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from ichtune.data.dicom.enhanced_ct import check_frames, frame_header
from ichtune.data.dicom.header import SliceHeader
from ichtune.data.dicom.hounsfield import slice_hu
from ichtune.data.dicom.kinds import check_file, check_frame, is_multi_frame_ct
from ichtune.data.dicom.parse import ParsedFile, parse
from ichtune.data.dicom.pixel_decoders import decode_pixels
from ichtune.data.source_files import read_file_bytes
from ichtune.errors import DataError

#: Every code that a refused file or frame can carry.
REASONS: tuple[str, ...] = (
    "not_dicom",
    "unreadable_file",
    "unreadable_header",
    "bad_header",
    "not_ct_image",
    "localizer",
    "derived_summary",
    "not_axial",
    "multi_frame",
    "colour_image",
    "unsupported_pixels",
    "unsupported_transfer_syntax",
    "no_rescale",
    "not_hounsfield",
    "absurd_matrix",
    "no_pixel_data",
    "truncated_pixel_data",
    "pixel_data_length",
    "undecodable_pixels",
    "decoder_timed_out",
    "decoder_died",
)


@dataclass(frozen=True)
class SliceReading:
    """What one frame of one file gave.

    Attributes:
        header: the frame's header, None where nothing of the file could be parsed.
        hu: int16 (H, W), HU; None when refused.
        reason: ``""``, or why the slice was refused: a code of ``REASONS``, a colon, words.
        padding_ignored: the header calls stored values padding that stand for tissue; they were kept.
    """

    header: SliceHeader | None
    hu: np.ndarray | None
    reason: str
    padding_ignored: bool = False


def read_slices(data: bytes) -> Iterator[SliceReading]:
    """Read every slice of one file, one frame at a time.

    Args:
        data: the whole file.

    Yields:
        One reading a frame, one in all for a plain file and for one that is refused as a whole. A frame that
        cannot be read is a refused reading, and the next one is tried.
    """
    try:
        parsed = parse(data)
    except DataError as error:
        yield SliceReading(None, None, str(error))
        return
    yield from _readings(parsed)


class DicomFile:
    """One parsed file: its header is there at once, its pixels are decoded when asked for.

    Args:
        source: a path, or the bytes of a file.

    Raises:
        DataError: no DICOM file, or a header that cannot be read.
    """

    def __init__(self, source: Path | bytes) -> None:
        self._parsed = parse(source if isinstance(source, bytes) else read_file_bytes(source))
        self.header: SliceHeader = self._parsed.header

    def hu(self) -> np.ndarray:
        """Return the slice, the first one of a multi-frame file, in Hounsfield units.

        Stored values outside the field of view that lie below air (-2000 in much of the competition) are kept
        as they are: windows clip them, and the cache lifts them to air before it resizes. Values outside int16
        saturate.

        Returns:
            int16 (H, W), HU.

        Raises:
            DataError: the message starts with one of ``REASONS``.
        """
        reading = next(_readings(self._parsed))
        if reading.hu is None:
            raise DataError(reading.reason)
        return reading.hu


def read_header(path: Path) -> SliceHeader:
    """Read the allowed tags of one file; pixels are not decoded.

    Raises:
        DataError: no such file, no DICOM file, or a header that cannot be read.
    """
    return DicomFile(path).header


def read_hu(path: Path) -> np.ndarray:
    """Read one CT slice.

    Returns:
        int16 (H, W), HU, as ``DicomFile.hu`` describes.

    Raises:
        DataError: the message starts with one of ``REASONS``.
    """
    return DicomFile(path).hu()


def _readings(parsed: ParsedFile) -> Iterator[SliceReading]:
    header = parsed.header
    try:
        check_file(header, parsed.pixel_data is not None)
        if parsed.problem:
            raise DataError(parsed.problem)
        is_multi_frame = is_multi_frame_ct(header)
        if is_multi_frame:
            check_frames(header, parsed.groups)
    except DataError as error:
        yield SliceReading(header, None, str(error))
        return
    if not is_multi_frame:
        yield _reading(parsed, header, 0)
        return
    for frame in range(max(header.n_frames, 1)):
        try:
            of_frame = frame_header(header, parsed.groups, frame)
        except DataError as error:
            yield SliceReading(replace(header, frame_number=frame + 1), None, str(error))
        else:
            yield _reading(parsed, of_frame, frame)


def _reading(parsed: ParsedFile, header: SliceHeader, frame: int) -> SliceReading:
    try:
        check_frame(header)
        hu, padding_ignored = slice_hu(decode_pixels(parsed, frame), header)
    except DataError as error:
        return SliceReading(header, None, str(error))
    return SliceReading(header, hu, "", padding_ignored)
