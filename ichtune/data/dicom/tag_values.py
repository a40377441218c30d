"""Values of DICOM tags, parsed from their raw bytes.

String-typed numbers, repeated values and odd value representations then follow one rule, whoever found the
bytes. Parsed values are remembered: most of them are the same for all slices of a series.
"""

import struct
from collections.abc import Mapping
from functools import lru_cache

from ichtune.errors import DataError

_BINARY_FORMATS = {"US": "H", "SS": "h", "UL": "I", "SL": "i", "FL": "f", "FD": "d", "SV": "q", "UV": "Q"}
_LITTLE_CODES, _BIG_CODES = ({vr: order + code for vr, code in _BINARY_FORMATS.items()} for order in "<>")
#: One value as it lies in the file: its value representation, None where the file does not state it, and its bytes.
RawValue = tuple[str | None, bytes]

_MAX_TEXT = 256
_MAX_BYTES = _MAX_TEXT * 8
_MAX_BINARY_VALUES = 16
_ABSENT: RawValue = (None, b"")
_PADDING = " \0\t\r\n"
_LARGEST_NUMBER = 1e30
_LARGEST_MM = 1e9


class TagValues:
    """The allowed tags of one data set, by name.

    Args:
        found: the tags that the data set holds.
        is_little_endian: byte order of binary values.
        counts: names of tags that hold a 16-bit number; so is read what does not state its representation.
    """

    __slots__ = ("_codes", "_counts", "_found")

    def __init__(self, found: Mapping[str, RawValue], is_little_endian: bool, counts: frozenset[str]) -> None:
        self._found = found
        self._codes = _LITTLE_CODES if is_little_endian else _BIG_CODES
        self._counts = counts

    def texts(self, name: str) -> tuple[str, ...]:
        """Every value as text, stripped."""
        vr, raw = self._found.get(name, _ABSENT)
        return _texts(raw[:_MAX_BYTES], self._code(name, vr)) if raw else ()

    def text(self, name: str) -> str:
        """The first value as text, ``""`` where there is none."""
        texts = self.texts(name)
        return texts[0] if texts else ""

    def numbers(self, name: str) -> tuple[float, ...]:
        """Every value as a number, those left empty aside.

        Raises:
            DataError: ``bad_header: ...``, a value is no number.
        """
        vr, raw = self._found.get(name, _ABSENT)
        if not raw:
            return ()
        try:
            return _numbers(raw[:_MAX_BYTES], self._code(name, vr))
        except ValueError:
            raise DataError(f"bad_header: {name} must be a number, it holds text") from None  # its cause quotes it

    def scalar(self, name: str) -> float | None:
        """One number; a repeated tag is fine as long as its values agree.

        Raises:
            DataError: ``bad_header: ...``, no finite number, or several different ones.
        """
        vr, raw = self._found.get(name, _ABSENT)
        if not raw:
            return None
        known = _one_number(raw, self._code(name, vr))
        return self._examined(name) if known is None else known

    def _examined(self, name: str) -> float | None:
        """What ``scalar`` gives where it is not one plain number."""
        values = self.numbers(name)
        if not values:
            return None
        if len(values) > 1 and len(set(values)) > 1:
            raise DataError(f"bad_header: {name} must be one number, got {len(values)} different ones")
        if not -_LARGEST_NUMBER < values[0] < _LARGEST_NUMBER:
            raise DataError(f"bad_header: {name} must be a finite number, got {values[0]}")
        return values[0]

    def count(self, name: str, default: int) -> int:
        """A whole number that is not negative.

        Raises:
            DataError: ``bad_header: ...``, as ``scalar``, and for a fraction or a negative number.
        """
        value = self.scalar(name)
        if value is None:
            return default
        if value != int(value) or value < 0:
            raise DataError(f"bad_header: {name} must be a whole number, got {value:g}")
        return int(value)

    def optional(self, name: str) -> float | None:
        """A number that is only a description: one that cannot be read counts as absent."""
        try:
            return self.scalar(name)
        except DataError:
            return None

    def first(self, name: str) -> float | None:
        """The first of several values that need not agree; one that is no number counts as absent."""
        text = self.text(name)
        if "_" in text or not text.isascii():  # float() would take 1_000 and foreign digits
            return None
        try:
            return float(text)
        except ValueError:
            return None

    def vector(self, name: str, length: int) -> tuple[float, ...] | None:
        """So many numbers in mm or as a direction; anything else counts as absent."""
        try:
            values = self.numbers(name)
        except DataError:
            return None
        if len(values) != length or not all(-_LARGEST_MM < value < _LARGEST_MM for value in values):
            return None
        return values

    def _code(self, name: str, vr: str | None) -> str | None:
        """The struct code of a value that is not text."""
        if (vr is None or vr == "UN") and name in self._counts:
            return self._codes["US"]
        return None if vr is None else self._codes.get(vr)


@lru_cache(maxsize=2048)
def _texts(raw: bytes, code: str | None) -> tuple[str, ...]:
    if code is not None:
        return tuple(repr(value) for value in _binary_values(raw, code))
    text = _decoded(raw).strip(_PADDING)
    return tuple(part.strip(_PADDING)[:_MAX_TEXT] for part in text.split("\\")) if text else ()


@lru_cache(maxsize=2048)
def _one_number(raw: bytes, code: str | None) -> float | None:
    """The value where it is one sound number, as it nearly always is; None for everything else."""
    if len(raw) > _MAX_BYTES:
        return None
    try:
        values = _numbers(raw, code)
    except ValueError:
        return None
    return values[0] if len(values) == 1 and -_LARGEST_NUMBER < values[0] < _LARGEST_NUMBER else None


@lru_cache(maxsize=2048)
def _numbers(raw: bytes, code: str | None) -> tuple[float, ...]:
    if code is not None:
        return tuple(float(value) for value in _binary_values(raw, code))
    if b"_" in raw or not raw.isascii():  # float() would take 1_000 and foreign digits
        raise ValueError("a number is written in ASCII digits")
    return tuple(float(text) for text in _texts(raw, None) if text)


def _binary_values(raw: bytes, code: str) -> list[int | float]:
    size = struct.calcsize(code)
    end = min(len(raw) // size, _MAX_BINARY_VALUES) * size
    return [struct.unpack_from(code, raw, offset)[0] for offset in range(0, end, size)]


def _decoded(raw: bytes) -> str:
    try:
        return raw.decode("utf-8")
    except UnicodeDecodeError:
        return raw.decode("latin-1")
