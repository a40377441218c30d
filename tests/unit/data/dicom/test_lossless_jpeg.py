import imagecodecs
import numpy as np
import pytest

from ichtune.data.dicom.lossless_jpeg import check_lossless_jpeg
from ichtune.errors import DataError

RNG = np.random.default_rng(0)
SMOOTH = np.add.outer(np.arange(40) * 3, np.arange(30) * 5).astype(np.uint16)
NOISY = SMOOTH + RNG.integers(0, 60, SMOOTH.shape).astype(np.uint16)


class Coder:
    """A lossless JPEG coder in bits, after the standard and nothing else: every predictor, restarts, transforms."""

    def __init__(self, predictor: int, restart_rows: int = 0, point_transform: int = 0) -> None:
        self.predictor, self.restart_rows, self.point_transform = predictor, restart_rows, point_transform

    def encode(self, image: np.ndarray) -> bytes:
        rows, columns = image.shape
        step = self.restart_rows or rows
        parts = [
            self._part(image[top : top + step].astype(int) >> self.point_transform) for top in range(0, rows, step)
        ]
        scan = b"".join(part + bytes([0xFF, 0xD0 + i % 8]) for i, part in enumerate(parts))[:-2]
        head = b"\xff\xd8\xff\xc3\x00\x0b\x10" + rows.to_bytes(2, "big") + columns.to_bytes(2, "big") + b"\1\1\x11\0"
        table = b"\xff\xc4\x00\x24\x00" + bytes([0, 0, 0, 0, 17]) + bytes(11) + bytes(range(17))
        restart = b"\xff\xdd\x00\x04" + (self.restart_rows * columns).to_bytes(2, "big") if self.restart_rows else b""
        start = b"\xff\xda\x00\x08\x01\x01\x00" + bytes([self.predictor, 0, self.point_transform])
        return head + table + restart + start + scan + b"\xff\xd9"

    def _part(self, image: np.ndarray) -> bytes:
        bits = ""
        for y, x in np.ndindex(image.shape):
            difference = (int(image[y, x]) - self._predicted(image, y, x) + 32767) % 65536 - 32767
            category = abs(difference).bit_length()
            bits += f"{category:05b}"
            if 0 < category < 16:
                bits += f"{difference if difference > 0 else difference + (1 << category) - 1:0{category}b}"
        bits += "1" * (-len(bits) % 8)
        return int(bits, 2).to_bytes(len(bits) // 8, "big").replace(b"\xff", b"\xff\x00")

    def _predicted(self, image: np.ndarray, y: int, x: int) -> int:
        if x == y == 0:
            return 1 << (15 - self.point_transform)
        if y == 0 or x == 0:
            return int(image[y, x - 1] if y == 0 else image[y - 1, x])
        a, b, c = int(image[y, x - 1]), int(image[y - 1, x]), int(image[y - 1, x - 1])
        return [0, a, b, c, a + b - c, a + ((b - c) >> 1), b + ((a - c) >> 1), (a + b) >> 1][self.predictor]


def checked(frame: bytes, image: np.ndarray) -> None:
    check_lossless_jpeg(frame, image)


@pytest.mark.parametrize("predictor", range(1, 8))
@pytest.mark.parametrize("image", [NOISY, RNG.integers(0, 65536, (9, 11)).astype(np.uint16), NOISY[:1], NOISY[:, :1]])
def test_a_sound_stream_passes_with_every_predictor(image, predictor):
    frame = Coder(predictor).encode(image)
    assert (imagecodecs.jpegsof3_decode(frame) == image).all()
    checked(frame, image)


def test_restarts_and_point_transforms_are_understood():
    checked(Coder(1, restart_rows=7).encode(NOISY), NOISY)
    checked(Coder(4, point_transform=3).encode(NOISY), NOISY >> 3 << 3)


@pytest.mark.parametrize("image", [NOISY, (NOISY >> 3).astype(np.uint8)])
def test_what_the_installed_encoder_writes_passes(image):
    checked(imagecodecs.ljpeg_encode(image, bitspersample=8 * image.itemsize), image)


def test_chunks_of_rows_agree_with_the_whole(monkeypatch):
    monkeypatch.setattr("ichtune.data.dicom.lossless_jpeg._CHUNK_PX", 70)
    checked(Coder(6).encode(NOISY), NOISY)


@pytest.mark.parametrize(
    "damage",
    [
        lambda frame: frame[: len(frame) * 3 // 4] + b"\xff\xd9",
        lambda frame: frame[:-40] + b"\xff\xd9",
        lambda frame: frame[:200] + frame[260:],
        lambda frame: frame[:200] + frame[170:],
        lambda frame: frame[:200] + bytes(60) + frame[260:],
    ],
)
def test_a_stream_that_its_decoder_takes_although_bytes_are_gone_or_too_many_is_refused(damage):
    frame = damage(imagecodecs.ljpeg_encode(NOISY, bitspersample=16))
    decoded = imagecodecs.jpegsof3_decode(frame)
    assert (decoded != NOISY).any()
    with pytest.raises(DataError, match=r"^(truncated_pixel_data|undecodable_pixels)"):
        checked(frame, decoded)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (b"\xff\xc4", b"\xff\xe4"),  # no table
        (b"\xff\xda\x00\x08\x01", b"\xff\xda\x00\x08\x02"),  # two components
        (b"\xff\xda\x00\x08\x01\x01\x00\x01", b"\xff\xda\x00\x08\x01\x01\x00\x09"),  # no such predictor
        (b"\xff\xda\x00\x08\x01\x01\x00\x01", b"\xff\xda\x00\x08\x01\x01\x30\x01"),  # another table
        (b"\xff\xda\x00\x08", b"\xff\xda\x00\x07"),
        (b"\xff\xdd\x00\x04\x00\xd2", b"\xff\xdd\x00\x04\x00\xd3"),  # restarts within a row
        (b"\xff\xd1", b"\xff\xd2"),  # restarts out of order
        (b"\xff\xd1", b""),
    ],
)
def test_headers_of_anything_but_one_lossless_scan_are_refused(old, new):
    frame = Coder(1, restart_rows=7).encode(NOISY)
    assert old in frame
    with pytest.raises(DataError, match=r"^(undecodable_pixels|truncated_pixel_data)"):
        checked(frame.replace(old, new), NOISY)
