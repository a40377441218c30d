"""Frames of multi-frame CT: what the functional groups say about each, as the header of a plain slice.

Enhanced CT and Legacy Converted Enhanced CT hold a whole series in one file. A value that all frames share lies
in the shared groups, one that differs in the groups of each frame. A classic CT image may hold one frame only;
with several it is read when it carries the same groups, and refused otherwise: nothing else says where its
frames lie.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from pydicom.dataset import Dataset

from ichtune.data.dicom.header import SliceHeader, tag_values, window_from
from ichtune.data.dicom.parse_errors import unreadable_headers
from ichtune.data.dicom.tag_values import TagValues
from ichtune.errors import DataError

_SHARED, _PER_FRAME = 0x52009229, 0x52009230
#: The top-level sequences that describe frames.
GROUP_SEQUENCES = (_SHARED, _PER_FRAME)
#: More frames, or pixels in all of them, than any scan has.
MAX_FRAMES = 65_536
MAX_VOLUME_PIXELS = 2**30

_FRAME_TYPE_SEQUENCE = 0x00189329
_PLANE_POSITION = 0x00209113
_PLANE_ORIENTATION = 0x00209116
_PIXEL_MEASURES = 0x00289110
_FRAME_VOI_LUT = 0x00289132
_PIXEL_VALUE_TRANSFORMATION = 0x00289145


@dataclass(frozen=True)
class FunctionalGroups:
    """The functional groups of one file.

    Attributes:
        shared: groups that hold for every frame.
        frames: groups of each frame, in order.

    Source: DICOM PS3.3 C.7.6.16.
    """

    shared: Dataset
    frames: Sequence[Dataset]


def functional_groups(dataset: Dataset) -> FunctionalGroups | None:
    """Return the groups of a parsed file, None where it has none."""
    shared, frames = _items(dataset, _SHARED), _items(dataset, _PER_FRAME)
    if not shared and not frames:
        return None
    return FunctionalGroups(shared[0] if shared else Dataset(), frames)


def check_frames(header: SliceHeader, groups: FunctionalGroups | None) -> None:
    """Refuse a file whose frames cannot be told apart, or are too many.

    Raises:
        DataError: ``multi_frame: ...``, ``bad_header: ...`` or ``absurd_matrix: ...``.
    """
    n_frames, n_groups = max(header.n_frames, 1), len(groups.frames) if groups else 0
    if n_frames > MAX_FRAMES or n_frames * header.rows_px * header.columns_px > MAX_VOLUME_PIXELS:
        raise DataError(
            f"absurd_matrix: {n_frames} frames of {header.rows_px} x {header.columns_px} pixels, expected at most "
            f"{MAX_FRAMES} frames and {MAX_VOLUME_PIXELS} pixels in all"
        )
    if n_frames > 1 and not n_groups:
        raise DataError(f"multi_frame: {n_frames} frames, but nothing says where each lies; split the file first")
    if n_groups not in (0, n_frames):
        raise DataError(f"bad_header: {n_frames} frames, but functional groups of {n_groups}")


def frame_header(header: SliceHeader, groups: FunctionalGroups | None, frame: int) -> SliceHeader:
    """Return one frame's header: the file's, with what the functional groups say about the frame.

    Args:
        header: of the file.
        groups: that ``check_frames`` let pass.
        frame: 0 for the first.

    Raises:
        DataError: ``unreadable_header: ...``, ``bad_header: ...``; ``multi_frame: ...`` for one of several frames
            without a position of its own.
    """
    with unreadable_headers():
        values = _Groups(groups, frame)
        position = values.group(_PLANE_POSITION, "image_position").vector("image_position", 3)
        orientation = values.group(_PLANE_ORIENTATION, "image_orientation").vector("image_orientation", 6)
        measures = values.group(_PIXEL_MEASURES, "pixel_spacing", "slice_thickness")
        scale = values.group(_PIXEL_VALUE_TRANSFORMATION, "rescale_intercept", "rescale_slope", "rescale_type")
        intercept, slope = scale.scalar("rescale_intercept"), scale.scalar("rescale_slope")
        thickness = measures.optional("slice_thickness")
        window = window_from(values.group(_FRAME_VOI_LUT, "window_center", "window_width"))
        if header.n_frames > 1 and position is None:
            raise DataError(f"multi_frame: nothing says where frame {frame + 1} lies")
        return replace(
            header,
            frame_number=frame + 1,
            image_type=values.group(_FRAME_TYPE_SEQUENCE, "frame_type").texts("frame_type") or header.image_type,
            image_position_mm=position or header.image_position_mm,
            image_orientation=orientation or header.image_orientation,
            pixel_spacing_mm=measures.vector("pixel_spacing", 2) or header.pixel_spacing_mm,
            slice_thickness_mm=header.slice_thickness_mm if thickness is None else thickness,
            rescale_intercept=header.rescale_intercept if intercept is None else intercept,
            rescale_slope=header.rescale_slope if slope is None else slope,
            rescale_type=scale.text("rescale_type") or header.rescale_type,
            window_hu=window or header.window_hu,
        )


class _Groups:
    """Where the values of one frame are looked up: in its own groups, then in the shared ones."""

    def __init__(self, groups: FunctionalGroups | None, frame: int) -> None:
        own = groups.frames[frame] if groups and groups.frames else Dataset()
        self._places = (own, groups.shared if groups else Dataset())

    def group(self, number: int, *names: str) -> TagValues:
        """The named tags of one group, nothing where neither place has it."""
        for place in self._places:
            items = _items(place, number)
            if items:
                return tag_values(items[0], names)
        return tag_values(Dataset(), names)


def _items(dataset: Dataset, number: int) -> Sequence[Dataset]:
    """The items of a sequence, none where it is absent."""
    element: Any = dataset[number] if number in dataset else None  # noqa: SIM401 - Dataset.get takes no int and default
    items = element.value if element is not None else None
    return items if isinstance(items, Sequence) and not isinstance(items, str | bytes) else ()
