"""Which files hold CT slices in Hounsfield units, told from the header alone, and why others do not."""

import math
import re
from functools import lru_cache

from ichtune.data.dicom.header import SliceHeader, slice_normal
from ichtune.data.dicom.known_terms import (
    MODALITIES,
    PHOTOMETRIC_INTERPRETATIONS,
    RESCALE_TYPES,
    quoted_term,
    quoted_uid,
)
from ichtune.data.dicom.pixel_decoders import MAX_PIXELS
from ichtune.errors import DataError

CT_IMAGE = "1.2.840.10008.5.1.4.1.1.2"
#: Enhanced CT and Legacy Converted Enhanced CT: a frame is a slice, described by functional groups.
MULTI_FRAME_CT = ("1.2.840.10008.5.1.4.1.1.2.1", "1.2.840.10008.5.1.4.1.1.2.2")
#: The plane of a slice may lean this far from axial; gantries tilt by at most 30 degrees.
MAX_TILT_DEG = 45.0
_MIN_NORMAL_Z = math.cos(math.radians(MAX_TILT_DEG))

#: What other SOP classes are, by the start of their UID. Source: DICOM PS3.6 table A-1.
_OTHER_KINDS = {
    "1.2.840.10008.1.3.10": "a DICOMDIR",
    "1.2.840.10008.5.1.4.1.1.7": "a secondary capture",
    "1.2.840.10008.5.1.4.1.1.11": "a presentation state",
    "1.2.840.10008.5.1.4.1.1.66": "a segmentation or registration",
    "1.2.840.10008.5.1.4.1.1.88": "a structured report",
    "1.2.840.10008.5.1.4.1.1.104": "an encapsulated document",
    "1.2.840.10008.5.1.4.1.1.481": "a radiotherapy object",
}
_HU_TYPES = {"", "HU", "HU_MOD", "US"}
#: An 8-bit picture of one window spans fewer HU than this; a CT slice from air to bone spans more.
_MIN_SPAN_HU = 1000
#: Words of ImageType or FrameType whose pixels are no slice of the body: pages of text, pictures of the screen,
#: projections and renderings of a volume, arithmetic on several images.
#: Source: DICOM PS3.3 C.8.15.3.2, C.8.16.1.3 and C.8.16.1.4; scanners' conformance statements.
_SUMMARIES = re.compile(
    r"(?<![A-Z0-9])(?:"
    r"DOSE.?(?:INFO|REPORT)|SCREEN.?(?:SAVE|SHOT)|PATIENT.?PROTOCOL|PROT(?:OCOL)?|"
    r"MIP|(?:MIN|MAX)[ _]?IP|PROJECTION|VRT|SSD|VOLREN|"
    r"(?:VOLUME|SURFACE).?REND(?:ERING|ERED)|3D.?REND(?:ERING|ERED)|"
    r"PERFUSION|CBF|CBV|MTT|TTP|TMAX|"
    r"MAXIMUM|MINIMUM|SUBTRACTION|ADDITION|DIVISION|MULTIPLICATION|MASKED|STD_DEVIATION|QUANTITY"
    r")(?![A-Z0-9])"
)


def check_file(header: SliceHeader, has_pixel_data: bool) -> None:
    """Refuse a file that as a whole is no CT image, before a pixel is decoded.

    Raises:
        DataError: the message starts with one of ``reader.REASONS``.
    """
    _check_class(header)
    _check_image_type(header)
    if not has_pixel_data:
        raise DataError("no_pixel_data: the file holds no PixelData, or ends before it")
    _check_pixel_module(header)


def check_frame(header: SliceHeader) -> None:
    """Refuse what is not a slice in Hounsfield units.

    Args:
        header: of a plain file, or of one frame with the values of its functional groups.

    Raises:
        DataError: the message starts with one of ``reader.REASONS``.
    """
    _check_image_type(header)
    _check_plane(header)
    _check_rescale(header)


def is_multi_frame_ct(header: SliceHeader) -> bool:
    """Whether a file of this header is to be read frame by frame."""
    return header.sop_class_uid in MULTI_FRAME_CT or (header.sop_class_uid == CT_IMAGE and header.n_frames > 1)


def _check_class(header: SliceHeader) -> None:
    uid = header.sop_class_uid
    if uid not in ("", CT_IMAGE, *MULTI_FRAME_CT):
        kinds = (kind for start, kind in _OTHER_KINDS.items() if uid == start or uid.startswith(f"{start}."))
        raise DataError(
            f"not_ct_image: {next(kinds, 'another object')}, got SOP class {quoted_uid(uid)}, expected CT Image Storage"
        )
    if header.modality.upper() != "CT":
        raise DataError(f"not_ct_image: got modality {quoted_term(header.modality, MODALITIES)}, expected CT")
    if not uid and header.n_frames > 1:
        raise DataError(f"multi_frame: {header.n_frames} frames without a SOP class that says where they lie")


def _check_image_type(header: SliceHeader) -> None:
    problem = _image_type_problem(header.image_type)
    if problem:
        raise DataError(problem)


@lru_cache(maxsize=256)
def _image_type_problem(image_type: tuple[str, ...]) -> str:
    values = [value.upper() for value in image_type]
    if any(value.startswith(("LOCALIZER", "SCOUT")) for value in values):
        return "localizer: ImageType says that this is a localizer, no slice"
    found = next(filter(None, map(_SUMMARIES.search, values)), None)
    if found is None:
        return ""
    return f"derived_summary: ImageType says {found.group()!r}, expected a slice of the body"


def _check_pixel_module(header: SliceHeader) -> None:
    photometric = header.photometric_interpretation
    if header.samples_per_pixel != 1 or photometric.upper() not in ("", "MONOCHROME1", "MONOCHROME2"):
        raise DataError(
            f"colour_image: {header.samples_per_pixel} samples a pixel, photometric interpretation "
            f"{quoted_term(photometric, PHOTOMETRIC_INTERPRETATIONS)}, expected one MONOCHROME sample"
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


def _check_plane(header: SliceHeader) -> None:
    z = slice_normal(header.image_orientation)[2]
    if z < _MIN_NORMAL_Z:  # never so for NaN, an orientation that is unknown
        raise DataError(
            f"not_axial: the plane is turned by {math.degrees(math.acos(z)):.0f} degrees against axial, "
            f"expected at most {MAX_TILT_DEG:.0f}: a coronal or sagittal reformat"
        )


def _check_rescale(header: SliceHeader) -> None:
    slope = header.rescale_slope
    if slope == 0:
        raise DataError("bad_header: RescaleSlope must not be 0")
    span_hu = abs(1.0 if slope is None else slope) * 2**header.bits_stored
    if header.bits_stored <= 8 and span_hu < _MIN_SPAN_HU:
        raise DataError(
            f"not_hounsfield: {header.bits_stored} bits stored span {span_hu:.0f} HU, expected at least "
            f"{_MIN_SPAN_HU}: a picture of one window"
        )
    for name, value in (("RescaleIntercept", header.rescale_intercept), ("RescaleSlope", slope)):
        if value is None:
            raise DataError(f"no_rescale: {name} is missing, so stored values cannot be turned into HU")
    if header.rescale_type.upper() not in _HU_TYPES:
        raise DataError(
            f"not_hounsfield: got RescaleType {quoted_term(header.rescale_type, RESCALE_TYPES)}, expected HU"
        )
