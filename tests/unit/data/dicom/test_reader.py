import contextlib
from pathlib import Path

import numpy as np
import pytest
from pydicom import Dataset

from ichtune.data.dicom.reader import REASONS, DicomFile, read_header, read_hu, read_slices
from ichtune.data.source_files import MAX_FILE_BYTES
from ichtune.errors import DataError


def reason_of(path: Path) -> str:
    with pytest.raises(DataError) as caught:
        read_hu(path)
    code = str(caught.value).split(":")[0]
    assert code in REASONS
    return code


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


def test_a_plain_file_is_one_reading(tmp_path, write_slice, stored):
    (reading,) = read_slices(write_slice(tmp_path / "a.dcm", SOPInstanceUID="ID_a").read_bytes())
    assert (reading.hu == stored.astype(int) - 1024).all()
    assert (reading.reason, reading.padding_ignored) == ("", False)
    assert (reading.header.sop_instance_uid, reading.header.frame_number) == ("ID_a", 1)


def test_a_refused_file_is_one_reading_with_what_is_known_of_it(tmp_path, write_slice):
    (reading,) = read_slices(write_slice(tmp_path / "a.dcm", Modality="MR", SOPInstanceUID="ID_a").read_bytes())
    assert reading.hu is None
    assert reading.reason.startswith("not_ct_image: ")
    assert reading.header.sop_instance_uid == "ID_a"
    (unknown,) = read_slices(b"no image")
    assert unknown.header is None
    assert unknown.reason.startswith("not_dicom: ")


def test_padding_that_is_tissue_is_told(tmp_path, write_slice):
    data = write_slice(tmp_path / "a.dcm", PixelPaddingValue=1064).read_bytes()
    assert [reading.padding_ignored for reading in read_slices(data)] == [True]
    assert DicomFile(data).header.pixel_padding_value == 1064


def test_the_first_frame_of_several_is_the_slice_of_the_file(tmp_path, write_slice, stored):
    groups = [frame_groups(z_mm) for z_mm in (0, 5)]
    tags = {"NumberOfFrames": 2, "Rows": 8, "PerFrameFunctionalGroupsSequence": groups}
    data = write_slice(tmp_path / "a.dcm", **tags).read_bytes()
    readings = list(read_slices(data))
    assert [reading.header.frame_number for reading in readings] == [1, 2]
    assert (np.concatenate([reading.hu for reading in readings]) == stored.astype(int) - 1024).all()
    assert (DicomFile(data).hu() == readings[0].hu).all()


def frame_groups(z_mm: float) -> Dataset:
    position = Dataset()
    position.ImagePositionPatient = [0, 0, z_mm]
    groups = Dataset()
    groups.PlanePositionSequence = [position]
    return groups
