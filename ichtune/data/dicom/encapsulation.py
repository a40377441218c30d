"""Where each frame lies in encapsulated pixel data, worked out once a file.

A fragment that was cut short is not listed, and what follows a broken item is not searched: then frames are
missing, never shifted.
"""

import struct
import weakref
from dataclasses import dataclass
from itertools import pairwise

from ichtune.data.dicom.parse import ParsedFile
from ichtune.errors import DataError

#: More fragments than this, and than 8 a frame and 1,024, are damage; a long perfusion study has some 10,000 frames.
MAX_FRAGMENTS = 65_536

_ITEM, _END = (0xFFFE, 0xE000), (0xFFFE, 0xE0DD)
_ITEM_HEAD = struct.Struct("<HHI")
_END_OF_IMAGE = b"\xff\xd9"  # of JPEG, JPEG-LS and JPEG 2000 alike
#: The data end with a whole fragment; whether it was the last one is for the decoder to see.
_NO_END_MARK = "truncated_pixel_data: the compressed pixels have no end mark"


@dataclass(frozen=True)
class Fragments:
    """The whole fragments of one file.

    Attributes:
        spans: where each one's bytes begin in the pixel data, and where they end.
        frame_offsets: the basic offset table: where the item of each frame's first fragment begins, counted
            from the item of the first fragment; may be empty.
        problem: why the list ends before the end mark of the pixel data, ``""`` where it does not.
    """

    spans: list[tuple[int, int]]
    frame_offsets: tuple[int, ...]
    problem: str


def frame_bytes(parsed: ParsedFile, frame: int, is_fragment_a_frame: bool) -> bytes:
    """Return one frame's compressed bytes, its fragments joined.

    Args:
        parsed: a file with encapsulated pixel data.
        frame: 0 for the first.
        is_fragment_a_frame: the transfer syntax allows one fragment a frame only.

    Raises:
        DataError: ``truncated_pixel_data`` or ``undecodable_pixels``.

    Source: DICOM PS3.5 A.4.
    """
    data = parsed.pixel_data
    if data is None:
        raise DataError("no_pixel_data: PixelData is empty")
    fragments, frames = _places_of(parsed, data, is_fragment_a_frame)
    if frame >= len(frames):
        raise DataError(fragments.problem or f"truncated_pixel_data: no bytes of frame {frame + 1}")
    return b"".join(data[start:stop] for start, stop in fragments.spans[slice(*frames[frame])])


def list_fragments(data: memoryview, n_frames: int = 1) -> Fragments:
    """Walk over the items of encapsulated pixel data.

    Args:
        data: from the first item, the offset table, on; what follows the end mark is ignored.
        n_frames: as the header states it.

    Raises:
        DataError: ``undecodable_pixels`` or ``truncated_pixel_data``, where no offset table can be read.
    """
    spans: list[tuple[int, int]] = []
    most = min(MAX_FRAGMENTS, 1024 + 8 * n_frames)
    at, problem = 0, _NO_END_MARK
    while at + _ITEM_HEAD.size <= len(data):
        *tag, length = _ITEM_HEAD.unpack_from(data, at)
        if tuple(tag) == _END:
            problem = ""
            break
        if tuple(tag) != _ITEM or len(spans) > most:
            problem = "undecodable_pixels: something else lies where a compressed fragment should begin"
            break
        at += _ITEM_HEAD.size
        if at + length > len(data):
            problem = f"truncated_pixel_data: a fragment of {length} bytes, but {len(data) - at} are there"
            break
        spans.append((at, at + length))
        at += length
    if not spans:
        raise DataError(problem or "truncated_pixel_data: the compressed pixels hold no item")
    table = data[slice(*spans[0])]
    return Fragments(spans[1:], struct.unpack_from(f"<{len(table) // 4}I", table), problem)


_Places = tuple[Fragments, list[tuple[int, int]]]
_latest: tuple[weakref.ref[ParsedFile], _Places] | None = None


def _places_of(parsed: ParsedFile, data: memoryview, is_fragment_a_frame: bool) -> _Places:
    """The places in the file that was asked for last are kept: frames are read one after the other."""
    global _latest
    latest = _latest
    if latest is not None and latest[0]() is parsed:
        return latest[1]
    try:
        n_frames = max(1, parsed.header.n_frames)
        fragments = list_fragments(data, n_frames)
        places = fragments, _frame_spans(data, fragments, n_frames, is_fragment_a_frame)
    except DataError as error:
        places = Fragments([], (), str(error)), []
    _latest = (weakref.ref(parsed), places)
    return places


def _frame_spans(
    data: memoryview, fragments: Fragments, n_frames: int, is_fragment_a_frame: bool
) -> list[tuple[int, int]]:
    """For each frame that is there its first fragment and the one after its last."""
    n_fragments = len(fragments.spans)
    ends_well = fragments.problem in ("", _NO_END_MARK)
    if n_frames == 1:
        return [(0, n_fragments)] if n_fragments and ends_well else []
    if is_fragment_a_frame or (n_fragments == n_frames and ends_well):
        if n_fragments > n_frames:
            raise DataError(f"undecodable_pixels: {n_fragments} fragments for {n_frames} frames")
        return [(i, i + 1) for i in range(n_fragments)]
    if len(fragments.frame_offsets) == n_frames:
        return _spans_by_offset(fragments, ends_well)
    return _spans_by_end_mark(data, fragments, n_frames)


def _spans_by_offset(fragments: Fragments, ends_well: bool) -> list[tuple[int, int]]:
    if not fragments.spans:
        return []
    origin = fragments.spans[0][0]
    places = {start - origin: i for i, (start, _) in enumerate(fragments.spans)}
    end = fragments.spans[-1][1] - origin + _ITEM_HEAD.size
    places[end] = len(fragments.spans)
    offsets = fragments.frame_offsets
    bounds = [offset for offset in offsets if offset <= end]  # of a file cut short, later frames are missing
    is_sound = list(offsets) == sorted(set(offsets)) and bounds[:1] == [0] and places.keys() >= set(bounds)
    has_last_frame = len(bounds) == len(offsets) and offsets[-1] < end and ends_well
    if not is_sound or not (has_last_frame or fragments.problem):
        raise DataError("undecodable_pixels: the table of frame offsets does not point at fragments")
    return list(pairwise(places[offset] for offset in [*bounds, *([end] if has_last_frame else [])]))


def _spans_by_end_mark(data: memoryview, fragments: Fragments, n_frames: int) -> list[tuple[int, int]]:
    """Without a table a frame ends with the fragment that ends with an image's end mark."""
    ends = [i + 1 for i, (start, stop) in enumerate(fragments.spans) if _ends_image(data[max(start, stop - 16) : stop])]
    if len(ends) > n_frames or (len(ends) < n_frames and not fragments.problem):
        raise DataError(f"undecodable_pixels: {len(ends)} compressed images for {n_frames} frames")
    return list(pairwise([0, *ends]))


def _ends_image(tail: memoryview) -> bool:
    return bytes(tail).rstrip(b"\0").endswith(_END_OF_IMAGE)
