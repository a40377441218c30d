"""What is read from a DICOM header: an allow-list of tags, as one frozen ``SliceHeader``.

Nothing outside the list is ever kept, so that names and birth dates cannot reach a table, a cache or a log.
Values are parsed from their raw bytes: string-typed numbers, repeated values and odd value representations
then follow one rule.
"""

import struct
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from pydicom.dataelem import RawDataElement
from pydicom.dataset import Dataset, FileDataset

from ichtune.errors import DataError


class Tag(NamedTuple):
    """One allowed tag: its number and whether its value is text or numbers."""

    number: int
    is_number: bool = False


TAGS: dict[str, Tag] = {
    "image_type": Tag(0x00080008),
    "sop_class_uid": Tag(0x00080016),
    "sop_instance_uid": Tag(0x00080018),
    "modality": Tag(0x00080060),
    "patient_id": Tag(0x00100020),
    "slice_thickness": Tag(0x00180050, True),
    "gantry_tilt": Tag(0x00181120, True),
    "study_instance_uid": Tag(0x0020000D),
    "series_instance_uid": Tag(0x0020000E),
    "instance_number": Tag(0x00200013, True),
    "image_position": Tag(0x00200032, True),
    "image_orientation": Tag(0x00200037, True),
    "slice_location": Tag(0x00201041, True),
    "samples_per_pixel": Tag(0x00280002, True),
    "photometric_interpretation": Tag(0x00280004),
    "number_of_frames": Tag(0x00280008, True),
    "rows": Tag(0x00280010, True),
    "columns": Tag(0x00280011, True),
    "pixel_spacing": Tag(0x00280030, True),
    "bits_allocated": Tag(0x00280100, True),
    "bits_stored": Tag(0x00280101, True),
    "high_bit": Tag(0x00280102, True),
    "pixel_representation": Tag(0x00280103, True),
    "rescale_intercept": Tag(0x00281052, True),
    "rescale_slope": Tag(0x00281053, True),
    "rescale_type": Tag(0x00281054),
}
_BINARY_FORMATS = {"US": "H", "SS": "h", "UL": "I", "SL": "i", "FL": "f", "FD": "d", "SV": "q", "UV": "Q"}
#: Tags that hold a 16-bit count: their form where an implicit header does not say it.
_COUNTS = {
    "samples_per_pixel",
    "rows",
    "columns",
    "bits_allocated",
    "bits_stored",
    "high_bit",
    "pixel_representation",
}
_MAX_TEXT = 256


@dataclass(frozen=True)
class SliceHeader:
    """The allowed part of one DICOM header; text that is absent is ``""``, a number that is absent is None.

    Attributes:
        image_position_mm: ImagePositionPatient, (x, y, z).
        image_orientation: ImageOrientationPatient, direction of a row and of a column.
        pixel_spacing_mm: distance between rows and between columns.
        tilt_deg: gantry tilt as the header states it.
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

    @property
    def is_signed(self) -> bool:
        """Whether stored values are two's complement."""
        return self.pixel_representation == 1

    @property
    def encoding(self) -> str:
        """Bits stored, u or s, and the file's intercept: ``12u-1024``, ``16s+0``; ``""`` when unknown."""
        if not self.bits_stored or self.rescale_intercept is None:
            return ""
        return f"{self.bits_stored}{'s' if self.is_signed else 'u'}{self.rescale_intercept:+g}"

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
    value = _Values(dataset)
    meta = dataset.file_meta
    bits_allocated = value.count("bits_allocated", 0)
    bits_stored = value.count("bits_stored", bits_allocated)
    return SliceHeader(
        sop_instance_uid=value.text("sop_instance_uid"),
        sop_class_uid=value.text("sop_class_uid") or str(meta.get("MediaStorageSOPClassUID", "")),
        transfer_syntax_uid=str(meta.get("TransferSyntaxUID", "")),
        modality=value.text("modality"),
        image_type=tuple(value.texts("image_type")),
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
    )


class _Values:
    """Allowed tags of one data set, by name, parsed from their raw bytes."""

    def __init__(self, dataset: Dataset) -> None:
        self._dataset = dataset

    def texts(self, name: str) -> list[str]:
        element: Any = self._dataset.get_item(TAGS[name].number)
        if element is None or element.value is None:
            return []
        raw = element.value
        if isinstance(element, RawDataElement) and isinstance(raw, bytes):
            return _texts_of(raw, _binary_format(name, element), element.is_little_endian)
        parts = raw if isinstance(raw, Sequence) and not isinstance(raw, str) else [raw]
        return [str(part) for part in parts]

    def text(self, name: str) -> str:
        return next(iter(self.texts(name)), "")

    def numbers(self, name: str) -> list[float]:
        try:
            return [float(text) for text in self.texts(name) if text]
        except ValueError as error:
            raise DataError(f"bad_header: {name} must be a number, it holds text") from error

    def scalar(self, name: str) -> float | None:
        """One number; a repeated tag is fine as long as its values agree."""
        values = self.numbers(name)
        if len(set(values)) > 1:
            raise DataError(f"bad_header: {name} must be one number, got {len(values)} different ones")
        if not values:
            return None
        if not -1e30 < values[0] < 1e30:
            raise DataError(f"bad_header: {name} must be a finite number, got {values[0]}")
        return values[0]

    def count(self, name: str, default: int) -> int:
        value = self.scalar(name)
        if value is None:
            return default
        if value != int(value) or value < 0:
            raise DataError(f"bad_header: {name} must be a whole number, got {value:g}")
        return int(value)

    def optional(self, name: str) -> float | None:
        """A number that is only a description: one that cannot be read counts as absent."""
        try:
            return self.scalar(name)
        except DataError:
            return None

    def vector(self, name: str, length: int) -> tuple[float, ...] | None:
        try:
            values = self.numbers(name)
        except DataError:
            return None
        finite = len(values) == length and all(-1e9 < value < 1e9 for value in values)
        return tuple(values) if finite else None


def _binary_format(name: str, element: RawDataElement) -> str | None:
    """The struct code of a value that is not text."""
    vr = element.VR
    if vr is None or vr == "UN":
        return "H" if name in _COUNTS else None
    return _BINARY_FORMATS.get(vr)


def _texts_of(raw: bytes, binary_format: str | None, is_little_endian: bool) -> list[str]:
    if binary_format is None:
        text = _decoded(raw[: _MAX_TEXT * 8]).strip(" \0\t\r\n")
        return [part.strip(" \0\t\r\n")[:_MAX_TEXT] for part in text.split("\\")] if text else []
    code = ("<" if is_little_endian else ">") + binary_format
    size = struct.calcsize(code)
    return [repr(struct.unpack_from(code, raw, offset)[0]) for offset in range(0, len(raw) - size + 1, size)][:16]


def _decoded(raw: bytes) -> str:
    try:
        return raw.decode("utf-8")
    except UnicodeDecodeError:
        return raw.decode("latin-1")
