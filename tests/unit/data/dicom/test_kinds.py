from dataclasses import replace

import pytest
from pydicom.dataset import FileDataset, FileMetaDataset

from ichtune.data.dicom.header import SliceHeader, header_of
from ichtune.data.dicom.kinds import CT_IMAGE, MULTI_FRAME_CT, check_file, check_frame, is_multi_frame_ct
from ichtune.errors import DataError


@pytest.fixture
def plain() -> SliceHeader:
    empty = header_of(FileDataset("", {}, file_meta=FileMetaDataset()))
    return replace(
        empty,
        sop_class_uid=CT_IMAGE,
        modality="CT",
        photometric_interpretation="MONOCHROME2",
        rows_px=512,
        columns_px=512,
        bits_allocated=16,
        bits_stored=12,
        high_bit=11,
        rescale_slope=1.0,
        rescale_intercept=-1024.0,
    )


def reason_of(header: SliceHeader, has_pixel_data: bool = True) -> str:
    try:
        check_file(header, has_pixel_data)
        check_frame(header)
    except DataError as error:
        return str(error)
    return ""


@pytest.mark.parametrize(
    "values",
    [
        {},
        {"sop_class_uid": ""},
        {"sop_class_uid": MULTI_FRAME_CT[0]},
        {"photometric_interpretation": "MONOCHROME1"},
        {"image_type": ("ORIGINAL", "PRIMARY", "AXIAL")},
        {"image_type": ("DERIVED", "SECONDARY", "REFORMATTED", "AVERAGE")},
        {"image_orientation": (1.0, 0.0, 0.0, 0.0, 0.75, -0.66)},  # a tilt of 41 degrees
        {"image_orientation": (-1.0, 0.0, 0.0, 0.0, 1.0, 0.0)},  # seen from above
        {"image_orientation": (0.0, 0.0, 0.0, 0.0, 0.0, 0.0)},  # no orientation at all
        {"rescale_type": "HU"},
        {"rescale_type": "hu"},
        {"bits_allocated": 8, "bits_stored": 8, "high_bit": 7, "rescale_slope": 4.0},
    ],
)
def test_slices_pass(plain, values):
    assert reason_of(replace(plain, **values)) == ""


@pytest.mark.parametrize(
    ("reason", "values"),
    [
        ("not_ct_image", {"modality": "MR"}),
        ("not_ct_image", {"modality": ""}),
        ("not_ct_image", {"sop_class_uid": "1.2.840.10008.5.1.4.1.1.4"}),
        ("localizer", {"image_type": ("ORIGINAL", "PRIMARY", "LOCALIZER")}),
        ("localizer", {"image_type": ("original", "primary", "localizer")}),
        ("derived_summary", {"image_type": ("DERIVED", "SECONDARY", "DOSE_INFO")}),
        ("derived_summary", {"image_type": ("DERIVED", "PRIMARY", "MINIP")}),
        ("derived_summary", {"image_type": ("DERIVED", "PRIMARY", "VOLUME", "SUBTRACTION")}),
        ("multi_frame", {"sop_class_uid": "", "n_frames": 2}),
        ("colour_image", {"samples_per_pixel": 3}),
        ("colour_image", {"photometric_interpretation": "YBR_FULL"}),
        ("absurd_matrix", {"rows_px": 0}),
        ("absurd_matrix", {"rows_px": 65535, "columns_px": 65535}),
        ("unsupported_pixels", {"bits_allocated": 32}),
        ("unsupported_pixels", {"pixel_representation": 2}),
        ("bad_header", {"bits_stored": 17}),
        ("bad_header", {"bits_stored": 1}),
        ("bad_header", {"high_bit": 10}),
        ("bad_header", {"high_bit": 16}),
        ("bad_header", {"rescale_slope": 0.0}),
        ("not_axial", {"image_orientation": (1.0, 0.0, 0.0, 0.0, 0.0, -1.0)}),
        ("not_axial", {"image_orientation": (1.0, 0.0, 0.0, 0.0, 0.6, -0.8)}),
        ("no_rescale", {"rescale_intercept": None}),
        ("no_rescale", {"rescale_slope": None}),
        ("not_hounsfield", {"rescale_type": "OD"}),
        ("not_hounsfield", {"bits_allocated": 8, "bits_stored": 8, "high_bit": 7}),
        ("not_hounsfield", {"bits_allocated": 8, "bits_stored": 8, "high_bit": 7, "rescale_slope": -3.9}),
        ("not_hounsfield", {"bits_stored": 8, "high_bit": 7, "rescale_slope": None}),
    ],
)
def test_what_is_no_slice_is_refused(plain, reason, values):
    assert reason_of(replace(plain, **values)).startswith(f"{reason}: ")


@pytest.mark.parametrize(
    ("uid", "kind"),
    [
        ("1.2.840.10008.5.1.4.1.1.7", "a secondary capture"),
        ("1.2.840.10008.5.1.4.1.1.7.2", "a secondary capture"),
        ("1.2.840.10008.5.1.4.1.1.11.1", "a presentation state"),
        ("1.2.840.10008.5.1.4.1.1.88.67", "a structured report"),
        ("1.2.840.10008.1.3.10", "a DICOMDIR"),
        ("1.2.840.10008.5.1.4.1.1.77.1", "another object"),  # no capture, though its UID begins like one
    ],
)
def test_a_refusal_says_what_the_file_is(plain, uid, kind):
    assert reason_of(replace(plain, sop_class_uid=uid)).startswith(f"not_ct_image: {kind}, got SOP class {uid}, ")


NAME = "DOE^JANE"


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"sop_class_uid": NAME}, "another object, got SOP class an unknown one, "),
        ({"sop_class_uid": f"1.2.840.10008.5.1.4.1.1.7.{NAME}"}, "a secondary capture, got SOP class an unknown one, "),
        ({"modality": NAME}, "modality an unknown one, "),
        ({"modality": "MR"}, "modality MR, "),
        ({"modality": ""}, "modality none, "),
        ({"photometric_interpretation": NAME}, "photometric interpretation an unknown one, "),
        ({"photometric_interpretation": "rgb"}, "photometric interpretation RGB, "),
        ({"rescale_type": NAME}, "RescaleType an unknown one, "),
        ({"rescale_type": "MGML"}, "RescaleType MGML, "),
        ({"image_type": ("DERIVED", NAME, f"MIP {NAME}")}, "ImageType says 'MIP', "),
        ({"image_type": ("ORIGINAL", NAME, f"LOCALIZER {NAME}")}, "ImageType says that this is a localizer"),
    ],
)
def test_a_refusal_quotes_terms_of_the_standard_and_no_other_text(plain, values, said):
    reason = reason_of(replace(plain, **values))
    assert said in reason
    assert "DOE" not in reason.upper()


def test_a_file_without_pixels_says_so_unless_it_is_something_else(plain):
    assert reason_of(plain, has_pixel_data=False).startswith("no_pixel_data")
    assert reason_of(replace(plain, modality="ct")) == ""
    assert reason_of(replace(plain, modality="SR"), has_pixel_data=False).startswith("not_ct_image")


def test_which_files_are_read_frame_by_frame(plain):
    assert not is_multi_frame_ct(plain)
    assert not is_multi_frame_ct(replace(plain, sop_class_uid=""))
    assert is_multi_frame_ct(replace(plain, n_frames=2))
    assert all(is_multi_frame_ct(replace(plain, sop_class_uid=uid)) for uid in MULTI_FRAME_CT)
