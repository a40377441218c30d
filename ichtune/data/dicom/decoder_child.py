"""The process that decodes compressed pixels: frames come in on stdin, images go out on stdout.

Compiled decoders of damaged files can die, hang or ask for any amount of memory. Here they can do that to
nobody else: ``isolated_decoder`` starts ``python -m ichtune.data.dicom.decoder_child``, talks to it, and replaces it.
The process bounds itself as well, so that it ends even when nobody is left to end it: its memory, its CPU
time, and its life, which is over when stdin closes.

A request is a ``REQUEST`` head and the compressed bytes; an answer is an ``ANSWER`` head and the image's bytes,
or a text that says why there is none. Both sides are one machine, so numbers are in native byte order.
"""

import ctypes
import math
import mmap
import os
import resource
import signal
import struct
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import BinaryIO

import numpy as np

#: Position in CODECS, rows, columns, bytes that decoding may take, seconds, bytes of compressed data.
REQUEST = struct.Struct("=BIIQdQ")
#: What follows (a ``numpy`` type character of an image, READY or REFUSED) and its bytes.
ANSWER = struct.Struct("=cQ")
READY, REFUSED = b"+", b"!"
#: What an image may be made of: 8- and 16-bit integers.
IMAGE_TYPES = (b"B", b"b", b"H", b"h")
#: Names of the decoders, in the order of ``load_decoders``.
CODECS = ("jpeg8", "jpegsof3", "jpegls", "jpeg2k")
MAX_REASON_CHARS = 160

Decode = Callable[[bytes], np.ndarray]

#: A process that keeps more memory than this between requests is replaced, so that each frame finds the same.
_KEPT_BYTES = 4 * 1024 * 1024
_PR_SET_PDEATHSIG = 1
#: What a decoder raises on damaged bytes; imagecodecs' own errors are RuntimeErrors.
_DECODER_ERRORS = (
    ArithmeticError,
    AttributeError,
    LookupError,
    MemoryError,
    NotImplementedError,
    OSError,
    RuntimeError,
    TypeError,
    ValueError,
)


def load_decoders() -> tuple[Decode, ...]:
    """Import the decoders, one for each name in CODECS; only this process pays for them."""
    import imagecodecs

    return (
        imagecodecs.jpeg8_decode,
        imagecodecs.jpegsof3_decode,
        imagecodecs.jpegls_decode,
        lambda frame: imagecodecs.jpeg2k_decode(frame, numthreads=1),
    )


def main(decoders: Sequence[Decode] | None = None) -> None:
    """Answer requests until stdin closes.

    Args:
        decoders: one for each name in CODECS; those of ``load_decoders`` unless given.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the process that asks; it closes stdin then
    _lower(resource.RLIMIT_CORE, 0)
    _end_with_parent()
    requests, answers = _own_pipes()
    decoders = load_decoders() if decoders is None else decoders
    at_start = address_space_bytes()
    _to_devnull(sys.stderr.fileno())
    _send(answers, READY)
    while head := _read(requests, REQUEST.size):
        codec, rows, columns, memory_bytes, time_s, n_bytes = REQUEST.unpack(head)
        _limit(memory_bytes, time_s)
        frame = _read(requests, n_bytes)
        if frame is None:
            return
        _send(answers, *_answer(decoders[codec], frame, (rows, columns)))
        del frame
        if address_space_bytes() - at_start > _KEPT_BYTES:
            return  # a new process starts from the beginning


def address_space_bytes() -> int:
    """Return the size of this process's address space; 0 where the system does not say (then it has no limit)."""
    try:
        return int(Path("/proc/self/statm").read_text().split()[0]) * mmap.PAGESIZE
    except OSError:
        return 0


def _answer(decode: Decode, frame: bytes, shape: tuple[int, int]) -> tuple[bytes, bytes | memoryview]:
    try:
        image = np.ascontiguousarray(decode(frame))
    except _DECODER_ERRORS as error:
        return REFUSED, _reason(_what_went_wrong(error))
    if image.shape != shape:
        sides = " x ".join(str(side) for side in image.shape)
        return REFUSED, _reason(f"the decoder returned {sides}, the header says {shape[0]} x {shape[1]}")
    if image.dtype.char.encode() not in IMAGE_TYPES:
        return REFUSED, _reason(f"the decoder returned {image.dtype}, expected 8- or 16-bit integers")
    return image.dtype.char.encode(), image.data.cast("B")


def _what_went_wrong(error: Exception) -> str:
    """The error's name, with words only where they are the decoders' own: others may quote what was decoded."""
    name = type(error).__name__
    is_decoders_own = type(error).__module__.partition(".")[0] == "imagecodecs"
    return f"{name}: {error}" if is_decoders_own else name


def _reason(text: str) -> bytes:
    return text[:MAX_REASON_CHARS].encode("utf-8", "replace")


def _limit(memory_bytes: int, time_s: float) -> None:
    """Bound what this request may take on top of what the process has used so far."""
    _lower(resource.RLIMIT_CPU, math.ceil(time.process_time() + time_s) + 1)
    used = address_space_bytes()
    if used:
        _lower(resource.RLIMIT_AS, used + memory_bytes)


def _lower(kind: int, limit: int) -> None:
    _, hard = resource.getrlimit(kind)
    resource.setrlimit(kind, (limit if hard == resource.RLIM_INFINITY else min(limit, hard), hard))


def _end_with_parent() -> None:
    """Ask Linux to end this process with the one that started it; elsewhere the closed stdin has to do."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


def _own_pipes() -> tuple[BinaryIO, BinaryIO]:
    """Take stdin and stdout for the protocol alone, so that nothing a library prints can get between."""
    pipes = os.fdopen(os.dup(0), "rb"), os.fdopen(os.dup(1), "wb")
    _to_devnull(0)
    _to_devnull(1)
    return pipes


def _to_devnull(descriptor: int) -> None:
    devnull = os.open(os.devnull, os.O_RDWR)
    os.dup2(devnull, descriptor)
    os.close(devnull)


def _read(stream: BinaryIO, n_bytes: int) -> bytes | None:
    data = stream.read(n_bytes)
    return data if len(data) == n_bytes else None


def _send(stream: BinaryIO, kind: bytes, payload: bytes | memoryview = b"") -> None:
    stream.write(ANSWER.pack(kind, len(payload)))
    stream.write(payload)
    stream.flush()


if __name__ == "__main__":
    main()
