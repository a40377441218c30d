"""Compressed frames decoded in a child process that may die, hang or run out of memory without harm.

One child a process, started when the first compressed frame comes and kept. A child that died is replaced and
the frame tried once more, since the damage may be an earlier frame's, or nobody's: the system ends processes
when memory is short. Time stands still while this process does not run itself, as after Ctrl-Z.
"""

import atexit
import contextlib
import os
import select
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from ichtune.data.dicom.decoder_child import ANSWER, CODECS, IMAGE_TYPES, MAX_REASON_CHARS, READY, REFUSED, REQUEST
from ichtune.errors import DataError, StorageError

#: Seconds that one megapixel, or an image of less, may take to be decoded.
TIME_LIMIT_S = 4.0
#: Decoding may take this many times the frame's own bytes and the floor: JPEG 2000 was measured to need 3 MiB
#: whatever the frame's size, the others nothing beyond the ratio.
MEMORY_RATIO = 10
MEMORY_FLOOR_BYTES = 4 * 1024 * 1024
#: Compressed data beyond this many times the pixels are no image: JPEG-LS's longest code takes 4 bytes a byte.
_MAX_EXPANSION = 8
_EXPANSION_FLOOR_BYTES = 64 * 1024

_START_LIMIT_S = 120.0
_STOP_LIMIT_S = 2.0
_SLICE_S = 0.25
_MEGAPIXEL = 1 << 20
#: Signals that the system, a cluster or a user sends; no decoder ends itself with one of them.
_FROM_OUTSIDE = (signal.SIGKILL, signal.SIGTERM, signal.SIGHUP, signal.SIGINT)
#: One thread, and an allocator that gives memory back, so that every frame meets a process of the same size.
_ENVIRONMENT = {
    "OPENBLAS_NUM_THREADS": "1",
    "OMP_NUM_THREADS": "1",
    "MALLOC_ARENA_MAX": "1",
    "MALLOC_MMAP_THRESHOLD_": str(1 << 20),
    "MALLOC_TRIM_THRESHOLD_": str(1 << 20),
}
_COMMAND = (sys.executable, "-P", "-m", "ichtune.data.dicom.decoder_child")


class _NoAnswerError(Exception):
    """The child did not answer in time."""


class _ChildEndedError(Exception):
    """The child closed its pipes, or sent what is no answer."""


@dataclass
class _Timer:
    """Seconds left; while this process is stopped or the machine sleeps, they do not run."""

    left_s: float

    def wait(self, poller: select.poll) -> None:
        """Return when the polled pipe is ready.

        Raises:
            _NoAnswerError: the seconds are over.
        """
        while True:
            before = time.monotonic()
            if poller.poll(1000 * min(_SLICE_S, max(0.0, self.left_s))):
                return
            self.left_s -= min(time.monotonic() - before, 2 * _SLICE_S)
            if self.left_s <= 0:
                raise _NoAnswerError


@dataclass(eq=False)
class _Child:
    """A started child process and both ends of the talk with it."""

    process: subprocess.Popen[bytes]
    requests: int = field(init=False)
    answers: int = field(init=False)

    def __post_init__(self) -> None:
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.requests, self.answers = self.process.stdin.fileno(), self.process.stdout.fileno()
        os.set_blocking(self.requests, False)
        os.set_blocking(self.answers, False)

    def send(self, data: bytes, timer: _Timer) -> None:
        poller = select.poll()
        poller.register(self.requests, select.POLLOUT)
        view = memoryview(data)
        while view:
            timer.wait(poller)
            try:
                view = view[os.write(self.requests, view) :]
            except BlockingIOError:
                continue
            except OSError as error:
                raise _ChildEndedError from error

    def receive(self, into: memoryview, timer: _Timer) -> None:
        poller = select.poll()
        poller.register(self.answers, select.POLLIN)
        while into:
            timer.wait(poller)
            try:
                n_bytes = os.readv(self.answers, [into])
            except BlockingIOError:
                continue
            if n_bytes == 0:
                raise _ChildEndedError
            into = into[n_bytes:]

    def answer(self, timer: _Timer) -> tuple[bytes, int]:
        head = bytearray(ANSWER.size)
        self.receive(memoryview(head), timer)
        kind, n_bytes = ANSWER.unpack(head)
        return kind, n_bytes

    def end(self, at_once: bool) -> int:
        """Close the talk, wait for the process, and return its exit status (negative: a signal)."""
        self.close_pipes()
        try:
            if not at_once:
                return self.process.wait(_STOP_LIMIT_S)
        except subprocess.TimeoutExpired:
            pass
        self.process.kill()
        return self.process.wait()

    def close_pipes(self) -> None:
        for pipe in (self.process.stdin, self.process.stdout, self.process.stderr):
            if pipe is not None:
                with contextlib.suppress(OSError):
                    pipe.close()


class IsolatedDecoder:
    """Decodes frames in a child process, which it starts, watches, replaces and ends. Threads take turns.

    Args:
        command: the child's command line.
        time_limit_s: seconds a megapixel.
    """

    def __init__(self, command: Sequence[str] = _COMMAND, time_limit_s: float = TIME_LIMIT_S) -> None:
        self._command = tuple(command)
        self._time_limit_s = time_limit_s
        self._child: _Child | None = None
        self._lock = threading.Lock()

    @property
    def child_pid(self) -> int | None:
        """The process id of the child that waits for a frame; None before the first frame."""
        child = self._child
        return None if child is None else child.process.pid

    def decode(self, codec: str, frame: bytes, shape: tuple[int, int], sample_bytes: int) -> np.ndarray:
        """Decode one frame.

        Args:
            codec: one of CODECS.
            frame: the compressed bytes.
            shape: rows and columns of the image.
            sample_bytes: bytes a pixel as the header declares it; with the shape it bounds the memory.

        Returns:
            8- or 16-bit integers (H, W), of the type that the decoder chose.

        Raises:
            DataError: ``undecodable_pixels``, ``decoder_timed_out`` or ``decoder_died``.
            StorageError: no child can be started, or something keeps ending it from outside.
        """
        declared = shape[0] * shape[1] * sample_bytes
        if len(frame) > _MAX_EXPANSION * declared + _EXPANSION_FLOOR_BYTES:
            raise DataError(f"undecodable_pixels: {len(frame)} compressed bytes for {declared} bytes of pixels")
        limit_s = self._time_limit_s * max(1.0, shape[0] * shape[1] / _MEGAPIXEL)
        memory_bytes = MEMORY_RATIO * declared + MEMORY_FLOOR_BYTES
        head = REQUEST.pack(CODECS.index(codec), *shape, memory_bytes, limit_s, len(frame))
        with self._lock:
            try:
                return self._exchange(head, frame, shape, limit_s)
            except _ChildEndedError:
                pass
            try:
                return self._exchange(head, frame, shape, limit_s)
            except _ChildEndedError as error:
                raise _death(error) from None

    def close(self) -> None:
        """End the child, if there is one; the next frame starts another."""
        with self._lock:
            child, self._child = self._child, None
            if child is not None:
                child.end(at_once=False)

    def forget(self) -> None:
        """In a forked process: leave the parent's child alone, and start over."""
        child, self._child = self._child, None
        self._lock = threading.Lock()
        if child is not None:
            child.close_pipes()
            child.process.returncode = 0  # not ours to wait for

    def _exchange(self, head: bytes, frame: bytes, shape: tuple[int, int], limit_s: float) -> np.ndarray:
        child, timer = self._ready_child(), _Timer(limit_s)
        try:
            child.send(head, timer)
            child.send(frame, timer)
            return _image(child, shape, timer)
        except _NoAnswerError:
            self._drop(at_once=True)
            raise DataError(f"decoder_timed_out: no image after {limit_s:g} s") from None
        except _ChildEndedError:
            status = self._drop(at_once=False)
            if status == -signal.SIGXCPU:
                raise DataError(f"decoder_timed_out: no image after {limit_s:g} s of computing") from None
            raise _ChildEndedError(status) from None
        except DataError:
            raise
        except BaseException:  # an interrupt leaves half an answer in the pipe
            self._drop(at_once=True)
            raise

    def _drop(self, at_once: bool) -> int:
        child, self._child = self._child, None
        return 0 if child is None else child.end(at_once)

    def _ready_child(self) -> _Child:
        if self._child is not None and self._child.process.poll() is not None:
            self._drop(at_once=False)
        if self._child is None:
            self._child = _start(self._command)
        return self._child


def _image(child: _Child, shape: tuple[int, int], timer: _Timer) -> np.ndarray:
    kind, n_bytes = child.answer(timer)
    if kind == REFUSED and n_bytes <= 4 * MAX_REASON_CHARS:
        text = bytearray(n_bytes)
        child.receive(memoryview(text), timer)
        raise DataError(f"undecodable_pixels: {text.decode('utf-8', 'replace')}")
    if kind not in IMAGE_TYPES or n_bytes != shape[0] * shape[1] * np.dtype(kind.decode()).itemsize:
        raise _ChildEndedError
    image = np.empty(shape, kind.decode())
    child.receive(image.data.cast("B"), timer)
    return image


def _death(error: _ChildEndedError) -> Exception:
    status = error.args[0]
    name = _status_name(status)
    if -status in _FROM_OUTSIDE:
        return StorageError(
            f"the decoder process was ended from outside by {name}, twice; memory may be short, or something ends "
            "processes here. Nothing is wrong with the file: run the same command again with fewer processes"
        )
    return DataError(f"decoder_died: the decoder ended with {name}, in a new process as well")


def _status_name(status: int) -> str:
    if status >= 0:
        return f"exit status {status}"
    try:
        return signal.Signals(-status).name
    except ValueError:
        return f"signal {-status}"


def _start(command: Sequence[str]) -> _Child:
    """Start a child and wait until it is ready.

    Raises:
        StorageError: it cannot be started.
    """
    path = os.pathsep.join(part or os.getcwd() for part in sys.path)
    environment = os.environ | _ENVIRONMENT | {"PYTHONPATH": path}
    pipe = subprocess.PIPE
    try:
        process = subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=pipe, env=environment, bufsize=0)
    except (OSError, ValueError, subprocess.SubprocessError) as error:
        raise StorageError(_no_start(f"{type(error).__name__}: {error}")) from error
    child = _Child(process)
    assert process.stderr is not None
    try:
        kind, _ = child.answer(_Timer(_START_LIMIT_S))
    except (_NoAnswerError, _ChildEndedError) as error:
        process.kill()
        said = process.stderr.read(65536).decode("utf-8", "replace").strip().splitlines()
        status = child.end(at_once=True)
        # what a process writes while a signal of its own ends it is a dump, not a reason
        is_reason = bool(said) and (status >= 0 or status == -signal.SIGKILL)
        raise StorageError(_no_start(said[-1] if is_reason else _status_name(status))) from error
    except BaseException:
        child.end(at_once=True)
        raise
    process.stderr.close()
    if kind != READY:
        child.end(at_once=True)
        raise StorageError(_no_start("it does not speak the protocol"))
    return child


def _no_start(why: str) -> str:
    return (
        f"the process that decodes compressed pixels cannot be started ({why[:300]}); compressed files cannot be read "
        f"until {sys.executable} may be run here and has memory"
    )


_DECODER = IsolatedDecoder()
atexit.register(_DECODER.close)
os.register_at_fork(after_in_child=_DECODER.forget)


def decode_isolated(codec: str, frame: bytes, shape: tuple[int, int], sample_bytes: int) -> np.ndarray:
    """Decode one frame in this process's own child; see ``IsolatedDecoder.decode``."""
    return _DECODER.decode(codec, frame, shape, sample_bytes)
