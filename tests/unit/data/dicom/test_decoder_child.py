import mmap
import subprocess
import sys

import imagecodecs
import numpy as np
import pytest

from ichtune.data.dicom.decoder_child import ANSWER, CODECS, READY, REFUSED, REQUEST, address_space_bytes

IMAGE = (np.arange(20 * 10, dtype=np.uint16) * 19).reshape(20, 10)
FRAME = imagecodecs.jpegls_encode(IMAGE)
CHILD = [sys.executable, "-P", "-m", "ichtune.data.dicom.decoder_child"]


def request(
    frame: bytes, rows: int = 20, columns: int = 10, codec: str = "jpegls", memory_bytes: int = 1 << 23
) -> bytes:
    return REQUEST.pack(CODECS.index(codec), rows, columns, memory_bytes, 4.0, len(frame)) + frame


def answers(stdin: bytes) -> list[tuple[bytes, bytes]]:
    """What the child writes for these bytes, after which its stdin closes."""
    process = subprocess.run(CHILD, input=stdin, capture_output=True, timeout=60, check=True)
    out, stream = [], process.stdout
    while stream:
        kind, n_bytes = ANSWER.unpack_from(stream)
        out.append((kind, stream[ANSWER.size : ANSWER.size + n_bytes]))
        stream = stream[ANSWER.size + n_bytes :]
    assert out[0] == (READY, b"")
    return out[1:]


def test_requests_are_answered_in_order_until_stdin_closes():
    lossy = imagecodecs.jpegls_encode((IMAGE >> 4).astype(np.uint8))
    got = answers(request(FRAME) + request(lossy) + request(b"noise") + request(FRAME, rows=21) + request(FRAME)[:-1])
    assert got[0] == (b"H", IMAGE.tobytes())
    assert got[1] == (b"B", (IMAGE >> 4).astype(np.uint8).tobytes())
    assert [kind for kind, _ in got[2:]] == [REFUSED, REFUSED]
    assert got[2][1].startswith(b"JpeglsError: ")
    assert got[3][1] == b"the decoder returned 20 x 10, the header says 21 x 10"


def test_each_name_has_the_decoder_that_it_says():
    frames = {
        "jpeg8": imagecodecs.jpeg8_encode((IMAGE >> 4).astype(np.uint8), level=100),
        "jpegsof3": imagecodecs.ljpeg_encode(IMAGE, bitspersample=16),
        "jpegls": FRAME,
        "jpeg2k": imagecodecs.jpeg2k_encode(IMAGE, level=0, codecformat="j2k"),
    }
    assert set(frames) == set(CODECS)
    got = answers(b"".join(request(frame, codec=codec) for codec, frame in frames.items()))
    assert [kind for kind, _ in got] == [b"B", b"H", b"H", b"H"]
    assert [payload for _, payload in got[1:]] == [IMAGE.tobytes()] * 3


def test_an_image_that_is_larger_than_its_memory_is_refused():
    wide = imagecodecs.jpegls_encode(np.zeros((2000, 2000), np.uint16))
    got = answers(request(wide, memory_bytes=1 << 20) + request(FRAME))
    assert got[0][0] == REFUSED
    assert b"MemoryError" in got[0][1]
    assert got[1] == (b"H", IMAGE.tobytes())


@pytest.mark.skipif(sys.platform != "linux", reason="other systems do not state it")
def test_the_address_space_is_what_the_system_says():
    before = address_space_bytes()
    with mmap.mmap(-1, 1 << 26) as held:
        assert len(held) <= address_space_bytes() - before < 2 * len(held)


def test_the_child_imports_neither_pydicom_nor_the_other_rooms():
    code = (
        "import sys; from ichtune.data.dicom import decoder_child; decoder_child.load_decoders();"
        "print(*(m for m in sys.modules if m.startswith(('ichtune.', 'pydicom', 'pandas', 'torch', 'cv2'))))"
    )
    imported = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert set(imported) == {
        "ichtune.version",
        "ichtune.data",
        "ichtune.data.dicom",
        "ichtune.data.dicom.decoder_child",
    }
