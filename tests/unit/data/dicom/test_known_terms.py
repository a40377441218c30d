import pytest

from ichtune.data.dicom.known_terms import (
    ABSENT,
    MODALITIES,
    PHOTOMETRIC_INTERPRETATIONS,
    RESCALE_TYPES,
    UNKNOWN,
    quoted_term,
    quoted_uid,
)


@pytest.mark.parametrize(
    ("terms", "known"),
    [(MODALITIES, "MR"), (PHOTOMETRIC_INTERPRETATIONS, "PALETTE COLOR"), (RESCALE_TYPES, "HU_MOD")],
)
def test_only_terms_that_the_standard_defines_are_quoted(terms, known):
    assert quoted_term(known, terms) == known
    assert quoted_term(known.lower(), terms) == known
    assert quoted_term("", terms) == ABSENT
    for value in ("DOE^JANE", f"{known} DOE", f"{known[0]}ö{known[1:]}", "1965-01-02", " ", f"{known}\n"):
        assert quoted_term(value, terms) == UNKNOWN


def test_what_is_quoted_is_the_term_not_the_text():
    assert quoted_term("p\u017f", frozenset({"PS"})) == "PS"  # a long s becomes an S in capitals


@pytest.mark.parametrize("uid", ["1.2.840.10008.1.2.4.100", "0.0", "2.25.1", "1.2." + "3" * 60])
def test_a_uid_is_quoted(uid):
    assert quoted_uid(uid) == uid


@pytest.mark.parametrize(
    "value",
    ["DOE^JANE", "1.2.DOE", "19650102", "1965.1.2", "02.01.1965", "1.2.", "1", ".1", "1..2", "1.2\n", "1.2.\u0663"],
)
def test_what_is_no_uid_is_not_quoted(value):
    assert quoted_uid(value) == UNKNOWN


def test_a_uid_has_64_characters_at_most_and_may_be_absent():
    assert quoted_uid("1.2." + "3" * 61) == UNKNOWN
    assert quoted_uid("") == ABSENT
