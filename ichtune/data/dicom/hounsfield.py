"""From stored pixel values to Hounsfield units: bits, wrapped 12-bit files, rescaling, padding."""

from typing import NamedTuple

import numpy as np

from ichtune.data.cache.resize import AIR_HU
from ichtune.data.dicom.header import SliceHeader

#: HU that anatomy has: padding that claims one of them would erase it. Bone ends where 12 bits end.
TISSUE_HU = (-500, 3071)
_BROKEN_12BIT_SHIFT = 1000
_INT16 = np.iinfo(np.int16)


class SliceHu(NamedTuple):
    """One slice.

    Attributes:
        hu: int16 (H, W), HU.
        padding_ignored: whether the header calls stored values padding that stand for tissue; they were kept.
    """

    hu: np.ndarray
    padding_ignored: bool


def slice_hu(patterns: np.ndarray, header: SliceHeader) -> SliceHu:
    """Turn the bit patterns of a slice into HU, and its padding into air.

    Padding at or below air is kept as it is: windows clip it, and the cache lifts it to air before it resizes.

    Args:
        patterns: uint8 or uint16 (H, W) as they lie in the file; never changed.
        header: a header that ``kinds`` let pass.
    """
    stored = mask_stored_bits(patterns, header)
    padding = padding_values(header)
    is_ignored, is_padding = False, None
    if padding is not None:
        lowest, highest = _padding_hu(padding, header)
        is_ignored = lowest <= TISSUE_HU[1] and highest >= TISSUE_HU[0]
        if highest > AIR_HU and not is_ignored:
            is_padding = _is_padding(patterns, stored, padding, header)
    hu = hounsfield(stored, header, in_place=not np.may_share_memory(stored, patterns))
    if is_padding is not None:
        if lowest <= AIR_HU:  # only some of the range lies above air
            is_padding &= hu > AIR_HU
        np.copyto(hu, np.int16(AIR_HU), where=is_padding)
    return SliceHu(hu, is_ignored)


def mask_stored_bits(patterns: np.ndarray, header: SliceHeader) -> np.ndarray:
    """Keep only the stored bits and extend the sign.

    Args:
        patterns: uint8 or uint16 (H, W) bit patterns as they lie in the file.
        header: says how many bits count and whether they are signed.

    Returns:
        uint16 or int16 (H, W).

    Source: DICOM PS3.3 C.7.6.3.1: bits outside BitsStored may hold anything, overlays for instance.
    """
    pattern = patterns.astype(np.uint16, copy=False)
    below = header.high_bit + 1 - header.bits_stored
    above = 16 - header.bits_stored
    if below:
        pattern = pattern >> np.uint16(below)
    if header.is_signed:
        return (pattern << np.uint16(above)).view(np.int16) >> np.int16(above) if above else pattern.view(np.int16)
    return pattern & np.uint16(0xFFFF >> above) if above else pattern


def hounsfield(stored: np.ndarray, header: SliceHeader, *, in_place: bool = False) -> np.ndarray:
    """Turn stored values into HU, repairing wrapped 12-bit files.

    Args:
        stored: uint16 or int16 (H, W), masked.
        header: slope, intercept, and whether the file is a broken 12-bit one.
        in_place: the stored values may be overwritten.

    Returns:
        int16 (H, W), HU, in memory of its own or in that of ``stored`` when this may be overwritten; a fraction is
        rounded to the nearest integer, values outside int16 saturate.
    """
    slope = 1.0 if header.rescale_slope is None else header.rescale_slope
    intercept = float(header.rescale_intercept or 0.0)
    if header.is_broken_12bit:
        stored = np.add(stored, np.uint16(_BROKEN_12BIT_SHIFT), out=stored if in_place else None)
        stored &= np.uint16(0x0FFF)
        in_place = True
        intercept = -float(_BROKEN_12BIT_SHIFT)
    if slope == 1.0 and intercept.is_integer() and _fits_int16(stored, int(intercept), header):
        values = stored.view(np.int16)  # arithmetic modulo 2**16 is exact then
        return np.add(values, np.int16(intercept), out=values if in_place else None)
    return np.rint(np.clip(stored * slope + intercept, _INT16.min, _INT16.max)).astype(np.int16)


def padding_values(header: SliceHeader) -> tuple[int, int] | None:
    """Return the lowest and highest pixel value that the header calls padding.

    The value is read with the sign that pixels have, whatever sign the tag has: 63536 in a signed file is
    -2000, and 2096 in one of 12 bits is so too. It may lie outside the stored bits (63536 where 12 bits are
    stored, unsigned): then it names a pattern of all allocated bits.

    Returns:
        None where the header states none, or one that no pixel of this file can have.

    Source: DICOM PS3.3 C.7.5.1.1.2: the representation of the tag follows PixelRepresentation.
    """
    if header.pixel_padding_value is None:
        return None
    limit = header.pixel_padding_range_limit
    ends = [_as_stored(header.pixel_padding_value, header)]
    ends.append(ends[0] if limit is None else _as_stored(limit, header))
    low, high = ends
    if low is None or high is None:
        return None
    return (low, high) if low <= high else (high, low)


def _as_stored(value: float, header: SliceHeader) -> int | None:
    n_patterns = 1 << header.bits_allocated
    if not (value.is_integer() and -n_patterns // 2 <= value < n_patterns):
        return None
    pattern = int(value) % n_patterns
    if not header.is_signed:
        return pattern
    n_stored = 1 << header.bits_stored
    n_signed = n_stored if pattern < n_stored else n_patterns
    return pattern - n_signed if pattern >= n_signed // 2 else pattern


def _padding_hu(padding: tuple[int, int], header: SliceHeader) -> tuple[float, float]:
    """Lowest and highest HU that padding stands for; the scale of a broken file is a ring, so all its values count."""
    low, high = padding
    if header.is_broken_12bit and high <= _largest_stored(header):
        values = np.arange(low, high + 1) + _BROKEN_12BIT_SHIFT
        repaired = (values & 0x0FFF) - _BROKEN_12BIT_SHIFT
        return float(repaired.min()), float(repaired.max())
    slope = 1.0 if header.rescale_slope is None else header.rescale_slope
    ends = [value * slope + float(header.rescale_intercept or 0.0) for value in (low, high)]
    return min(ends), max(ends)


def _is_padding(patterns: np.ndarray, stored: np.ndarray, padding: tuple[int, int], header: SliceHeader) -> np.ndarray:
    low, high = padding
    is_stored = _smallest_stored(header) <= low and high <= _largest_stored(header)
    values = stored if is_stored else patterns.view(f"{'i' if header.is_signed else 'u'}{patterns.itemsize}")
    return values == low if low == high else (values >= low) & (values <= high)


def _smallest_stored(header: SliceHeader) -> int:
    return -(1 << header.bits_stored - 1) if header.is_signed else 0


def _largest_stored(header: SliceHeader) -> int:
    return (1 << header.bits_stored - header.is_signed) - 1


def _fits_int16(stored: np.ndarray, intercept: int, header: SliceHeader) -> bool:
    """Whether no value leaves int16 when the intercept is added; looks at pixels only where bits leave it open."""
    if abs(intercept) > _INT16.max:
        return False
    if _smallest_stored(header) + intercept < _INT16.min and int(stored.min()) + intercept < _INT16.min:
        return False
    return _largest_stored(header) + intercept <= _INT16.max or int(stored.max()) + intercept <= _INT16.max
