import io

import numpy as np
import pydicom
import pytest

from ichtune.data.phantom.headers import ENCODINGS, SeriesHeader, encode_file, stored_pixels, write_file

pytestmark = pytest.mark.filterwarnings("ignore:Invalid value for VR UI")
HU = np.linspace(-1000, 2047, 24 * 16).round().astype(np.int16).reshape(24, 16)
INSIDE = np.zeros(HU.shape, bool)


def header_of(encoding, **other) -> SeriesHeader:
    fields = dict(
        patient_id="ID_12345678",
        study_uid="ID_0123456789",
        series_uid="ID_9876543210",
        encoding=encoding,
        window_centre="00036\\00036",
        window_width="00080\\00080",
        has_study_id=True,
        has_padding_tag=True,
        pixel_mm=1.796875,
        orientation=(1.0, 0.0, 0.0, 0.0, 0.951057, -0.309017),
    )
    return SeriesHeader(**{**fields, **other})


def read_back(header, outside=INSIDE):
    content = encode_file(header, "ID_abcdef012", (-115.0, -120.25, 33.5), stored_pixels(HU, outside, header.encoding))
    return pydicom.dcmread(io.BytesIO(content))


def repaired_hu(d: pydicom.Dataset) -> np.ndarray:
    """The published repair of the competition's broken 12-bit files, then slope and intercept."""
    pixels, intercept = d.pixel_array.astype(np.int32), int(d.RescaleIntercept)
    if d.BitsStored == 12 and d.PixelRepresentation == 0 and intercept > -100:
        pixels = pixels + 1000
        pixels[pixels >= 4096] -= 4096
        intercept = -1000
    return pixels * int(d.RescaleSlope) + intercept


@pytest.mark.parametrize("encoding", ENCODINGS, ids=lambda e: e.name)
def test_hu_come_back_exactly(encoding):
    assert np.array_equal(repaired_hu(read_back(header_of(encoding))), HU)


@pytest.mark.parametrize("encoding", ENCODINGS, ids=lambda e: e.name)
def test_outside_the_field_of_view_is_air_or_less(encoding):
    outside = INSIDE.copy()
    outside[:3] = True
    d = read_back(header_of(encoding), outside)
    hu = repaired_hu(d)
    assert (hu[:3] <= -1000).all()
    assert np.array_equal(hu[3:], HU[3:])
    if encoding.bits_stored == 16:
        assert (d.pixel_array[:3] == -2000).all()


@pytest.mark.parametrize("encoding", [e for e in ENCODINGS if e.broken], ids=lambda e: e.name)
def test_broken_encodings_are_wrong_as_they_stand(encoding):
    d = read_back(header_of(encoding))
    naive = d.pixel_array.astype(np.int32) + int(d.RescaleIntercept)
    assert naive.min() >= 0
    assert naive[HU < 0].min() >= 3096


def test_header_values():
    d = read_back(header_of(ENCODINGS[5]))
    assert d.file_meta.TransferSyntaxUID == "1.2.840.10008.1.2.1"
    assert d.file_meta.MediaStorageSOPInstanceUID == d.SOPInstanceUID == "ID_abcdef012"
    assert (d.Modality, d.PatientID) == ("CT", "ID_12345678")
    assert (d.StudyInstanceUID, d.SeriesInstanceUID) == ("ID_0123456789", "ID_9876543210")
    assert list(d.ImagePositionPatient) == [-115.0, -120.25, 33.5]
    assert list(d.ImageOrientationPatient) == [1, 0, 0, 0, 0.951057, -0.309017]
    assert list(d.PixelSpacing) == [1.796875, 1.796875]
    assert (d.Rows, d.Columns, d.BitsAllocated, d.BitsStored, d.HighBit) == (24, 16, 16, 16, 15)
    assert [str(v) for v in d.WindowCenter] == ["00036", "00036"]
    assert d.PixelPaddingValue == -2000


def test_optional_tags_can_be_absent():
    d = read_back(header_of(ENCODINGS[0], window_centre="", window_width="", has_study_id=False, has_padding_tag=False))
    for tag in ("WindowCenter", "WindowWidth", "StudyID", "PixelPaddingValue"):
        assert tag not in d


def test_truncated_file_reads_as_a_header_without_its_pixels(tmp_path):
    header = header_of(ENCODINGS[0])
    big = np.zeros((64, 64), np.int16)
    content = encode_file(header, "ID_abcdef012", (0, 0, 0), stored_pixels(big, big > 0, header.encoding))
    write_file(tmp_path / "a.dcm", content, truncated=True)
    d = pydicom.dcmread(tmp_path / "a.dcm")
    assert d.Rows == 64
    assert len(d.PixelData) < 64 * 64 * 2
