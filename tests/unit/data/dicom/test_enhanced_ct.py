from dataclasses import replace

import pytest
from pydicom import Dataset
from pydicom.dataset import FileDataset, FileMetaDataset

from ichtune.data.dicom.enhanced_ct import (
    MAX_FRAMES,
    FunctionalGroups,
    check_frames,
    frame_header,
    functional_groups,
)
from ichtune.data.dicom.header import SliceHeader, header_of
from ichtune.errors import DataError


def item(**tags) -> Dataset:
    made = Dataset()
    for keyword, value in tags.items():
        setattr(made, keyword, value)
    return made


@pytest.fixture
def header() -> SliceHeader:
    empty = header_of(FileDataset("", {}, file_meta=FileMetaDataset()))
    return replace(empty, n_frames=2, rows_px=512, columns_px=512, image_type=("ORIGINAL", "PRIMARY", "MIXED"))


@pytest.fixture
def groups() -> FunctionalGroups:
    shared = item(
        PixelMeasuresSequence=[item(PixelSpacing=[0.4, 0.3], SliceThickness="2.5")],
        PlaneOrientationSequence=[item(ImageOrientationPatient=[1, 0, 0, 0, 1, 0])],
        PixelValueTransformationSequence=[item(RescaleIntercept="-1024", RescaleSlope="1", RescaleType="HU")],
    )
    frames = [item(PlanePositionSequence=[item(ImagePositionPatient=[1, 2, z])]) for z in (3, 4)]
    return FunctionalGroups(shared, frames)


def test_shared_and_own_groups_make_the_header_of_a_frame(header, groups):
    second = frame_header(header, groups, 1)
    assert second.frame_number == 2
    assert second.image_position_mm == (1, 2, 4)
    assert second.image_orientation == (1, 0, 0, 0, 1, 0)
    assert second.pixel_spacing_mm == (0.4, 0.3)
    assert second.slice_thickness_mm == 2.5
    assert (second.rescale_intercept, second.rescale_slope, second.rescale_type) == (-1024, 1, "HU")
    assert second.image_type == header.image_type


def test_a_frames_own_group_goes_before_the_shared_one(header, groups):
    groups.frames[0].PixelValueTransformationSequence = [item(RescaleIntercept="-1000", RescaleSlope="2")]
    groups.frames[0].CTImageFrameTypeSequence = [item(FrameType=["DERIVED", "PRIMARY", "VOLUME", "MAXIMUM"])]
    first, second = (frame_header(header, groups, frame) for frame in (0, 1))
    assert (first.rescale_intercept, first.rescale_slope, second.rescale_intercept) == (-1000, 2, -1024)
    assert first.image_type == ("DERIVED", "PRIMARY", "VOLUME", "MAXIMUM")
    assert second.image_type == header.image_type


def test_the_window_of_a_frame_lies_in_its_groups(header, groups):
    of_file = replace(header, window_hu=(40.0, 400.0))
    assert frame_header(header, groups, 0).window_hu is None
    assert frame_header(of_file, groups, 0).window_hu == (40, 400)
    groups.shared.FrameVOILUTSequence = [item(WindowCenter=["35", "600"], WindowWidth=["90", "2800"])]
    groups.frames[1].FrameVOILUTSequence = [item(WindowCenter="80", WindowWidth="200")]
    assert [frame_header(of_file, groups, frame).window_hu for frame in (0, 1)] == [(35, 90), (80, 200)]


def test_one_of_several_frames_needs_a_place_of_its_own(header, groups):
    """The position at the top of the file is that of one frame at most."""
    del groups.frames[1].PlanePositionSequence
    placed = replace(header, image_position_mm=(0.0, 0.0, 0.0))
    assert frame_header(placed, groups, 0).image_position_mm == (1, 2, 3)
    with pytest.raises(DataError, match=r"^multi_frame: nothing says where frame 2 lies"):
        frame_header(placed, groups, 1)


def test_a_single_frame_may_do_without_groups(header):
    single = replace(header, n_frames=1, image_position_mm=(0.0, 0.0, 9.0), rescale_intercept=-1024.0)
    check_frames(single, None)
    assert frame_header(single, None, 0) == replace(single, frame_number=1)


def test_a_bad_value_refuses_its_frame_alone(header, groups):
    bad = item(RescaleIntercept=["0", "-1024"], RescaleSlope="1")
    groups.frames[0].PixelValueTransformationSequence = [bad]
    with pytest.raises(DataError, match=r"^bad_header: rescale_intercept"):
        frame_header(header, groups, 0)
    assert frame_header(header, groups, 1).rescale_intercept == -1024


def test_what_cannot_be_told_apart_is_refused(header, groups):
    check_frames(header, groups)
    for reason, tested, given in (
        ("multi_frame: 2 frames", header, None),
        ("bad_header: 3 frames, but functional groups of 2", replace(header, n_frames=3), groups),
        ("bad_header: 1 frames, but functional groups of 2", replace(header, n_frames=1), groups),
        ("absurd_matrix", replace(header, n_frames=MAX_FRAMES + 1), groups),
        ("absurd_matrix", replace(header, n_frames=60_000), groups),
    ):
        with pytest.raises(DataError, match=f"^{reason}"):
            check_frames(tested, given)


def test_groups_are_found_in_a_file_that_has_them(groups):
    assert functional_groups(item(Modality="CT")) is None
    found = functional_groups(
        item(SharedFunctionalGroupsSequence=[groups.shared], PerFrameFunctionalGroupsSequence=groups.frames)
    )
    assert found is not None
    assert len(found.frames) == 2
    only_frames = functional_groups(item(PerFrameFunctionalGroupsSequence=groups.frames))
    assert only_frames is not None
    assert len(only_frames.shared) == 0


def test_a_group_of_the_wrong_kind_counts_as_absent(groups):
    broken = Dataset()
    broken.add_new(0x52009230, "LO", "no sequence")
    assert functional_groups(broken) is None
