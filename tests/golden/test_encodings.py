"""Every way in which the competition's files, and others, store HU: exact values."""

import numpy as np
import pytest
from pydicom import DataElement
from pydicom.uid import (
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
)

from ichtune.data.dicom.reader import SliceReading, read_slices

HU = np.array([[-1000, -500, -1, 0], [1, 40, 80, 300], [1000, 2000, 3000, 3071]])


def read(data: bytes) -> SliceReading:
    (reading,) = read_slices(data)
    assert reading.reason == ""
    assert reading.hu is not None
    assert reading.hu.dtype == np.int16
    return reading


def values(data: bytes) -> list[list[int]]:
    return read(data).hu.tolist()


def patterns(stored: np.ndarray) -> np.ndarray:
    """Stored values as the 16 bits of a file."""
    return (stored & 0xFFFF).astype(np.uint16)


#: Bits stored, signed, intercept, and how HU become stored values. Source: counts over the competition's files.
ENCODINGS = {
    "12u-1024": (12, 0, -1024, lambda hu: hu + 1024),
    "12u-1000": (12, 0, -1000, lambda hu: hu + 1000),
    "12u+0": (12, 0, 0, lambda hu: hu % 4096),  # broken: the offset is missing, negative HU wrapped
    "12u+1": (12, 0, 1, lambda hu: hu % 4096),
    "12s+0": (12, 1, 0, lambda hu: hu),
    "16s-1024": (16, 1, -1024, lambda hu: hu + 1024),
    "16s+0": (16, 1, 0, lambda hu: hu),
}


@pytest.mark.parametrize("name", ENCODINGS)
def test_every_encoding_of_the_competition_gives_its_hu(ct_file, name):
    bits, signed, intercept, encode = ENCODINGS[name]
    hu = np.clip(HU, -1000, 2047) if name == "12s+0" else HU
    data = ct_file(
        patterns(encode(hu)),
        BitsStored=bits,
        HighBit=bits - 1,
        PixelRepresentation=signed,
        RescaleIntercept=str(intercept),
    )
    reading = read(data)
    assert reading.hu.tolist() == hu.tolist()
    assert reading.header.encoding == name
    assert reading.header.is_broken_12bit == name.startswith(("12u+0", "12u+1"))


def test_a_sound_file_with_an_intercept_of_minus_1000_is_not_touched(ct_file):
    """The repair would turn every value above 3095 of such a file into air."""
    stored = np.array([[0, 3095, 3096, 4095]], np.uint16)
    data = ct_file(stored, BitsStored=12, HighBit=11, PixelRepresentation=0, RescaleIntercept="-1000")
    assert values(data) == [[-1000, 2095, 2096, 3095]]


def test_padding_below_air_is_kept_as_it_is(ct_file):
    stored = patterns(np.array([[-2000, 0, 1064, 1024]]))
    assert values(ct_file(stored, PixelPaddingValue=-2000)) == [[-3024, -1024, 40, 0]]


@pytest.mark.parametrize(("value", "vr"), [(-2000, "SS"), (63536, "US")])
@pytest.mark.parametrize("syntax", [ExplicitVRLittleEndian, ImplicitVRLittleEndian])
def test_padding_above_air_becomes_air_whatever_sign_the_tag_has(ct_file, value, vr, syntax):
    """At a slope of a quarter stored -2000 would be -600 HU, the edge of the lung."""
    stored = patterns(np.array([[-2000, -1996, 160, 0]]))
    scale = {"RescaleSlope": "0.25", "RescaleIntercept": "-100", "syntax": syntax}
    assert values(ct_file(stored, **scale)) == [[-600, -599, -60, -100]]
    padding = DataElement(0x00280120, vr, value)
    assert values(ct_file(stored, **scale, PixelPaddingValue=padding)) == [[-1024, -599, -60, -100]]


def test_padding_of_an_unsigned_file_with_12_bits_is_a_pattern_of_all_16(ct_file):
    """63536 is -2000 in 16 bits; cut to 12 bits it would read as 1072 HU of bone."""
    stored = np.array([[63536, 2096, 1064]], np.uint16)
    plain = {"BitsStored": 12, "HighBit": 11, "PixelRepresentation": 0}
    assert values(ct_file(stored, **plain, PixelPaddingValue=63536)) == [[-1024, 1072, 40]]


def test_a_range_of_padding_becomes_air(ct_file):
    stored = patterns(np.array([[0, 10, 20, 21, 1064]]))
    for value, limit in ((0, 20), (20, 0)):
        data = ct_file(stored, RescaleIntercept="-1000", PixelPaddingValue=value, PixelPaddingRangeLimit=limit)
        assert values(data) == [[-1024, -1024, -1024, -979, 64]]


def test_padding_that_is_tissue_is_not_applied_and_told(ct_file):
    stored = patterns(np.array([[0, 40, 1000]]))
    implausible = read(ct_file(stored, RescaleIntercept="0", PixelPaddingValue=0))
    assert implausible.hu.tolist() == [[0, 40, 1000]]
    assert implausible.padding_ignored
    too_wide = read(ct_file(stored, RescaleIntercept="0", PixelPaddingValue=-2000, PixelPaddingRangeLimit=45))
    assert too_wide.hu.tolist() == [[0, 40, 1000]]
    assert too_wide.padding_ignored
    assert not read(ct_file(stored, PixelPaddingValue=-2000)).padding_ignored


def test_padding_of_a_broken_12bit_file_is_read_by_the_repaired_scale(ct_file):
    broken = {"BitsStored": 12, "HighBit": 11, "PixelRepresentation": 0, "RescaleIntercept": "0"}
    stored = np.array([[3096, 3196, 0, 40]], np.uint16)  # -1000, -900, 0, 40 HU
    assert values(ct_file(stored, **broken, PixelPaddingValue=3096)) == [[-1024, -900, 0, 40]]
    assert read(ct_file(stored, **broken, PixelPaddingValue=0)).padding_ignored


def test_numbers_written_as_odd_text_are_read(ct_file):
    stored = patterns(np.array([[1064, 0]]))
    odd = {"RescaleIntercept": "-01.024000E+03", "RescaleSlope": "00001.0", "InstanceNumber": "00036"}
    reading = read(ct_file(stored, **odd, WindowCenter=["00036", "00036"], WindowWidth=["0080", "0080"]))
    assert reading.hu.tolist() == [[40, -1024]]
    assert (reading.header.instance_number, reading.header.window_hu) == (36, (36, 80))


def test_a_tag_that_holds_its_value_twice_is_read_once(ct_file):
    stored = patterns(np.array([[1064, 0]]))
    assert values(ct_file(stored, RescaleIntercept=["-1024", "-1024.0"], RescaleSlope=["1", "1"])) == [[40, -1024]]


@pytest.mark.parametrize(
    ("slope", "intercept", "hu"),
    [
        ("2", "-1024", [-1024, 976, 3070]),
        ("0.5", "-1024", [-1024, -524, 0]),  # 1023.5 - 1024 = -.5, which rounds to the even 0
        ("1", "-1024.4", [-1024, -24, 1023]),
        ("-1", "1024", [1024, 24, -1023]),
        ("1.000000", "-1.024e3", [-1024, -24, 1023]),
    ],
)
def test_slope_and_intercept_may_be_any_number(ct_file, slope, intercept, hu):
    stored = patterns(np.array([[0, 1000, 2047]]))
    assert values(ct_file(stored, RescaleSlope=slope, RescaleIntercept=intercept)) == [hu]


def test_values_beyond_16_bits_saturate(ct_file):
    stored = patterns(np.array([[-32768, 32767, 0]]))
    assert values(ct_file(stored)) == [[-32768, 31743, -1024]]
    assert values(ct_file(stored, RescaleIntercept="1024")) == [[-31744, 32767, 1024]]
    assert values(ct_file(stored, PixelRepresentation=0)) == [[31744, 31743, -1024]]


@pytest.mark.parametrize("signed", [0, 1])
def test_overlays_in_the_high_bits_do_not_show(ct_file, signed):
    stored = np.array([[1064, 1064 | 0x8000, 1064 | 0xF000, 0x5000]], np.uint16)
    data = ct_file(stored, BitsStored=12, HighBit=11, PixelRepresentation=signed, RescaleIntercept="-1024")
    assert values(data) == [[40, 40, 40, -1024]]


def test_the_sign_is_that_of_the_highest_stored_bit(ct_file):
    stored = np.array([[0x0FFF, 0xFFFF, 0x0800, 0x07FF]], np.uint16)
    data = ct_file(stored, BitsStored=12, HighBit=11, PixelRepresentation=1, RescaleIntercept="0")
    assert values(data) == [[-1, -1, -2048, 2047]]


@pytest.mark.parametrize("signed", [0, 1])
def test_stored_bits_may_lie_at_the_high_end(ct_file, signed):
    stored = np.array([[1064 << 4, (1064 << 4) | 0xF]], np.uint16)
    data = ct_file(stored, BitsStored=12, HighBit=15, PixelRepresentation=signed)
    assert values(data) == [[40, 40]]


def test_8_bits_with_a_wide_scale_are_hu(ct_file):
    stored = np.array([[0, 32], [34, 255]], np.uint8)
    data = ct_file(stored, BitsAllocated=8, BitsStored=8, HighBit=7, PixelRepresentation=0, RescaleSlope="32")
    assert values(data) == [[-1024, 0], [64, 7136]]


@pytest.mark.parametrize("shape", [(16, 12), (12, 16), (1, 1), (464, 464), (768, 374)])
def test_a_matrix_of_any_shape_is_read_row_by_row(ct_file, shape):
    stored = np.arange(shape[0] * shape[1], dtype=np.int64).reshape(shape) % 3000
    assert (read(ct_file(patterns(stored))).hu == stored - 1024).all()


@pytest.mark.parametrize(
    "syntax",
    [ImplicitVRLittleEndian, ExplicitVRLittleEndian, ExplicitVRBigEndian, DeflatedExplicitVRLittleEndian],
)
@pytest.mark.parametrize("name", ENCODINGS)
def test_every_uncompressed_syntax_gives_the_same_hu(ct_file, name, syntax):
    bits, signed, intercept, encode = ENCODINGS[name]
    tags = {"BitsStored": bits, "HighBit": bits - 1, "PixelRepresentation": signed, "RescaleIntercept": str(intercept)}
    stored = patterns(encode(np.clip(HU, -1000, 2047)))
    assert values(ct_file(stored, syntax=syntax, **tags)) == values(ct_file(stored, **tags))
