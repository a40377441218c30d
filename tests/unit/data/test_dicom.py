import contextlib
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from pydicom.dataset import FileDataset, FileMetaDataset

from ichtune.data.dicom import (
    MAX_FILE_BYTES,
    REASONS,
    DicomFile,
    hounsfield,
    mask_stored_bits,
    read_header,
    read_hu,
)
from ichtune.data.dicom_header import header_of
from ichtune.errors import DataError


def reason_of(path: Path) -> str:
    with pytest.raises(DataError) as caught:
        read_hu(path)
    code = str(caught.value).split(":")[0]
    assert code in REASONS
    return code


@pytest.mark.parametrize(
    ("bits", "signed", "intercept", "value", "hu"),
    [
        (12, 0, -1024, 1064, 40),
        (12, 0, -1000, 1040, 40),
        (12, 1, 0, -1000, -1000),
        (16, 1, -1024, 1064, 40),
        (16, 1, -1024, -2000, -3024),
        (16, 1, 0, 40, 40),
        (12, 0, 0, 40, 40),  # broken: shifted by +1000, wrapped, then -1000
        (12, 0, 0, 3096, -1000),
        (12, 0, 1, 3096, -1000),
        (12, 0, 1, 40, 40),
        (16, 0, 0, 3096, 3096),  # 16 bits are never repaired
        (12, 0, -100, 3096, 2996),  # the rule asks for more than -100
    ],
)
def test_every_encoding_gives_its_hu(tmp_path, write_slice, bits, signed, intercept, value, hu):
    pixels = np.full((8, 8), value, dtype=np.int16)
    if bits == 12:
        pixels = (pixels.view(np.uint16) & 0x0FFF).astype(np.uint16)
    path = write_slice(
        tmp_path / "a.dcm",
        pixels,
        BitsStored=bits,
        HighBit=bits - 1,
        PixelRepresentation=signed,
        RescaleIntercept=str(intercept),
    )
    result = read_hu(path)
    assert result.dtype == np.int16
    assert (result == hu).all()


def test_the_broken_12bit_rule_equals_its_published_form():
    stored = np.arange(4096, dtype=np.uint16).reshape(64, 64)
    expected = stored.astype(int) + 1000
    expected[expected >= 4096] -= 4096
    header = _header(bits_stored=12, intercept=1)
    assert (hounsfield(stored, header) == expected - 1000).all()


def test_a_slope_rounds_to_the_nearest_hu(tmp_path, write_slice):
    path = write_slice(tmp_path / "a.dcm", np.full((4, 4), 3, np.uint16), RescaleSlope="2.2", RescaleIntercept="-1024")
    assert (read_hu(path) == -1017).all()  # 6.6 - 1024 = -1017.4


def test_values_outside_int16_saturate(tmp_path, write_slice):
    pixels = np.array([[65535, 0], [40000, 1]], np.uint16)
    path = write_slice(tmp_path / "a.dcm", pixels, BitsStored=16, HighBit=15)
    assert read_hu(path).tolist() == [[32767, -1024], [32767, -1023]]


def test_bits_outside_the_stored_ones_are_masked(tmp_path, write_slice):
    pixels = np.array([[0xF000 | 1064, 1064]], np.uint16)
    assert read_hu(write_slice(tmp_path / "u.dcm", pixels)).tolist() == [[40, 40]]
    signed = write_slice(
        tmp_path / "s.dcm",
        np.array([[0x0FFF, 0x1001]], np.uint16),
        PixelRepresentation=1,
        RescaleIntercept="0",
    )
    assert read_hu(signed).tolist() == [[-1, 1]]


def test_a_shifted_high_bit_is_shifted_back():
    header = _header(bits_stored=12, high_bit=15)
    assert mask_stored_bits(np.array([[1064 << 4]], np.uint16), header).tolist() == [[1064]]


def test_odd_spellings_of_numbers_are_read(tmp_path, write_slice):
    path = write_slice(
        tmp_path / "a.dcm", RescaleIntercept="-01.024000E+03", RescaleSlope="00001", WindowCenter=["36", "40"]
    )
    assert read_hu(path)[0, 0] == -1024
    repeated = write_slice(tmp_path / "b.dcm", RescaleIntercept=["-1024", "-1024"])
    assert read_hu(repeated)[0, 0] == -1024


def test_a_matrix_that_is_not_square_keeps_its_shape(tmp_path, write_slice):
    assert read_hu(write_slice(tmp_path / "a.dcm")).shape == (16, 12)


def test_optional_tags_may_be_missing(tmp_path, write_slice):
    missing = (
        "PixelSpacing",
        "ImagePositionPatient",
        "ImageOrientationPatient",
        "InstanceNumber",
        "SOPClassUID",
        "HighBit",
    )
    path = write_slice(tmp_path / "a.dcm", **dict.fromkeys(missing))
    assert read_hu(path)[0, 1] == 21 - 1024


@pytest.mark.parametrize(
    ("reason", "tags"),
    [
        ("not_ct_image", {"Modality": "MR"}),
        ("not_ct_image", {"Modality": None}),
        ("not_ct_image", {"SOPClassUID": "1.2.840.10008.5.1.4.1.1.7"}),
        ("multi_frame", {"NumberOfFrames": 3}),
        ("multi_frame", {"SOPClassUID": "1.2.840.10008.5.1.4.1.1.2.1"}),
        ("localizer", {"ImageType": ["ORIGINAL", "PRIMARY", "LOCALIZER"]}),
        ("colour_image", {"SamplesPerPixel": 3, "PhotometricInterpretation": "RGB"}),
        ("colour_image", {"PhotometricInterpretation": "PALETTE COLOR"}),
        ("unsupported_pixels", {"BitsAllocated": 32}),
        ("unsupported_pixels", {"PixelRepresentation": 2}),
        ("bad_header", {"BitsStored": 17}),
        ("bad_header", {"RescaleSlope": "0"}),
        ("bad_header", {"RescaleIntercept": ["-1024", "0"]}),
        ("no_rescale", {"RescaleIntercept": None}),
        ("not_hounsfield", {"RescaleType": "OD"}),
        ("absurd_matrix", {"Rows": 65535, "Columns": 65535}),
        ("absurd_matrix", {"Rows": None}),
        ("no_pixel_data", {"PixelData": None}),
        ("truncated_pixel_data", {"Rows": 17}),
        ("pixel_data_length", {"Rows": 8}),
    ],
)
def test_what_is_no_plain_ct_slice_is_refused_with_a_reason(tmp_path, write_slice, reason, tags):
    assert reason_of(write_slice(tmp_path / "a.dcm", **tags)) == reason


def test_a_truncated_file_is_refused_and_keeps_its_header(tmp_path, write_slice):
    path = write_slice(tmp_path / "a.dcm", SOPInstanceUID="ID_cut")
    path.write_bytes(path.read_bytes()[:-100])
    assert reason_of(path) == "truncated_pixel_data"
    assert read_header(path).sop_instance_uid == "ID_cut"


def test_text_is_not_dicom(tmp_path):
    path = tmp_path / "notes.dcm"
    path.write_text("no image at all, but quite long enough to look at " * 9)
    assert reason_of(path) == "not_dicom"
    path.write_bytes(b"")
    assert reason_of(path) == "not_dicom"


def test_a_file_that_may_not_be_opened_is_refused(tmp_path):
    (tmp_path / "link.dcm").symlink_to(tmp_path / "nowhere")
    assert reason_of(tmp_path / "link.dcm") == "unreadable_file"
    assert reason_of(tmp_path) == "unreadable_file"


def test_a_file_that_is_gone_is_not_taken_for_a_refused_one(tmp_path):
    with pytest.raises(FileNotFoundError):
        read_hu(tmp_path / "gone.dcm")


def test_an_enormous_file_is_not_read_into_memory(tmp_path):
    path = tmp_path / "huge.dcm"
    with path.open("wb") as file:
        file.truncate(MAX_FILE_BYTES + 1)
    assert reason_of(path) == "unreadable_file"


def test_nothing_is_printed_about_a_damaged_file(tmp_path, write_slice, capfd, recwarn):
    data = bytearray(write_slice(tmp_path / "a.dcm").read_bytes())
    for offset in range(140, 700, 7):
        data[offset] ^= 0x5A
        with contextlib.suppress(DataError):
            DicomFile(bytes(data)).hu()
    assert capfd.readouterr() == ("", "")
    assert not recwarn.list


def _header(bits_stored: int, high_bit: int | None = None, intercept: float = -1024.0):
    empty = header_of(FileDataset("", {}, file_meta=FileMetaDataset()))
    return replace(
        empty,
        bits_allocated=16,
        bits_stored=bits_stored,
        high_bit=bits_stored - 1 if high_bit is None else high_bit,
        rescale_slope=1.0,
        rescale_intercept=float(intercept),
    )
