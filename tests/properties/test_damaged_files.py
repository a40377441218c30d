"""Thousands of damaged files: each is read or refused with a reason, in bounded time and memory.

What "none silently wrong" means here, for every file that is accepted:

- uncompressed, deflated and RLE: the HU equal those that pydicom and a rescale written out below give for the
  same damaged bytes, wherever pydicom reads them. A flipped bit of an uncompressed pixel is another pixel, and
  nothing in a DICOM file tells.
- JPEG, JPEG-LS and JPEG 2000: where the compressed frame and the tags that decide its HU are still there, the
  HU equal the undamaged file's. Where the frame was hit, nothing is claimed but its shape: these streams carry
  no checksum. (A stream cut short has no end mark and is refused; JPEG-LS notices nearly every flipped bit,
  lossless JPEG those that put its codes out of step, JPEG 2000 and lossy JPEG those in their headers.)

Case ``i`` of seed ``SEED`` is always the same: ``damaged(bases, deflate, i)`` makes it again.
"""

import io
import struct
import time
import tracemalloc
import warnings
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any

import imagecodecs
import numpy as np
import pytest
from pydicom import dcmread
from pydicom.dataset import Dataset, FileDataset
from pydicom.pixels import get_decoder
from pydicom.uid import ExplicitVRBigEndian, ExplicitVRLittleEndian, ImplicitVRLittleEndian

from ichtune.data.dicom import isolated_decoder
from ichtune.data.dicom.reader import REASONS, SliceReading, read_slices

SEED = 20190911
JPEG = "1.2.840.10008.1.2.4."
AIR_HU = -1024
MAX_TIME_S = 5.0
#: Python's own objects while a header is parsed: what a file may take beyond ten times its frame and its bytes.
MEMORY_FLOOR_BYTES = 1 << 20
PIXEL_TAGS = ("bits_stored", "high_bit", "pixel_representation", "rescale_slope", "rescale_intercept")

# ---- the damage ------------------------------------------------------------------------------------------------

Mutation = Callable[[bytearray, np.random.Generator, bytes], None]
NUMBERS = (0, 1, 2, 7, 8, 11, 12, 13, 15, 16, 24, 31, 32, 39, 40, 41, 64, 80, 255, 512, 4096, 32767, 65535)
TEXTS = (
    b"0",
    b"1",
    b"-1",
    b"2",
    b"16",
    b"-1000",
    b"-1024",
    b"-99",
    b"1e9",
    b"nan",
    b"1\\2",
    b"99999999",
    b"-0.5",
    b"x",
)
SYNTAXES = ("", ".1", ".2", ".5", ".1.99", *(f".4.{n}" for n in (50, 51, 55, 57, 70, 80, 81, 90, 91)))
US_TAGS = (0x0002, 0x0010, 0x0011, 0x0100, 0x0101, 0x0102, 0x0103, 0x0120)
TEXT_TAGS = (0x0008, 0x1052, 0x1053, 0x0030)


def place(data: bytearray, rng: np.random.Generator) -> int:
    """A place in the header in one of three cases, else anywhere."""
    end = min(len(data), 1200) if rng.random() < 1 / 3 else len(data)
    return int(rng.integers(0, max(1, end)))


def flip_bits(data: bytearray, rng: np.random.Generator, _: bytes) -> None:
    for _n in range(int(rng.integers(1, 9))):
        data[place(data, rng)] ^= 1 << int(rng.integers(0, 8))


def overwrite(data: bytearray, rng: np.random.Generator, _: bytes) -> None:
    at, n = place(data, rng), int(rng.integers(1, 65))
    n = min(n, len(data) - at)
    data[at : at + n] = rng.bytes(n) if rng.random() < 0.5 else bytes([int(rng.integers(0, 256))]) * n


def truncate(data: bytearray, rng: np.random.Generator, _: bytes) -> None:
    del data[place(data, rng) :]


def delete(data: bytearray, rng: np.random.Generator, _: bytes) -> None:
    at = place(data, rng)
    del data[at : at + int(rng.integers(1, 200))]


def duplicate(data: bytearray, rng: np.random.Generator, _: bytes) -> None:
    at = place(data, rng)
    data[at:at] = data[at : at + int(rng.integers(1, 400))]


def splice(data: bytearray, rng: np.random.Generator, other: bytes) -> None:
    at = place(data, rng)
    from_other = at if rng.random() < 0.5 else int(rng.integers(0, len(other)))
    data[at:] = other[from_other:]


def elements(data: bytearray, numbers: Sequence[int], group: int = 0x28) -> list[int]:
    """Where elements with these numbers lie, in either byte order."""
    found = [data.find(struct.pack(order + "HH", group, number)) for number in numbers for order in "<>"]
    return [at for at in found if 0 <= at < len(data) - 16]


def change_number(data: bytearray, rng: np.random.Generator, _: bytes) -> None:
    for at in _one_of(elements(data, US_TAGS), rng):
        order = "<" if data[at] == 0x28 else ">"
        struct.pack_into(order + "H", data, at + 8, NUMBERS[int(rng.integers(0, len(NUMBERS)))])


def change_text(data: bytearray, rng: np.random.Generator, _: bytes) -> None:
    for at in _one_of(elements(data, TEXT_TAGS), rng):
        text = TEXTS[int(rng.integers(0, len(TEXTS)))]
        length = data[at + 6] if data[at + 4 : at + 5].isalpha() else data[at + 4]
        data[at + 8 : at + 8 + length] = text[:length].ljust(length)


def change_length(data: bytearray, rng: np.random.Generator, _: bytes) -> None:
    header = elements(data, range(0x200)) if rng.random() < 0.5 else elements(data, [0x0010], 0x7FE0) * 2
    for at in _one_of(header, rng):
        struct.pack_into("<H", data, at + int(rng.choice([4, 6, 8, 10])), int(rng.integers(0, 65536)))


def change_syntax(data: bytearray, rng: np.random.Generator, _: bytes) -> None:
    at = data.find(b"1.2.840.10008.1.2", 150)
    if at >= 0 and data[at - 8 : at - 4] == b"\x02\0\x10\0":
        uid = b"1.2.840.10008.1.2" + SYNTAXES[int(rng.integers(0, len(SYNTAXES)))].encode()
        uid += b"\0" * (len(uid) % 2)
        length = data[at - 2]
        data[at - 2] = len(uid)
        data[at : at + length] = uid


def _one_of(places: list[int], rng: np.random.Generator) -> list[int]:
    return [places[int(rng.integers(0, len(places)))]] if places else []


MUTATIONS: tuple[Mutation, ...] = (
    flip_bits,
    overwrite,
    truncate,
    delete,
    duplicate,
    splice,
    change_number,
    change_number,
    change_text,
    change_length,
    change_syntax,
)


def damaged(bases: list[Any], deflate: Callable[[bytes], bytes], case: int) -> tuple[Any, list[str], bytes]:
    """Case number ``case``: the file that was damaged, how, and the result.

    One in ten is damaged inside a deflated file, whose own stream is then sound.
    """
    rng = np.random.default_rng([SEED, case])
    base, other = (bases[int(rng.integers(0, len(bases)))] for _n in range(2))
    is_inside = rng.random() < 0.1
    data, names = bytearray(bases[0].data if is_inside else base.data), ["deflated"] * is_inside
    for _n in range(int(rng.choice([1, 1, 1, 2, 3]))):
        mutation = MUTATIONS[int(rng.integers(0, len(MUTATIONS)))]
        if len(data) > 200:
            mutation(data, rng, other.data)
            names.append(mutation.__name__)
    return base, names, deflate(bytes(data)) if is_inside else bytes(data)


# ---- what must hold --------------------------------------------------------------------------------------------


def reference_hu(data: bytes, n_readings: int) -> list[np.ndarray] | None:
    """HU of every frame as pydicom decodes the bytes, None where it does not."""
    with suppress(Exception), warnings.catch_warnings(action="ignore"):
        dataset = dcmread(io.BytesIO(data), force=True)
        if "TransferSyntaxUID" not in dataset.file_meta:
            dataset.file_meta.TransferSyntaxUID = native_syntax(dataset)
        decoder = get_decoder(dataset.file_meta.TransferSyntaxUID)
        decoded, _ = decoder.as_array(dataset, correct_unused_bits=False)  # pydicom's correction ignores HighBit
        stored = decoded.reshape(n_readings, dataset.Rows, dataset.Columns).astype(np.int64)
        return [rescaled(dataset, frame, i) for i, frame in enumerate(stored)]
    return None


def native_syntax(dataset: FileDataset) -> str:
    is_implicit, is_little = dataset.original_encoding
    return ImplicitVRLittleEndian if is_implicit else ExplicitVRLittleEndian if is_little else ExplicitVRBigEndian


def rescaled(dataset: FileDataset, stored: np.ndarray, frame: int) -> np.ndarray:
    scale = dataset
    groups = [
        dataset.get("PerFrameFunctionalGroupsSequence") or [],
        dataset.get("SharedFunctionalGroupsSequence") or [],
    ]
    for group in [*groups[1][:1], *groups[0][frame : frame + 1]]:
        scale = (group.get("PixelValueTransformationSequence") or [scale])[0]
    bits, is_signed = int(dataset.BitsStored), dataset.PixelRepresentation == 1
    high = int(dataset.get("HighBit", bits - 1))
    stored = (stored >> (high + 1 - bits)) & ((1 << bits) - 1)
    if is_signed:
        stored = np.where(stored >= 1 << (bits - 1), stored - (1 << bits), stored)
    slope, intercept = number(scale, dataset, "RescaleSlope"), number(scale, dataset, "RescaleIntercept")
    if bits == 12 and not is_signed and intercept > -100:  # the competition's wrapped files
        stored, intercept = (stored + 1000) % 4096, -1000.0
    return np.rint(np.clip(stored * slope + intercept, -32768, 32767)).astype(np.int16)


def number(scale: Dataset, dataset: Dataset, keyword: str) -> float:
    value = scale.get(keyword, dataset.get(keyword))
    return float(value if isinstance(value, str | float | int) else next(iter(set(value))))


class Watch:
    """Checks one damaged file after the other and keeps count of what was compared."""

    def __init__(self) -> None:
        self.counts: Counter[str] = Counter()
        self.largest_frame_bytes = 0
        fresh = isolated_decoder.IsolatedDecoder()
        fresh.decode("jpegls", imagecodecs.jpegls_encode(np.zeros((8, 8), np.uint16)), (8, 8), 2)
        self.child_at_start = child_bytes(fresh.child_pid)
        fresh.close()

    def check(self, base: Any, data: bytes) -> None:
        started = time.monotonic()
        tracemalloc.reset_peak()
        before, _ = tracemalloc.get_traced_memory()
        readings = list(read_slices(data))
        _, peak = tracemalloc.get_traced_memory()
        assert time.monotonic() - started < MAX_TIME_S, "it took too long"
        self.check_readings(readings)
        self.check_memory(readings, peak - before, len(data))
        self.check_child()
        self.compare(base, data, readings)

    def check_readings(self, readings: list[SliceReading]) -> None:
        assert readings, "no reading at all"
        for reading in readings:
            if reading.hu is None:
                assert reading.reason.split(":")[0] in REASONS, reading.reason
                assert len(reading.reason) < 500, reading.reason
            else:
                assert (reading.reason, reading.hu.dtype, reading.hu.ndim) == ("", np.int16, 2)
                assert reading.header is not None
                assert reading.hu.shape == (reading.header.rows_px, reading.header.columns_px)
            self.counts["refused" if reading.hu is None else "read"] += 1

    def check_memory(self, readings: list[SliceReading], grown_bytes: int, file_bytes: int) -> None:
        frame = max(frame_bytes(reading) for reading in readings)
        held = sum(reading.hu.nbytes for reading in readings if reading.hu is not None)  # by this test alone
        self.largest_frame_bytes = max(self.largest_frame_bytes, frame)
        allowed = 10 * frame + 2 * file_bytes + MEMORY_FLOOR_BYTES + held
        assert grown_bytes <= allowed, f"{grown_bytes} bytes taken for a frame of {frame}, {allowed} allowed"

    def check_child(self) -> None:
        kept = 2 * isolated_decoder.MEMORY_FLOOR_BYTES  # the floor, and what a child may keep from frame to frame
        allowed = 10 * self.largest_frame_bytes + kept
        for at_start, largest in zip(
            self.child_at_start, child_bytes(isolated_decoder._DECODER.child_pid), strict=True
        ):
            assert largest <= at_start + allowed, f"the child grew by {largest - at_start} bytes, {allowed} allowed"

    def compare(self, base: Any, data: bytes, readings: list[SliceReading]) -> None:
        if all(reading.hu is None for reading in readings):
            return
        syntax = next(r.header.transfer_syntax_uid for r in readings if r.header is not None)
        if not syntax.startswith(JPEG):
            expected = reference_hu(data, len(readings))
            self.counts["compared with pydicom"] += expected is not None
            for i, reading in enumerate(readings):
                if reading.hu is not None and expected is not None:
                    assert_equal(reading, expected[i])
        if base.streams and all(stream in data for stream in base.streams):
            self.compare_sound(base, readings)

    def compare_sound(self, base: Any, readings: list[SliceReading]) -> None:
        if len(readings) != len(base.readings):
            return
        for reading, sound in zip(readings, base.readings, strict=True):
            if reading.hu is None or sound.hu is None or sound.header is None:
                continue
            same = all(getattr(reading.header, tag) == getattr(sound.header, tag) for tag in PIXEL_TAGS)
            if same:
                self.counts["compared with the sound file"] += 1
                assert_equal(reading, sound.hu)


def frame_bytes(reading: SliceReading) -> int:
    """Bytes of the frame that a header declares; none where the header alone was reason to refuse."""
    header = reading.header
    if header is None or reading.reason.startswith(("absurd_matrix", "bad_header", "unsupported_pixels")):
        return 0
    return header.rows_px * header.columns_px * 2


def child_bytes(pid: int | None) -> tuple[int, int]:
    """Largest address space and largest resident memory of a process so far; zeros where the system does not say."""
    with suppress(FileNotFoundError, KeyError), open(f"/proc/{pid}/status") as status:
        lines = dict(line.split(":", 1) for line in status)
        return int(lines["VmPeak"].split()[0]) * 1024, int(lines["VmHWM"].split()[0]) * 1024
    return 0, 0


def assert_equal(reading: SliceReading, expected: np.ndarray) -> None:
    assert reading.hu is not None
    assert reading.header is not None
    wrong = reading.hu != expected
    if reading.header.pixel_padding_value is not None:
        wrong &= reading.hu != AIR_HU
    assert not wrong.any(), f"{int(wrong.sum())} pixels are silently wrong"


def run(bases: list[Any], deflate: Callable[[bytes], bytes], cases: range) -> Counter[str]:
    watch = Watch()
    was_tracing = tracemalloc.is_tracing()
    tracemalloc.start()
    try:
        for case in cases:
            base, names, data = damaged(bases, deflate, case)
            try:
                watch.check(base, data)
            except Exception as error:
                error.add_note(f"seed {SEED}, case {case} of {len(bases)} bases: {base.name!r}, {', '.join(names)}")
                raise
    finally:
        if not was_tracing:
            tracemalloc.stop()
    return watch.counts


@pytest.mark.slow  # takes seconds
def test_three_hundred_damaged_files_are_read_right_or_refused(bases, deflate):
    counts = run(bases, deflate, range(300))
    assert counts["refused"] > 50
    assert counts["read"] > 50
    assert counts["compared with pydicom"] > 20
    assert counts["compared with the sound file"] > 5


@pytest.mark.slow
def test_five_thousand_damaged_files_are_read_right_or_refused(bases, real_bases, deflate):
    counts = run(bases, deflate, range(300, 4900))
    counts += run([*bases, *real_bases], deflate, range(4900, 5300))
    assert counts["read"] + counts["refused"] >= 5000
    assert counts["compared with pydicom"] > 400
    assert counts["compared with the sound file"] > 100
