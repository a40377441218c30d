"""The only reader of DICOM pixels: one CT slice of a file as Hounsfield units, or a reason why not.

A refusal is a ``DataError`` whose message starts with one of ``REASONS`` and a colon. Values are never
guessed: what is cut short, contradicts its header or has no known path to HU is refused, and nothing is ever
filled in.
"""

from pathlib import Path

import numpy as np

from ichtune.data.dicom_header import SliceHeader
from ichtune.data.dicom_parse import parse
from ichtune.data.pixel_decoders import MAX_PIXELS, decode_pixels
from ichtune.errors import DataError

#: Every code that a refused file can carry.
REASONS: tuple[str, ...] = (
    "not_dicom",
    "unreadable_file",
    "unreadable_header",
    "bad_header",
    "not_ct_image",
    "localizer",
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
)
#: A file larger than this is no single CT slice and is not read into memory.
MAX_FILE_BYTES = 256 * 1024 * 1024

_CT_IMAGE = "1.2.840.10008.5.1.4.1.1.2"
_ENHANCED_CT = ("1.2.840.10008.5.1.4.1.1.2.1", "1.2.840.10008.5.1.4.1.1.2.2")
_HU_TYPES = {"", "HU", "HU_MOD", "US"}
_BROKEN_12BIT_SHIFT = 1000
_INT16 = np.iinfo(np.int16)


class DicomFile:
    """One parsed file: its header is there at once, its pixels are decoded when asked for.

    Args:
        source: a path, or the bytes of a file.

    Raises:
        DataError: no DICOM file, or a header that cannot be read.
    """

    def __init__(self, source: Path | bytes) -> None:
        self._parsed = parse(source if isinstance(source, bytes) else read_bytes(source))
        self.header: SliceHeader = self._parsed.header

    def hu(self) -> np.ndarray:
        """Return the slice in Hounsfield units.

        Stored values outside the field of view (-2000 in much of the competition) are kept as they are, below
        air: windows clip them, and the cache lifts them to air before it resizes. Values outside int16
        saturate.

        Returns:
            int16 (H, W), HU.

        Raises:
            DataError: the message starts with one of ``REASONS``.
        """
        check_is_ct_slice(self.header, self._parsed.pixel_data is not None)
        stored = mask_stored_bits(decode_pixels(self._parsed), self.header)
        return hounsfield(stored, self.header)


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


def read_bytes(path: Path) -> bytes:
    """Read a whole file, once.

    Raises:
        DataError: ``unreadable_file: ...``.
        FileNotFoundError: the file is gone; whoever listed it knows what that means.
    """
    try:
        with path.open("rb") as file:
            data = file.read(MAX_FILE_BYTES + 1)
    except FileNotFoundError as error:
        if path.is_symlink():
            raise DataError("unreadable_file: a link to a file that is not there") from error
        raise
    except OSError as error:
        raise DataError(f"unreadable_file: {error.strerror or type(error).__name__}") from error
    if len(data) > MAX_FILE_BYTES:
        raise DataError(f"unreadable_file: larger than {MAX_FILE_BYTES >> 20} MiB, no single slice")
    return data


def check_is_ct_slice(header: SliceHeader, has_pixel_data: bool = True) -> None:
    """Refuse whatever is not one plain CT slice in Hounsfield units, before a pixel is decoded.

    Raises:
        DataError: the message starts with one of ``REASONS``.
    """
    _check_kind(header)
    if not has_pixel_data:
        raise DataError("no_pixel_data: the file holds no PixelData, or ends before it")
    _check_pixel_module(header)
    if header.rescale_intercept is None:
        raise DataError("no_rescale: RescaleIntercept is missing, so stored values cannot be turned into HU")
    if header.rescale_slope == 0:
        raise DataError("bad_header: RescaleSlope must not be 0")
    if header.rescale_type.upper() not in _HU_TYPES:
        raise DataError(f"not_hounsfield: RescaleType is {header.rescale_type[:16]!r}, expected HU")


def _check_kind(header: SliceHeader) -> None:
    if header.sop_class_uid in _ENHANCED_CT or header.n_frames > 1:
        raise DataError(f"multi_frame: {header.n_frames} frames in one file; split it into single-frame CT first")
    if header.sop_class_uid not in ("", _CT_IMAGE):
        raise DataError(f"not_ct_image: SOP class {header.sop_class_uid[:64]}, expected CT Image Storage")
    if header.modality != "CT":
        raise DataError(f"not_ct_image: modality {header.modality[:16]!r}, expected 'CT'")
    if any(part.upper().startswith(("LOCALIZER", "SCOUT")) for part in header.image_type):
        raise DataError("localizer: ImageType says that this is a localizer, no slice")


def _check_pixel_module(header: SliceHeader) -> None:
    photometric = header.photometric_interpretation.upper()
    if header.samples_per_pixel != 1 or photometric not in ("", "MONOCHROME1", "MONOCHROME2"):
        raise DataError(
            f"colour_image: {header.samples_per_pixel} samples a pixel, {photometric[:16] or 'unknown'}, "
            "expected one MONOCHROME sample"
        )
    rows, columns = header.rows_px, header.columns_px
    if not (rows > 0 and columns > 0 and rows * columns <= MAX_PIXELS):
        raise DataError(f"absurd_matrix: {rows} x {columns} pixels, expected 1 to {MAX_PIXELS} in all")
    allocated, stored, high = header.bits_allocated, header.bits_stored, header.high_bit
    if allocated not in (8, 16) or header.pixel_representation not in (0, 1):
        raise DataError(
            f"unsupported_pixels: {allocated} bits allocated, expected 8 or 16; pixel representation "
            f"{header.pixel_representation}, expected 0 or 1"
        )
    if not (1 < stored <= allocated and stored - 1 <= high < allocated):
        raise DataError(f"bad_header: {stored} bits stored with high bit {high} do not fit in {allocated} bits")


def mask_stored_bits(stored: np.ndarray, header: SliceHeader) -> np.ndarray:
    """Keep only the stored bits and extend the sign.

    Args:
        stored: uint8 or uint16 (H, W) bit patterns as they lie in the file.
        header: says how many bits count and whether they are signed.

    Returns:
        uint16 or int16 (H, W).

    Source: DICOM PS3.3 C.7.6.3.1: bits outside BitsStored may hold anything, overlays for instance.
    """
    pattern = stored.astype(np.uint16, copy=False)
    below = header.high_bit + 1 - header.bits_stored
    above = 16 - header.bits_stored
    if below:
        pattern = pattern >> np.uint16(below)
    if header.is_signed:
        return (pattern << np.uint16(above)).view(np.int16) >> np.int16(above) if above else pattern.view(np.int16)
    return pattern & np.uint16(0xFFFF >> above) if above else pattern


def hounsfield(stored: np.ndarray, header: SliceHeader) -> np.ndarray:
    """Turn stored values into HU, repairing wrapped 12-bit files.

    Args:
        stored: uint16 or int16 (H, W), masked.
        header: slope, intercept, and whether the file is a broken 12-bit one.

    Returns:
        int16 (H, W), HU; a fraction is rounded to the nearest integer, values outside int16 saturate.
    """
    slope = 1.0 if header.rescale_slope is None else header.rescale_slope
    intercept = float(header.rescale_intercept or 0.0)
    if header.is_broken_12bit:
        stored = (stored + np.uint16(_BROKEN_12BIT_SHIFT)) & np.uint16(0x0FFF)
        intercept = -float(_BROKEN_12BIT_SHIFT)
    if slope == 1.0 and intercept.is_integer() and abs(intercept) <= _INT16.max:
        low, high = int(stored.min()) + int(intercept), int(stored.max()) + int(intercept)
        if _INT16.min <= low and high <= _INT16.max:  # then arithmetic modulo 2**16 is exact
            return stored.view(np.int16) + np.int16(intercept)
    return np.rint(np.clip(stored * slope + intercept, _INT16.min, _INT16.max)).astype(np.int16)
