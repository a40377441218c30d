import struct
import tracemalloc

import numpy as np
import pytest
from pydicom.pixels import get_encoder
from pydicom.uid import RLELossless

from ichtune.data.dicom.run_lengths import decode_run_lengths
from ichtune.errors import DataError


def encoded(image: np.ndarray) -> bytes:
    bits = 8 * image.itemsize
    return get_encoder(RLELossless).encode(
        image,
        encoding_plugin="pydicom",
        rows=image.shape[0],
        columns=image.shape[1],
        number_of_frames=1,
        samples_per_pixel=1,
        bits_allocated=bits,
        bits_stored=bits,
        pixel_representation=0,
        photometric_interpretation="MONOCHROME2",
    )


def frame_of(*segments: bytes) -> bytes:
    starts = 64 + np.cumsum([0, *(len(segment) for segment in segments)])[: len(segments)]
    header = [len(segments), *starts.tolist(), *[0] * (15 - len(segments))]
    return struct.pack("<16I", *header) + b"".join(segments)


def images() -> list[np.ndarray]:
    rng = np.random.default_rng(0)
    noise = rng.integers(0, 65536, (13, 7)).astype(np.uint16)
    return [noise, noise // 4096, np.zeros((200, 3), np.uint16), noise.astype(np.uint8), np.full((1, 1), 7, np.uint16)]


@pytest.mark.parametrize("image", images())
def test_what_was_encoded_comes_back(image):
    decoded = decode_run_lengths(encoded(image), *image.shape, image.itemsize)
    assert decoded.dtype == image.dtype
    assert (decoded == image).all()


def test_literals_runs_no_ops_and_a_byte_of_padding():
    segment = bytes([2, 10, 11, 12, 128, 256 - 3, 9, 128]) + b"\0"
    assert decode_run_lengths(frame_of(segment), 1, 7, 1).tolist() == [[10, 11, 12, 9, 9, 9, 9]]


@pytest.mark.parametrize(
    ("frame", "reason"),
    [
        (frame_of(bytes([257 - 8, 5])), "truncated_pixel_data: run lengths for 8 pixels, 9"),
        (frame_of(bytes([8, 5, 5, 5])), "truncated_pixel_data"),
        (frame_of(bytes([257 - 10, 5])), "undecodable_pixels: run lengths do not end"),
        (frame_of(bytes([257 - 9, 5, 0, 1])), "undecodable_pixels: run lengths do not end"),
        (frame_of(bytes([257 - 9, 5]), bytes([257 - 9, 5])), "undecodable_pixels: 2 segments"),
        (frame_of(bytes([257 - 9, 5]))[:40], "truncated_pixel_data"),
        (struct.pack("<16I", 1, 900, *[0] * 14) + bytes(9), "undecodable_pixels: the segments"),
        (struct.pack("<16I", 1, 3, *[0] * 14) + bytes(9), "undecodable_pixels: the segments"),
    ],
)
def test_runs_that_do_not_fill_the_matrix_exactly_are_refused(frame, reason):
    with pytest.raises(DataError, match=f"^{reason}"):
        decode_run_lengths(frame, 3, 3, 1)


def test_segments_in_the_wrong_order_are_refused():
    frame = bytearray(encoded(images()[0]))
    frame[4:12] = frame[8:12] + frame[4:8]
    with pytest.raises(DataError, match=r"^undecodable_pixels: the segments"):
        decode_run_lengths(bytes(frame), 13, 7, 2)


def test_a_small_frame_that_claims_a_huge_matrix_is_refused_before_memory_is_taken():
    with pytest.raises(DataError, match=r"^truncated_pixel_data: .* run lengths"):
        decode_run_lengths(bytes(30_000), 65_535, 65_535, 2)


def test_runs_that_would_grow_beyond_the_matrix_stop_there():
    bomb = frame_of(bytes([129, 0]) * 100_000)
    tracemalloc.start()
    try:
        with pytest.raises(DataError, match=r"^undecodable_pixels"):
            decode_run_lengths(bomb, 100, 100, 1)
        assert tracemalloc.get_traced_memory()[1] < 100_000
    finally:
        tracemalloc.stop()
