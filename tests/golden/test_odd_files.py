"""Files that are no plain slice, or not written as the standard has it: read right or refused with a reason."""

import copy
import struct
import zlib

import numpy as np
import pytest
from pydicom import Dataset
from pydicom.encaps import encapsulate
from pydicom.uid import (
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    RLELossless,
)

from ichtune.data.dicom.parse import parse
from ichtune.data.dicom.reader import REASONS, SliceReading, read_slices

imagecodecs = pytest.importorskip("imagecodecs")

STORED = np.arange(64, dtype=np.uint16).reshape(8, 8) * 16 + 1000
HU = STORED.astype(int) - 1024
#: A coronal plane, a sagittal one, and an axial one of a gantry tilted by 30 degrees.
CORONAL, SAGITTAL = [1, 0, 0, 0, 0, -1], [0, 1, 0, 0, 0, -1]
TILTED = [1, 0, 0, 0, 0.866025, -0.5]


def only(data: bytes) -> SliceReading:
    (reading,) = read_slices(data)
    return reading


def reason_of(data: bytes) -> str:
    reading = only(data)
    assert reading.hu is None
    code = reading.reason.split(":")[0]
    assert code in REASONS
    return code


def meta_end(data: bytes) -> int:
    return 144 + struct.unpack("<I", data[140:144])[0]


@pytest.mark.parametrize(
    ("reason", "tags"),
    [
        ("localizer", {"ImageType": ["ORIGINAL", "PRIMARY", "LOCALIZER"]}),
        ("localizer", {"ImageType": ["ORIGINAL", "PRIMARY", "LOCALIZER", "CT_SOM5 TOP"]}),
        ("localizer", {"ImageType": ["ORIGINAL", "PRIMARY", "SCOUT"]}),
        ("colour_image", {"SamplesPerPixel": 3, "PhotometricInterpretation": "RGB", "PlanarConfiguration": 0}),
        ("colour_image", {"PhotometricInterpretation": "PALETTE COLOR"}),
        ("derived_summary", {"ImageType": ["DERIVED", "SECONDARY", "DOSE_INFO"]}),
        ("derived_summary", {"ImageType": ["DERIVED", "SECONDARY", "SCREEN SAVE"]}),
        ("derived_summary", {"ImageType": ["DERIVED", "SECONDARY", "OTHER", "PATIENT PROTOCOL"]}),
        ("derived_summary", {"ImageType": ["DERIVED", "SECONDARY", "OTHER", "CT_SOM5 PROT"]}),
        ("derived_summary", {"ImageType": ["DERIVED", "SECONDARY", "PROJECTION IMAGE"]}),
        ("derived_summary", {"ImageType": ["DERIVED", "SECONDARY", "AXIAL", "CT_SOM5 MIP"]}),
        ("derived_summary", {"ImageType": ["DERIVED", "SECONDARY", "REFORMATTED", "MIN IP"]}),
        ("derived_summary", {"ImageType": ["DERIVED", "SECONDARY", "VRT"]}),
        ("derived_summary", {"ImageType": ["DERIVED", "SECONDARY", "VOLUME RENDERING"]}),
        ("derived_summary", {"ImageType": ["DERIVED", "PRIMARY", "PERFUSION", "CBF"]}),
        ("not_axial", {"ImageOrientationPatient": CORONAL}),
        ("not_axial", {"ImageOrientationPatient": SAGITTAL}),
        ("not_ct_image", {"Modality": "MR"}),
        ("not_ct_image", {"Modality": "PT", "SOPClassUID": "1.2.840.10008.5.1.4.1.1.128"}),
        ("not_ct_image", {"Modality": "XC", "SOPClassUID": "1.2.840.10008.5.1.4.1.1.7"}),
        ("not_ct_image", {"SOPClassUID": "1.2.840.10008.5.1.4.1.1.7.4"}),
        ("not_ct_image", {"Modality": "PR", "SOPClassUID": "1.2.840.10008.5.1.4.1.1.11.1", "PixelData": None}),
        ("not_ct_image", {"Modality": "SR", "SOPClassUID": "1.2.840.10008.5.1.4.1.1.88.67", "PixelData": None}),
        ("not_ct_image", {"Modality": "CT", "SOPClassUID": "1.2.840.10008.5.1.4.1.1.88.67", "PixelData": None}),
        ("not_ct_image", {"Modality": None, "SOPClassUID": "1.2.840.10008.1.3.10", "PixelData": None}),
        ("not_hounsfield", {"RescaleType": "MGML"}),
        ("no_rescale", {"RescaleIntercept": None}),
        ("no_rescale", {"RescaleSlope": None}),
        ("no_pixel_data", {"PixelData": None}),
        ("multi_frame", {"NumberOfFrames": 2, "Rows": 4}),
        ("absurd_matrix", {"Rows": 65535, "Columns": 65535}),
        ("truncated_pixel_data", {"Rows": 9}),
        ("pixel_data_length", {"Rows": 4}),
        ("unsupported_pixels", {"BitsAllocated": 32, "BitsStored": 32, "HighBit": 31}),
    ],
)
def test_what_is_no_slice_is_refused_by_its_kind(ct_file, reason, tags):
    assert reason_of(ct_file(STORED, **tags)) == reason


@pytest.mark.parametrize(
    "image_type",
    [
        ["DERIVED", "SECONDARY", "AXIAL"],
        ["DERIVED", "SECONDARY", "REFORMATTED", "AVERAGE"],
        ["DERIVED", "PRIMARY", "AXIAL", "CT_SOM5 MPR"],
        ["ORIGINAL", "PRIMARY", "AXIAL", "HELIX"],
        ["ORIGINAL", "PRIMARY", "VOLUME", "RESAMPLED"],
    ],
)
def test_a_derived_or_reformatted_axial_slice_is_a_slice(ct_file, image_type):
    tags = {"ImageType": image_type, "ImageOrientationPatient": TILTED}
    assert (only(ct_file(STORED, **tags)).hu == HU).all()


@pytest.mark.parametrize("rescale", [{"RescaleSlope": "1"}, {"RescaleSlope": None, "RescaleIntercept": None}])
def test_an_8_bit_capture_is_not_hounsfield(ct_file, rescale):
    bits = {"BitsAllocated": 8, "BitsStored": 8, "HighBit": 7, "PixelRepresentation": 0}
    assert reason_of(ct_file(np.full((8, 8), 100, np.uint8), **bits, **rescale)) == "not_hounsfield"


@pytest.mark.parametrize("syntax", [ImplicitVRLittleEndian, ExplicitVRLittleEndian])
@pytest.mark.parametrize("preamble", [b"", b"\0" * 128 + b"DICM"])
def test_a_missing_meta_header_costs_nothing(ct_file, syntax, preamble):
    data = ct_file(STORED, syntax=syntax)
    reading = only(preamble + data[meta_end(data) :])
    assert (reading.hu == HU).all()
    assert reading.header.transfer_syntax_uid == ""


def test_a_missing_meta_header_of_a_big_endian_file(ct_file):
    data = ct_file(STORED, syntax=ExplicitVRBigEndian)
    assert (only(data[meta_end(data) :]).hu == HU).all()


def test_a_missing_preamble(ct_file):
    assert (only(ct_file(STORED)[132:]).hu == HU).all()


def test_a_file_that_states_the_wrong_syntax_is_read_as_it_is(ct_file):
    """Some writers say implicit and write explicit, or the other way round."""
    implicit, explicit = (ct_file(STORED, syntax=uid) for uid in (ImplicitVRLittleEndian, ExplicitVRLittleEndian))
    for head, body in ((implicit, explicit), (explicit, implicit)):
        assert (only(head[: meta_end(head)] + body[meta_end(body) :]).hu == HU).all()


def test_run_lengths_and_jpeg_2000(ct_file):
    jpeg_2000 = imagecodecs.jpeg2k_encode(STORED, level=0, reversible=True, codecformat="j2k")
    tags = {"PixelRepresentation": 0}
    assert (only(_encapsulated(ct_file, jpeg_2000, JPEG2000Lossless, tags)).hu == HU).all()
    assert (only(_encapsulated(ct_file, _run_lengths(STORED), RLELossless, tags)).hu == HU).all()


@pytest.mark.parametrize("keep", [0.999, 0.9, 0.5])
@pytest.mark.parametrize("syntax", [ExplicitVRLittleEndian, ImplicitVRLittleEndian, DeflatedExplicitVRLittleEndian])
def test_a_truncated_file_is_refused_and_keeps_its_name(ct_file, syntax, keep):
    noise = np.random.default_rng(0).integers(0, 2048, (64, 64), dtype=np.uint16)
    data = ct_file(noise, syntax=syntax, SOPInstanceUID="1.2.3.4.5")
    cut = data[: int(len(data) * keep)]
    assert reason_of(cut) == "truncated_pixel_data"
    assert only(cut).header.sop_instance_uid == "1.2.3.4.5"


def test_a_file_cut_inside_its_header_is_refused(ct_file):
    data = ct_file(STORED)
    assert reason_of(data[: meta_end(data)]) == "unreadable_header"
    assert reason_of(data[: meta_end(data) + 40]) in ("unreadable_header", "not_ct_image")
    assert reason_of(data[: data.index(b"\xe0\x7f\x10\x00")]) == "no_pixel_data"


@pytest.mark.parametrize("head", [b"", b"PK\x03\x04", b"image_id,any\n" * 30, b"\0" * 200])
def test_what_is_no_dicom_file_is_refused(head):
    assert reason_of(head) == "not_dicom"
    assert only(head).header is None


def test_a_deflate_bomb_is_refused_before_it_goes_off(ct_file):
    """A small file that would inflate to 24 MiB: after the pixels, in them, and in the header."""
    data = ct_file(STORED, syntax=DeflatedExplicitVRLittleEndian)
    head, body = data[: meta_end(data)], zlib.decompress(data[meta_end(data) :], -15)
    zeros = b"\0" * (8 << 20)

    def bomb(*parts: bytes) -> bytes:
        packer = zlib.compressobj(1, wbits=-15)
        return head + b"".join(packer.compress(part) for part in parts) + packer.flush()

    trailing = bomb(body, *[zeros] * 3)
    assert reason_of(trailing) == "pixel_data_length"
    assert len(parse(trailing).pixel_data) < 200
    pixels_at = body.index(b"\xe0\x7f\x10\x00") + 8
    in_pixels = bomb(body[:pixels_at], struct.pack("<I", 3 * len(zeros)), *[zeros] * 3)
    assert reason_of(in_pixels) == "pixel_data_length"
    assert len(parse(in_pixels).pixel_data) < 200
    private = b"\x09\x00\x10\x10OB\0\0" + struct.pack("<I", 3 * len(zeros))
    assert reason_of(bomb(private, *[zeros] * 3)) == "unreadable_header"


def test_a_deflated_file_with_an_absurd_matrix_is_not_inflated(ct_file):
    data = ct_file(STORED, syntax=DeflatedExplicitVRLittleEndian, Rows=65535, Columns=65535)
    assert reason_of(data) == "absurd_matrix"


def test_a_multi_frame_ct_is_a_slice_a_frame(enhanced_file):
    frames = [STORED + np.uint16(number) for number in range(3)]
    readings = list(read_slices(enhanced_file(frames)))
    assert [reading.reason for reading in readings] == [""] * 3
    for number, reading in enumerate(readings):
        assert (reading.hu == HU + number).all()
        assert reading.header.frame_number == number + 1
        assert reading.header.image_position_mm == (-10, -20, 5 * number)
        assert reading.header.pixel_spacing_mm == (0.4, 0.4)
        assert reading.header.slice_thickness_mm == 5
        assert reading.header.image_orientation == (1, 0, 0, 0, 1, 0)


@pytest.mark.parametrize("syntax", [ImplicitVRLittleEndian, ExplicitVRBigEndian, DeflatedExplicitVRLittleEndian])
def test_a_multi_frame_ct_in_every_uncompressed_syntax(enhanced_file, syntax):
    frames = [STORED, STORED + np.uint16(1)]
    if syntax == ExplicitVRBigEndian:
        frames = [frame.byteswap() for frame in frames]
    readings = list(read_slices(enhanced_file(frames, syntax=syntax)))
    assert [(reading.hu == HU + number).all() for number, reading in enumerate(readings)] == [True, True]


def test_a_multi_frame_ct_in_compressed_frames(enhanced_file):
    frames = [imagecodecs.jpeg2k_encode(STORED + np.uint16(n), level=0, codecformat="j2k") for n in range(2)]
    data = enhanced_file(frames, syntax=JPEG2000Lossless, PixelRepresentation=0)
    assert [(r.hu == HU + n).all() for n, r in enumerate(read_slices(data))] == [True, True]
    run_lengths = [_run_lengths(STORED), b"\0" * 70, _run_lengths(STORED)]
    whole, broken, after = read_slices(enhanced_file(run_lengths, syntax=RLELossless, PixelRepresentation=0))
    assert (whole.hu == after.hu).all()
    assert broken.hu is None
    assert broken.reason
    assert broken.header.frame_number == 2


def test_each_frame_has_its_own_scale_and_kind(enhanced_file):
    def edit(dataset: Dataset) -> None:
        scale = dataset.SharedFunctionalGroupsSequence[0].PixelValueTransformationSequence
        del dataset.SharedFunctionalGroupsSequence[0].PixelValueTransformationSequence
        first, second, third = dataset.PerFrameFunctionalGroupsSequence
        for frame, intercept in ((first, "-1024"), (second, "-1000"), (third, "-1024")):
            frame.PixelValueTransformationSequence = [copy.deepcopy(scale[0])]
            frame.PixelValueTransformationSequence[0].RescaleIntercept = intercept
        third.CTImageFrameTypeSequence[0].FrameType = ["ORIGINAL", "PRIMARY", "LOCALIZER", "NONE"]

    first, second, third = read_slices(enhanced_file([STORED] * 3, edit=edit))
    assert (first.hu == HU).all()
    assert (second.hu == HU + 24).all()
    assert third.reason.startswith("localizer")


def test_a_truncated_multi_frame_ct_gives_the_frames_that_are_there(enhanced_file):
    data = enhanced_file([STORED] * 3)
    first, second, third = read_slices(data[: -STORED.nbytes - 1])
    assert (first.hu == HU).all()
    assert [second.reason.split(":")[0], third.reason.split(":")[0]] == ["truncated_pixel_data"] * 2


def test_a_legacy_converted_ct_and_a_classic_one_with_groups_are_read(enhanced_file):
    for sop_class in ("1.2.840.10008.5.1.4.1.1.2.2", "1.2.840.10008.5.1.4.1.1.2"):
        readings = list(read_slices(enhanced_file([STORED] * 2, SOPClassUID=sop_class)))
        assert [(reading.hu == HU).all() for reading in readings] == [True, True]


@pytest.mark.parametrize(
    ("reason", "edit"),
    [
        ("multi_frame", lambda d: delattr(d, "PerFrameFunctionalGroupsSequence")),
        ("bad_header", lambda d: d.PerFrameFunctionalGroupsSequence.pop()),
        ("localizer", lambda d: setattr(d, "ImageType", ["ORIGINAL", "PRIMARY", "LOCALIZER", "NONE"])),
        ("absurd_matrix", lambda d: setattr(d, "NumberOfFrames", 10**6)),
        ("pixel_data_length", lambda d: setattr(d, "Rows", 4)),
    ],
)
def test_a_multi_frame_ct_that_contradicts_itself_is_refused(enhanced_file, reason, edit):
    readings = list(read_slices(enhanced_file([STORED] * 2, edit=edit)))
    assert {reading.reason.split(":")[0] for reading in readings} == {reason}
    assert all(reading.hu is None for reading in readings)


def test_a_frame_without_a_place_of_its_own_is_refused_alone(enhanced_file):
    def edit(dataset: Dataset) -> None:
        del dataset.PerFrameFunctionalGroupsSequence[1].PlanePositionSequence

    first, second = read_slices(enhanced_file([STORED] * 2, edit=edit))
    assert (first.hu == HU).all()
    assert second.reason.startswith("multi_frame")


def test_a_frame_without_a_scale_is_refused(enhanced_file):
    def edit(dataset: Dataset) -> None:
        del dataset.SharedFunctionalGroupsSequence[0].PixelValueTransformationSequence

    assert [r.reason.split(":")[0] for r in read_slices(enhanced_file([STORED] * 2, edit=edit))] == ["no_rescale"] * 2


def _encapsulated(ct_file, stream: bytes, syntax: str, tags: dict) -> bytes:
    return ct_file(STORED, syntax=syntax, PixelData=encapsulate([stream]), **tags)


def _run_lengths(stored: np.ndarray) -> bytes:
    """The high bytes, then the low bytes, each as literal runs. Source: DICOM PS3.5 annex G."""
    planes = (np.ascontiguousarray(stored >> 8, dtype=np.uint8), stored.astype(np.uint8))
    segments = [
        b"".join(bytes([len(row) - 1]) + row.tobytes() for row in plane)  # a run must not leave its row
        for plane in planes
    ]
    segments = [segment + b"\0" * (len(segment) % 2) for segment in segments]
    return struct.pack("<16I", 2, 64, 64 + len(segments[0]), *[0] * 13) + b"".join(segments)
