from dataclasses import replace

import numpy as np
import pytest
from pydicom.dataset import FileDataset, FileMetaDataset

from ichtune.data.dicom.header import SliceHeader, header_of
from ichtune.data.dicom.hounsfield import hounsfield, mask_stored_bits, padding_values, slice_hu


def header(bits_stored: int = 16, signed: int = 1, intercept: float = -1024.0, **values) -> SliceHeader:
    empty = header_of(FileDataset("", {}, file_meta=FileMetaDataset()))
    return replace(
        empty,
        bits_allocated=16,
        bits_stored=bits_stored,
        high_bit=bits_stored - 1,
        pixel_representation=signed,
        rescale_slope=1.0,
        rescale_intercept=intercept,
        **values,
    )


@pytest.mark.parametrize(
    ("bits", "signed", "intercept", "value", "hu"),
    [
        (12, 0, -1024, 1064, 40),
        (12, 0, -1000, 1040, 40),
        (12, 1, 0, 0x0FFF & -1000, -1000),
        (16, 1, -1024, 1064, 40),
        (16, 1, -1024, 0xFFFF & -2000, -3024),
        (12, 0, 0, 40, 40),  # broken: shifted by +1000, wrapped, then -1000
        (12, 0, 0, 3096, -1000),
        (12, 0, 1, 3096, -1000),
        (16, 0, 0, 3096, 3096),  # 16 bits are never repaired
        (12, 0, -100, 3096, 2996),  # the rule asks for more than -100
    ],
)
def test_every_encoding_gives_its_hu(bits, signed, intercept, value, hu):
    result = slice_hu(np.full((8, 6), value, np.uint16), header(bits, signed, intercept)).hu
    assert result.dtype == np.int16
    assert result.shape == (8, 6)
    assert (result == hu).all()


def test_the_broken_12bit_rule_equals_its_published_form():
    stored = np.arange(4096, dtype=np.uint16).reshape(64, 64)
    expected = stored.astype(int) + 1000
    expected[expected >= 4096] -= 4096
    assert (hounsfield(stored, header(12, 0, 1)) == expected - 1000).all()


@pytest.mark.parametrize("slope", [1.0, 0.3, -2.0])
@pytest.mark.parametrize("intercept", [-1024.0, 0.0, 1000.0, 0.5, -40_000.0, 32_767.0, 1e6])
@pytest.mark.parametrize("signed", [0, 1])
def test_rescaling_equals_arithmetic_without_limits(slope, intercept, signed):
    stored = np.arange(0, 65_536, 16, dtype=np.uint16).reshape(64, 64)
    stored = stored.view(np.int16) if signed else stored
    exact = np.clip(stored.astype(np.float64) * slope + intercept, -32_768, 32_767)
    result = hounsfield(stored, replace(header(16, signed, intercept), rescale_slope=slope))
    assert (result == np.rint(exact)).all()


def test_an_intercept_beyond_16_bits_is_fine_where_the_sum_is_not():
    assert hounsfield(np.array([[40_040]], np.uint16), header(16, 0, -40_000)).tolist() == [[40]]


def test_the_file_is_never_written_to():
    patterns = np.array([[0, 1]], np.uint16)
    patterns.flags.writeable = False
    plain = header(16, 1, 0, pixel_padding_value=-2000.0)
    result = slice_hu(patterns, plain).hu
    assert result.flags.writeable
    assert not np.shares_memory(result, patterns)


def test_bits_outside_the_stored_ones_are_masked():
    assert mask_stored_bits(np.array([[0xF000 | 1064]], np.uint16), header(12, 0)).tolist() == [[1064]]
    assert mask_stored_bits(np.array([[0x0FFF, 0x1001]], np.uint16), header(12, 1)).tolist() == [[-1, 1]]
    shifted = replace(header(12, 0), high_bit=15)
    assert mask_stored_bits(np.array([[1064 << 4]], np.uint16), shifted).tolist() == [[1064]]
    assert mask_stored_bits(np.array([[0xFF, 1]], np.uint8), header(8, 1)).tolist() == [[-1, 1]]


@pytest.mark.parametrize(
    ("bits", "signed", "value", "limit", "expected"),
    [
        (16, 1, -2000, None, (-2000, -2000)),
        (16, 1, 63536, None, (-2000, -2000)),
        (16, 0, -2000, None, (63536, 63536)),
        (12, 1, 2096, None, (-2000, -2000)),
        (12, 1, 63536, None, (-2000, -2000)),
        (12, 0, 63536, None, (63536, 63536)),
        (16, 1, 5, 1, (1, 5)),
        (16, 1, None, 5, None),
        (16, 1, 0.5, None, None),
        (16, 1, 65536, None, None),
        (16, 1, 0, 1e9, None),
    ],
)
def test_padding_is_read_with_the_sign_of_the_pixels(bits, signed, value, limit, expected):
    ends = (None if end is None else float(end) for end in (value, limit))
    stated = header(bits, signed, **dict(zip(("pixel_padding_value", "pixel_padding_range_limit"), ends, strict=True)))
    assert padding_values(stated) == expected


def test_padding_becomes_air_and_nothing_else_does():
    stored = np.array([[0, 5, 24, 1064]], np.uint16)
    one = slice_hu(stored, header(12, 0, -1000, pixel_padding_value=0.0))
    assert one.hu.tolist() == [[-1024, -995, -976, 64]]
    assert not one.padding_ignored
    several = header(12, 0, -1000, pixel_padding_value=5.0, pixel_padding_range_limit=0.0)
    assert slice_hu(stored, several).hu.tolist() == [[-1024, -1024, -976, 64]]


def test_a_range_that_reaches_below_air_lifts_nothing():
    """Padding becomes the lower of its own HU and air."""
    stored = np.array([[0, 100, 200]], np.uint16)
    padded = header(16, 0, -1124, pixel_padding_value=0.0, pixel_padding_range_limit=150.0)
    assert slice_hu(stored, padded).hu.tolist() == [[-1124, -1024, -924]]


def test_padding_in_the_range_of_tissue_is_kept():
    stored = np.array([[524, 1064]], np.uint16)
    kept = slice_hu(stored, header(16, 0, pixel_padding_value=524.0))  # -500 HU
    assert (kept.hu.tolist(), kept.padding_ignored) == ([[-500, 40]], True)
    applied = slice_hu(stored, header(16, 0, -1025, pixel_padding_value=524.0))
    assert (applied.hu.tolist(), applied.padding_ignored) == ([[-1024, 39]], False)
