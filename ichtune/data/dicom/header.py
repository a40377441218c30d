"""What is read from a DICOM header: an allow-list of tags, as one frozen ``SliceHeader``.

Nothing outside the list is ever kept, so that names and birth dates cannot reach a table, a cache or a log.
Values are parsed from their raw bytes: string-typed numbers, repeated values and odd value representations
then follow one rule.
"""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from pydicom.dataelem import RawDataElement
from pydicom.dataset import Dataset, FileDataset

from ichtune.data.dicom.tag_values import RawValue, TagValues
from ichtune.windows import is_sound_window

#: Every tag that is read, by the name that the code calls it. Sequences are entered by ``enhanced_ct`` alone.
TAGS: dict[str, int] = {
    "image_type": 0x00080008,
    "sop_class_uid": 0x00080016,
    "sop_instance_uid": 0x00080018,
    "modality": 0x00080060,
    "frame_type": 0x00089007,  # of single frames only
    "patient_id": 0x00100020,
    "slice_thickness": 0x00180050,
    "gantry_tilt": 0x00181120,
    "study_instance_uid": 0x0020000D,
    "series_instance_uid": 0x0020000E,
    "instance_number": 0x00200013,
    "image_position": 0x00200032,
    "image_orientation": 0x00200037,
    "slice_location": 0x00201041,
    "samples_per_pixel": 0x00280002,
    "photometric_interpretation": 0x00280004,
    "number_of_frames": 0x00280008,
    "rows": 0x00280010,
    "columns": 0x00280011,
    "pixel_spacing": 0x00280030,
    "bits_allocated": 0x00280100,
    "bits_stored": 0x00280101,
    "high_bit": 0x00280102,
    "pixel_representation": 0x00280103,
    "pixel_padding_value": 0x00280120,
    "pixel_padding_range_limit": 0x00280121,
    "window_center": 0x00281050,
    "window_width": 0x00281051,
    "rescale_intercept": 0x00281052,
    "rescale_slope": 0x00281053,
    "rescale_type": 0x00281054,
    "lossy_image_compression": 0x00282110,
}
#: Tags that hold a 16-bit number: their form where an implicit header does not say it.
_COUNTS = frozenset(
    {
        "samples_per_pixel",
        "rows",
        "columns",
        "bits_allocated",
        "bits_stored",
        "high_bit",
        "pixel_representation",
        "pixel_padding_value",
        "pixel_padding_range_limit",
    }
)


_NAN = float("nan")

#: Transfer syntaxes that cannot keep every value (JPEG), and those that need not (JPEG-LS, JPEG 2000).
_LOSSY_SYNTAXES = frozenset({"1.2.840.10008.1.2.4.50", "1.2.840.10008.1.2.4.51"})
_NEARLY_LOSSLESS_SYNTAXES = frozenset({"1.2.840.10008.1.2.4.81", "1.2.840.10008.1.2.4.91"})


@dataclass(frozen=True)
class SliceHeader:
    """The allowed part of one DICOM header; text that is absent is ``""``, a number that is absent is None.

    Attributes:
        image_position_mm: ImagePositionPatient, (x, y, z).
        image_orientation: ImageOrientationPatient, direction of a row and of a column.
        pixel_spacing_mm: distance between rows and between columns.
        tilt_deg: gantry tilt as the header states it.
        pixel_padding_value: what pixels outside the field of view are stored as, as the header writes it: a
            negative value may be stated as an unsigned one.
        pixel_padding_range_limit: the other end of the range of such values.
        lossy_image_compression: ``01`` where pixels were ever compressed with loss, ``00`` where they were not.
        window_hu: centre and width of the first window that the file asks for; None without a sound one.
        frame_number: which frame of a multi-frame file this is, from 1; 1 for a plain file.
    """

    sop_instance_uid: str
    sop_class_uid: str
    transfer_syntax_uid: str
    modality: str
    image_type: tuple[str, ...]
    patient_id: str
    dicom_study_uid: str
    series_instance_uid: str
    photometric_interpretation: str
    rescale_type: str
    instance_number: float | None
    image_position_mm: tuple[float, ...] | None
    image_orientation: tuple[float, ...] | None
    slice_location_mm: float | None
    slice_thickness_mm: float | None
    tilt_deg: float | None
    pixel_spacing_mm: tuple[float, ...] | None
    rows_px: int
    columns_px: int
    samples_per_pixel: int
    n_frames: int
    bits_allocated: int
    bits_stored: int
    high_bit: int
    pixel_representation: int
    rescale_slope: float | None
    rescale_intercept: float | None
    pixel_padding_value: float | None = None
    pixel_padding_range_limit: float | None = None
    lossy_image_compression: str = ""
    window_hu: tuple[float, float] | None = None
    frame_number: int = 1

    @property
    def is_signed(self) -> bool:
        """Whether stored values are two's complement."""
        return self.pixel_representation == 1

    @property
    def encoding(self) -> str:
        """Bits stored, u or s, a slope other than 1, and the file's intercept; ``""`` when unknown.

        ``12u-1024``, ``16s+0``, ``8u*32.12-2000``.
        """
        if not self.bits_stored or self.rescale_intercept is None:
            return ""
        slope = "" if self.rescale_slope in (None, 1.0) else f"*{self.rescale_slope:g}"
        return f"{self.bits_stored}{'s' if self.is_signed else 'u'}{slope}{self.rescale_intercept:+g}"

    @property
    def is_lossy(self) -> bool:
        """Whether values were changed by compression, now or earlier; unless a file denies it where that can be.

        Source: DICOM PS3.3 C.7.6.1.1.5 (Lossy Image Compression).
        """
        said, syntax = self.lossy_image_compression, self.transfer_syntax_uid
        return said == "01" or syntax in _LOSSY_SYNTAXES or (syntax in _NEARLY_LOSSLESS_SYNTAXES and said != "00")

    @property
    def is_broken_12bit(self) -> bool:
        """Whether the stored values were shifted and wrapped: 12 bits, unsigned, an intercept above -100.

        Source: the rule that the competition's entrants agreed on; 123 of its training files are of this kind,
            while unsigned files with an intercept of -1000 are sound.
        """
        intercept = self.rescale_intercept
        return self.bits_stored == 12 and not self.is_signed and intercept is not None and intercept > -100


def header_of(dataset: FileDataset) -> SliceHeader:
    """Read the allowed tags of a parsed file.

    Raises:
        DataError: ``bad_header: ...``, a tag that is needed holds no number.
    """
    meta = dataset.file_meta
    syntax, media_class = (str(meta.get(word, "")) for word in ("TransferSyntaxUID", "MediaStorageSOPClassUID"))
    return header_from(tag_values(dataset), syntax, media_class)


def header_from(value: TagValues, transfer_syntax_uid: str, media_sop_class_uid: str) -> SliceHeader:
    """Build the header from the allowed tags and the two values that are needed of the file meta information.

    Raises:
        DataError: ``bad_header: ...``, a tag that is needed holds no number.
    """
    bits_allocated = value.count("bits_allocated", 0)
    bits_stored = value.count("bits_stored", bits_allocated)
    return SliceHeader(
        sop_instance_uid=value.text("sop_instance_uid"),
        sop_class_uid=value.text("sop_class_uid") or media_sop_class_uid,
        transfer_syntax_uid=transfer_syntax_uid,
        modality=value.text("modality"),
        image_type=value.texts("image_type"),
        patient_id=value.text("patient_id"),
        dicom_study_uid=value.text("study_instance_uid"),
        series_instance_uid=value.text("series_instance_uid"),
        photometric_interpretation=value.text("photometric_interpretation"),
        rescale_type=value.text("rescale_type"),
        instance_number=value.optional("instance_number"),
        image_position_mm=value.vector("image_position", 3),
        image_orientation=value.vector("image_orientation", 6),
        slice_location_mm=value.optional("slice_location"),
        slice_thickness_mm=value.optional("slice_thickness"),
        tilt_deg=value.optional("gantry_tilt"),
        pixel_spacing_mm=value.vector("pixel_spacing", 2),
        rows_px=value.count("rows", 0),
        columns_px=value.count("columns", 0),
        samples_per_pixel=value.count("samples_per_pixel", 1),
        n_frames=value.count("number_of_frames", 1),
        bits_allocated=bits_allocated,
        bits_stored=bits_stored,
        high_bit=value.count("high_bit", bits_stored - 1 if bits_stored else 0),
        pixel_representation=value.count("pixel_representation", 0),
        rescale_slope=value.scalar("rescale_slope"),
        rescale_intercept=value.scalar("rescale_intercept"),
        pixel_padding_value=value.optional("pixel_padding_value"),
        pixel_padding_range_limit=value.optional("pixel_padding_range_limit"),
        lossy_image_compression=value.text("lossy_image_compression"),
        window_hu=window_from(value),
    )


def window_from(value: TagValues) -> tuple[float, float] | None:
    """Return centre and width of the first window, HU; None without one, or where either is no sound number.

    A window is only a description, so that one that cannot be read refuses no file.

    Source: DICOM PS3.3 C.11.2.1.2 (centre and width, after rescaling; the width is above 0).
    """
    center, width = value.first("window_center"), value.first("window_width")
    if center is None or width is None:
        return None
    return (center, width) if is_sound_window(center, width) else None


@lru_cache(maxsize=1024)
def slice_normal(orientation: tuple[float, ...] | None) -> tuple[float, float, float]:
    """Return the unit normal of a slice, turned towards the head; NaN without a sound orientation.

    Row times column direction points towards the feet where a picture is mirrored or upside down, and a series must
    have one order and one tilt either way.

    Source: DICOM PS3.3 C.7.6.2.1.1.
    """
    if orientation is None:
        return (_NAN, _NAN, _NAN)
    a, b, c, d, e, f = orientation
    x, y, z = b * f - c * e, c * d - a * f, a * e - b * d
    length = math.sqrt(x * x + y * y + z * z)
    if not 0.5 < length < 2.0:  # row and column directions are parallel or no unit vectors
        return (_NAN, _NAN, _NAN)
    if z < 0:
        length = -length
    return (x / length + 0.0, y / length + 0.0, z / length + 0.0)  # no -0.0: it equals 0.0 and has other bytes


def values_from(found: dict[str, RawValue], is_little_endian: bool) -> TagValues:
    """Wrap raw values found under the names of ``TAGS``."""
    return TagValues(found, is_little_endian, _COUNTS)


def tag_values(dataset: Dataset, names: Iterable[str] = TAGS) -> TagValues:
    """Collect allowed tags of a parsed data set, or of an item of a sequence, as raw bytes."""
    found: dict[str, RawValue] = {}
    is_little_endian = True
    for name in names:
        element: Any = dataset.get_item(TAGS[name])
        if element is None or element.value is None:
            continue
        if isinstance(element, RawDataElement) and isinstance(element.value, bytes):
            is_little_endian = element.is_little_endian
            found[name] = (element.VR, element.value)
        else:
            found[name] = ("LO", _as_text(element.value))
    return values_from(found, is_little_endian)


def _as_text(value: Any) -> bytes:
    """A value that was parsed already, in the form in which a file would hold it."""
    parts = value if isinstance(value, Sequence) and not isinstance(value, str | bytes) else [value]
    return "\\".join(str(part) for part in parts).encode("utf-8", "replace")
