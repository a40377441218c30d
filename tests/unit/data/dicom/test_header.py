import io
from dataclasses import replace

import numpy as np
import pytest
from pydicom import dcmread
from pydicom.dataset import Dataset, FileDataset, FileMetaDataset

from ichtune.data.dicom.header import TAGS, SliceHeader, header_of, slice_normal, tag_values
from ichtune.errors import DataError


def header(**tags) -> SliceHeader:
    """The header of a data set that went through bytes, so that its values are raw again."""
    dataset = Dataset()
    for keyword, value in tags.items():
        setattr(dataset, keyword, value)
    stream = io.BytesIO()
    dataset.save_as(stream, implicit_vr=False, little_endian=True, enforce_file_format=False)
    read = dcmread(io.BytesIO(stream.getvalue()), force=True)
    return header_of(FileDataset("", read, file_meta=FileMetaDataset()))


def test_no_tag_of_the_patient_but_the_id_is_on_the_list():
    patient_group = {number for number in TAGS.values() if number >> 16 == 0x0010}
    assert patient_group == {0x00100020}


def test_an_empty_data_set_gives_an_empty_header():
    empty = header()
    assert (empty.patient_id, empty.rows_px, empty.n_frames, empty.samples_per_pixel) == ("", 0, 1, 1)
    assert empty.image_position_mm is None
    assert empty.rescale_slope is None
    assert empty.encoding == ""


@pytest.mark.parametrize(
    ("bits", "signed", "intercept", "encoding", "is_broken"),
    [
        (12, 0, "-1024", "12u-1024", False),
        (12, 0, "-1000.0", "12u-1000", False),
        (12, 0, "0", "12u+0", True),
        (12, 0, "1", "12u+1", True),
        (12, 0, "-100", "12u-100", False),
        (12, 1, "0", "12s+0", False),
        (16, 1, "-1024", "16s-1024", False),
        (16, 0, "0", "16u+0", False),
    ],
)
def test_encoding_and_the_broken_12bit_rule(bits, signed, intercept, encoding, is_broken):
    read = header(BitsAllocated=16, BitsStored=bits, PixelRepresentation=signed, RescaleIntercept=intercept)
    assert read.encoding == encoding
    assert read.is_broken_12bit == is_broken


def test_a_slope_other_than_one_is_part_of_the_encoding():
    tags = {"BitsAllocated": 8, "BitsStored": 8, "PixelRepresentation": 0, "RescaleIntercept": "-2000"}
    assert header(**tags, RescaleSlope="32.12").encoding == "8u*32.12-2000"
    assert header(**tags, RescaleSlope="1.0").encoding == header(**tags).encoding == "8u-2000"


@pytest.mark.parametrize(
    ("syntax", "said", "is_lossy"),
    [
        ("2.1", "", False),
        ("2.1", "00", False),
        ("2.1", "01", True),  # compressed once, stored plain since
        ("2.4.50", "", True),
        ("2.4.51", "00", True),
        ("2.4.70", "", False),
        ("2.4.80", "", False),
        ("2.4.81", "", True),
        ("2.4.81", "00", False),
        ("2.4.90", "", False),
        ("2.4.91", "", True),
        ("2.4.91", "00", False),
        ("2.4.90", "01", True),
    ],
)
def test_what_compression_changed_is_lossy(syntax, said, is_lossy):
    read = replace(header(LossyImageCompression=said), transfer_syntax_uid=f"1.2.840.10008.1.{syntax}")
    assert read.is_lossy is is_lossy


def test_numbers_written_as_text_and_padded_are_read():
    read = header(
        RescaleIntercept="-01.024000E+03",
        SliceThickness=" 5.0 ",
        InstanceNumber="00036",
        GantryDetectorTilt="+18.5",
    )
    assert (read.rescale_intercept, read.slice_thickness_mm, read.instance_number, read.tilt_deg) == (
        -1024,
        5,
        36,
        18.5,
    )


def test_a_description_that_is_no_number_counts_as_absent():
    dataset = FileDataset("", {}, file_meta=FileMetaDataset())
    dataset.add_new(0x00180050, "LO", "thick")
    dataset.add_new(0x00200032, "LO", "1\\2")
    read = header_of(dataset)
    assert read.slice_thickness_mm is None
    assert read.image_position_mm is None


@pytest.mark.parametrize("value", ["abc", "nan", "1e99"])
def test_a_needed_tag_that_is_no_number_is_refused_without_quoting_text(value):
    dataset = FileDataset("", {}, file_meta=FileMetaDataset())
    dataset.add_new(0x00281052, "LO", value)
    with pytest.raises(DataError, match=r"^bad_header: rescale_intercept") as caught:
        header_of(dataset)
    assert "abc" not in str(caught.value)


@pytest.mark.parametrize(
    ("center", "width", "window"),
    [
        ("40", "80", (40, 80)),
        ("00036\\00036", "00080\\00080", (36, 80)),
        ("40\\600", "80\\2800", (40, 80)),
        ("40\\wide", "80", (40, 80)),
        (" -6.5E+02 ", "+1500.", (-650, 1500)),
        ("40", "0.5", (40, 0.5)),
        ("40", "0", None),
        ("40", "-80", None),
        ("40", "nan", None),
        ("inf", "80", None),
        ("40", "1e30", None),
        ("brain", "80", None),
        ("\\40", "80\\80", None),
        ("4_0", "80", None),
        ("\u0664\u0660", "80", None),
        ("40", "", None),
        (None, "80", None),
        (None, None, None),
    ],
)
def test_the_window_is_the_first_one_or_none(center, width, window):
    dataset = FileDataset("", {}, file_meta=FileMetaDataset())
    for number, value in ((0x00281050, center), (0x00281051, width)):
        if value is not None:
            dataset.add_new(number, "LO", value)
    assert header_of(dataset).window_hu == window


def test_vectors_of_another_length_count_as_absent():
    dataset = FileDataset("", {}, file_meta=FileMetaDataset())
    dataset.add_new(0x00280030, "LO", ["0.5", "0.25"])
    dataset.add_new(0x00200037, "LO", ["1", "0", "0"])
    read = header_of(dataset)
    assert read.pixel_spacing_mm == (0.5, 0.25)
    assert read.image_orientation is None


def test_a_tag_that_names_outside_the_field_of_view_is_kept_as_written():
    assert (
        header(PixelPaddingValue=63536, PixelPaddingRangeLimit=63500, PixelRepresentation=0).pixel_padding_value
        == 63536
    )
    assert header(PixelPaddingValue=-2000, PixelRepresentation=1).pixel_padding_value == -2000
    assert header().pixel_padding_range_limit is None


def test_only_named_tags_of_an_item_are_read():
    item = Dataset()
    item.PixelSpacing, item.SliceThickness = [0.5, 0.5], "5"
    values = tag_values(item, ("slice_thickness",))
    assert values.scalar("slice_thickness") == 5
    assert values.vector("pixel_spacing", 2) is None


def test_a_normal_is_the_same_bytes_whatever_orientation_came_before():
    """Answers are kept, and -0.0 finds what was kept for 0.0."""
    for orientation in (
        (1.0, 0.0, 0.0, 0.0, 1.0, -0.0),
        (1.0, -0.0, 0.0, -0.0, 1.0, 0.0),
        (1.0, 0.0, 0.0, 0.0, -1.0, 0.0),
    ):
        slice_normal.cache_clear()
        assert np.signbit(slice_normal(orientation)).tolist() == [False, False, False]


def test_the_normal_of_a_slice():
    assert slice_normal((1, 0, 0, 0, 1, 0)) == (0, 0, 1)
    assert slice_normal((1, 0, 0, 0, 0.8, -0.6)) == pytest.approx((0, 0.6, 0.8))
    assert np.isnan(slice_normal((1, 0, 0, 1, 0, 0))).all()
    assert np.isnan(slice_normal(None)).all()
