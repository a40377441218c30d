import struct
from types import SimpleNamespace

import pytest
from pydicom.encaps import encapsulate, encapsulate_extended, get_frame

from ichtune.data.dicom.encapsulation import frame_bytes, list_fragments
from ichtune.errors import DataError

IMAGES = [b"\xff\xd8one..\xff\xd9\0", b"\xff\xd8two\xff\xd9", b"\xff\xd8three....\xff\xd9\0"]


class File(SimpleNamespace):
    """Stands in for a parsed file: its pixel data and how many frames its header states."""


def file_of(data: bytes, n_frames: int = 3) -> File:
    return File(pixel_data=memoryview(data), header=SimpleNamespace(n_frames=n_frames))


def frames_of(data: bytes, n_frames: int = 3, is_fragment_a_frame: bool = False) -> list[bytes | str]:
    file = file_of(data, n_frames)
    out: list[bytes | str] = []
    for frame in range(n_frames):
        try:
            out.append(frame_bytes(file, frame, is_fragment_a_frame))
        except DataError as error:
            out.append(str(error).split(":")[0])
    return out


def item(value: bytes) -> bytes:
    return struct.pack("<HHI", 0xFFFE, 0xE000, len(value)) + value


END = struct.pack("<HHI", 0xFFFE, 0xE0DD, 0)


@pytest.mark.parametrize("per_frame", [1, 2])
@pytest.mark.parametrize("has_table", [True, False])
def test_frames_are_found_with_and_without_a_table(has_table, per_frame):
    images = [image + bytes(len(image) % 2) for image in IMAGES]
    data = encapsulate(images, fragments_per_frame=per_frame, has_bot=has_table) + END
    assert frames_of(data) == images
    assert frames_of(data)[1] == get_frame(data, 1, number_of_frames=3)


def test_an_empty_table_of_an_extended_one_is_no_table():
    data, _, _ = encapsulate_extended([image.ljust(16, b"\0") for image in IMAGES])
    assert frames_of(data + END) == [image.ljust(16, b"\0") for image in IMAGES]


def test_a_plain_file_joins_all_its_fragments():
    data = item(b"") + item(b"ab") + item(b"cd") + END + b"trailing padding"
    assert frames_of(data, 1) == [b"abcd"]


def test_what_is_no_image_can_still_be_one_fragment_a_frame():
    data = item(b"") + item(b"ab") + item(b"cd") + END
    assert frames_of(data, 2, is_fragment_a_frame=True) == [b"ab", b"cd"]
    assert frames_of(data, 3, is_fragment_a_frame=True) == [b"ab", b"cd", "truncated_pixel_data"]
    assert frames_of(data, 1, is_fragment_a_frame=True) == [b"abcd"]


@pytest.mark.parametrize("per_frame", [1, 2])
@pytest.mark.parametrize("has_table", [True, False])
def test_a_file_cut_short_loses_the_frames_that_are_missing_and_no_other(has_table, per_frame):
    images = [image + bytes(len(image) % 2) for image in IMAGES]
    data = encapsulate(images, fragments_per_frame=per_frame, has_bot=has_table) + END
    second_ends = data.index(b"three") - 10  # before the item and the start mark of the third
    for cut in (second_ends, second_ends + 4, second_ends + 12):
        assert frames_of(data[:cut]) == [*images[:2], "truncated_pixel_data"]
    assert frames_of(data[: second_ends - 2]) == [images[0], *["truncated_pixel_data"] * 2]
    assert frames_of(data[: len(data) - 8]) == images  # only the end mark is gone


def test_frames_before_a_broken_item_are_kept():
    broken = item(b"") + item(IMAGES[0]) + item(IMAGES[1]) + b"\xff" * 30
    assert frames_of(broken) == [IMAGES[0], IMAGES[1], "undecodable_pixels"]
    assert frames_of(broken, 1) == ["undecodable_pixels"]


@pytest.mark.parametrize(
    "data",
    [
        item(b"") + item(IMAGES[0]) + item(IMAGES[1]) + END,
        item(b"") + b"".join(map(item, [*IMAGES, *IMAGES])) + END,
        item(struct.pack("<3I", 0, 4, 8)) + b"".join(map(item, IMAGES * 2)) + END,
        item(struct.pack("<3I", 0, 0, 0)) + b"".join(map(item, IMAGES * 2)) + END,
    ],
)
def test_a_count_or_table_that_contradicts_the_fragments_is_refused_for_every_frame(data):
    assert frames_of(data) == ["undecodable_pixels"] * 3


@pytest.mark.parametrize("data", [b"", b"\0" * 40, item(b"")[:-1], END, item(b"abcd")[:-2]])
def test_pixel_data_without_an_item_are_refused(data):
    with pytest.raises(DataError, match=r"^(undecodable|truncated)_pixel"):
        list_fragments(memoryview(data))
    assert frames_of(data, 1)[0] in ("undecodable_pixels", "truncated_pixel_data")


def test_no_fragment_after_the_table_is_no_frame():
    assert frames_of(item(b"") + END, 1) == ["truncated_pixel_data"]


def test_fragments_beyond_all_reason_are_not_listed():
    fragments = list_fragments(memoryview(item(b"") * 5000 + END))
    assert len(fragments.spans) < 2000
    assert fragments.problem.startswith("undecodable_pixels")


def test_the_list_is_made_once_a_file(monkeypatch):
    file = file_of(encapsulate([image + bytes(len(image) % 2) for image in IMAGES]) + END)
    first = frame_bytes(file, 0, False)
    monkeypatch.setattr("ichtune.data.dicom.encapsulation.list_fragments", None)
    assert frame_bytes(file, 1, False) != first
    with pytest.raises(TypeError):
        frame_bytes(file_of(bytes(file.pixel_data)), 1, False)
