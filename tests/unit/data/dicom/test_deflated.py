import random
import zlib

import pytest

from ichtune.data.dicom.deflated import MAX_HEADER_BYTES, DeflatedFile
from ichtune.errors import DataError

META = b"meta"
BODY = random.Random(0).randbytes(300_000) + bytes(300_000)


def deflated(body: bytes = BODY) -> bytes:
    packer = zlib.compressobj(wbits=-15)
    return packer.compress(body) + packer.flush()


def opened(packed: bytes) -> DeflatedFile:
    return DeflatedFile(META, memoryview(packed))


def test_it_reads_like_a_file():
    file = opened(deflated())
    assert file.read(6) == META + BODY[:2]
    assert file.tell() == 6
    assert file.seek(104) == 104
    assert file.read(10) == BODY[100:110]
    assert file.seek(-5, 1) == 109
    assert file.read(5) == BODY[105:110]
    assert file.read() == BODY[110:]
    assert file.read(1) == b""


def test_up_to_inflates_no_further():
    file = opened(deflated())
    assert bytes(file.up_to(200_004)) == META + BODY[:200_000]
    assert file.ends_by(len(META) + len(BODY))
    again = opened(deflated())
    again.up_to(100)
    assert not again.ends_by(len(META) + len(BODY) - 1)


def test_a_stream_cut_short_gives_what_is_there():
    packed = deflated()
    found = bytes(opened(packed[: len(packed) // 2]).up_to(len(BODY)))
    assert 100_000 < len(found) < 300_000
    assert found == (META + BODY)[: len(found)]


def test_damage_is_an_error_in_the_header_and_an_end_in_the_pixels():
    packed = deflated(BODY[:1000]) + b"never reached"
    broken = packed[:100] + b"\xff" * 20 + packed[120:]
    assert bytes(opened(broken[:200]).up_to(50)) == META + BODY[:46]
    with pytest.raises(zlib.error):
        opened(b"\xff" * 100).read(10)
    assert bytes(opened(b"\xff" * 100).up_to(10)) == META


def test_a_header_without_end_is_refused_before_it_is_inflated():
    bomb = deflated(bytes(4 * MAX_HEADER_BYTES))
    file = opened(bomb)
    file.seek(3 * MAX_HEADER_BYTES)
    with pytest.raises(DataError, match=r"^unreadable_header"):
        file.read(8)
    with pytest.raises(DataError, match=r"^unreadable_header"):
        opened(bomb).read()


def test_an_empty_stream_has_an_end():
    file = opened(b"")
    assert file.read(100) == META
    assert file.ends_by(4)
