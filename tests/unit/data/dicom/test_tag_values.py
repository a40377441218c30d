import struct

import pytest

from ichtune.data.dicom.tag_values import TagValues
from ichtune.errors import DataError


def of(raw: bytes, vr: str | None = "DS", little: bool = True, counts: frozenset[str] = frozenset()) -> TagValues:
    return TagValues({"tag": (vr, raw)}, little, counts)


@pytest.mark.parametrize(
    ("raw", "expected"),
    [
        (b"-1024 ", -1024),
        (b"-01.024000E+03", -1024),
        (b"00036\0", 36),
        (b" +5.0", 5),
        (b"1\\1.0", 1),
        (b"\\7", 7),
        (b"", None),
        (b"  ", None),
    ],
)
def test_odd_spellings_of_one_number(raw, expected):
    assert of(raw).scalar("tag") == expected


@pytest.mark.parametrize(
    "raw", [b"abc", b"1,5", b"1_000", "\u0663".encode(), b"nan", b"inf", b"1e99", b"1\\2", b"0x10"]
)
def test_what_is_no_number_is_refused_without_quoting_it(raw):
    with pytest.raises(DataError, match=r"^bad_header: tag must be") as caught:
        of(raw).scalar("tag")
    assert "abc" not in str(caught.value)
    assert of(raw).optional("tag") is None


@pytest.mark.parametrize(
    ("raw", "expected"),
    [(b"40\\600", 40), (b"40\\x", 40), (b" 00036 ", 36), (b"\\7", None), (b"x\\7", None), (b"1_0", None), (b"", None)],
)
def test_the_first_of_several_values_need_not_agree_with_the_others(raw, expected):
    assert of(raw).first("tag") == expected
    assert of("\u0664".encode()).first("tag") is None


@pytest.mark.parametrize(("vr", "code"), [("US", "H"), ("SS", "h"), ("UL", "I"), ("FL", "f"), ("FD", "d")])
def test_binary_numbers_in_both_byte_orders(vr, code):
    assert of(struct.pack(f"<{code}", 12), vr).scalar("tag") == 12
    assert of(struct.pack(f">{code}", 12), vr, little=False).scalar("tag") == 12
    assert of(struct.pack(f"<2{code}", 3, 4), vr).numbers("tag") == (3, 4)


def test_a_count_needs_no_representation():
    assert of(b"\x00\x02", None, counts=frozenset({"tag"})).count("tag", 0) == 512
    assert of(b"\x00\x02", "UN", counts=frozenset({"tag"})).count("tag", 0) == 512
    assert of(b"12", None).count("tag", 0) == 12


@pytest.mark.parametrize("raw", [b"1.5", b"-1"])
def test_a_count_is_whole_and_not_negative(raw):
    with pytest.raises(DataError, match=r"^bad_header: tag must be a whole number"):
        of(raw).count("tag", 0)


def test_absent_tags():
    absent = TagValues({}, True, frozenset())
    assert absent.text("tag") == ""
    assert absent.texts("tag") == ()
    assert absent.numbers("tag") == ()
    assert absent.scalar("tag") is None
    assert absent.count("tag", 7) == 7
    assert absent.vector("tag", 2) is None


def test_vectors_have_their_length_and_sane_values():
    assert of(b"0.5\\0.25").vector("tag", 2) == (0.5, 0.25)
    assert of(b"0.5").vector("tag", 2) is None
    assert of(b"0.5\\x").vector("tag", 2) is None
    assert of(b"0.5\\1e12").vector("tag", 2) is None


def test_text_is_stripped_cut_and_decoded():
    assert of(b"ORIGINAL\\ PRIMARY \0", "CS").texts("tag") == ("ORIGINAL", "PRIMARY")
    assert of("Müller".encode(), "LO").text("tag") == "Müller"
    assert of("Müller".encode("latin-1"), "LO").text("tag") == "Müller"
    assert len(of(b"x" * 100_000, "LO").text("tag")) == 256
    assert of(b"\x05\x00", "US").text("tag") == "5"


def test_equal_bytes_of_another_kind_are_told_apart():
    """Parsed values are remembered by their bytes and how these are to be read."""
    assert of(b"12", "DS").scalar("tag") == 12
    assert of(b"12", "US").scalar("tag") == 0x3231
    assert of(b"12", "US", little=False).scalar("tag") == 0x3132
