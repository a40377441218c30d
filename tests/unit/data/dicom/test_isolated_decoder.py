import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import imagecodecs
import numpy as np
import pytest

from ichtune.data.dicom import isolated_decoder
from ichtune.data.dicom.isolated_decoder import IsolatedDecoder, decode_isolated
from ichtune.errors import DataError, StorageError

#: Leaves no core file, wherever such files are on.
ABORT = "import os, resource; resource.setrlimit(resource.RLIMIT_CORE, (0, 0)); os.abort()"
IMAGE = (np.arange(20 * 10, dtype=np.uint16) * 19).reshape(20, 10)
FRAME = imagecodecs.jpegls_encode(IMAGE)

#: A child whose decoder is the given lines; every other frame it decodes like the real one.
ODD_CHILD = """
import os, signal, sys, time
import numpy as np
from ichtune.data.dicom import decoder_child

def odd(frame):
    if frame == b"odd":
{lines}
    return np.zeros((20, 10), np.uint16)

decoder_child.main([odd] * 4)
"""

MakeOdd = Callable[..., IsolatedDecoder]


@pytest.fixture(scope="module")
def real() -> Iterator[IsolatedDecoder]:
    decoder = IsolatedDecoder()
    yield decoder
    decoder.close()


@pytest.fixture
def make_odd() -> Iterator[MakeOdd]:
    """Return a function that makes a decoder whose child does something odd with the frame ``b"odd"``."""
    made = []

    def make(*lines: str, time_limit_s: float = 30.0) -> IsolatedDecoder:
        code = ODD_CHILD.format(lines="\n".join(f"        {line}" for line in lines))
        made.append(IsolatedDecoder([sys.executable, "-c", code], time_limit_s))
        return made[-1]

    yield make
    for decoder in made:
        decoder.close()


def decode(decoder: IsolatedDecoder, frame: bytes = FRAME) -> np.ndarray:
    return decoder.decode("jpegls", frame, IMAGE.shape, 2)


def is_gone(pid: int) -> bool:
    """Whether a process has ended; one that nobody waits for any more is so too."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] == "Z"
    except FileNotFoundError:
        return True


def wait_until_gone(pid: int) -> bool:
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline and not is_gone(pid):
        time.sleep(0.02)
    return is_gone(pid)


def test_one_child_decodes_frame_after_frame(real):
    for _ in range(3):
        image = decode(real)
        assert image.dtype == np.uint16
        assert (image == IMAGE).all()
        image[0] = 0  # it is the caller's own
    pid = real.child_pid
    large = np.random.default_rng(0).integers(0, 4096, (1200, 900)).astype(np.uint16)  # longer than a pipe
    frame = imagecodecs.jpeg2k_encode(large, level=0, codecformat="j2k")
    assert (real.decode("jpeg2k", frame, large.shape, 2) == large).all()
    assert real.child_pid == pid


def test_a_refusal_says_why_and_costs_no_child(real):
    decode(real)
    pid = real.child_pid
    with pytest.raises(DataError, match=r"^undecodable_pixels: JpeglsError: .*") as refusal:
        decode(real, b"noise")
    assert len(str(refusal.value)) < 200
    with pytest.raises(DataError, match=r"^undecodable_pixels: the decoder returned 20 x 10, the header says 5 x 5"):
        real.decode("jpegls", FRAME, (5, 5), 2)
    assert real.child_pid == pid


def test_far_more_data_than_pixels_never_reach_the_child():
    decoder = IsolatedDecoder(["/no/such/program"])
    with pytest.raises(DataError, match=r"^undecodable_pixels: 100000 compressed bytes for 400"):
        decode(decoder, bytes(100_000))


@pytest.mark.slow
def test_a_frame_may_take_ten_times_its_pixels_and_no_more(real):
    image = np.zeros((64, 64), np.uint16)
    assert (
        real.decode("jpeg2k", imagecodecs.jpeg2k_encode(image, level=0, codecformat="j2k"), image.shape, 2) == 0
    ).all()
    for codec, encode in (
        ("jpegls", imagecodecs.jpegls_encode),
        ("jpeg2k", lambda i: imagecodecs.jpeg2k_encode(i, level=0, codecformat="j2k")),
        ("jpegsof3", lambda i: imagecodecs.ljpeg_encode(i, bitspersample=16)),
    ):
        bomb = encode(np.zeros((6000, 6000), np.uint16))
        with pytest.raises(DataError, match=r"^undecodable_pixels"):
            real.decode(codec, bomb[:500_000], image.shape, 2)
        peak = next(line for line in Path(f"/proc/{real.child_pid}/status").read_text().splitlines() if "VmHWM" in line)
        assert int(peak.split()[1]) < 60_000


def test_threads_take_turns(real):
    frames = [imagecodecs.jpegls_encode(IMAGE + i) for i in range(8)]
    with ThreadPoolExecutor(8) as pool:
        images = list(pool.map(lambda frame: decode(real, frame), frames * 4))
    assert all((image == IMAGE + i % 8).all() for i, image in enumerate(images))


@pytest.mark.slow
def test_the_child_of_a_thread_that_ended_is_replaced_unseen():
    decoder = IsolatedDecoder()
    thread = threading.Thread(target=decode, args=(decoder,))
    thread.start()
    thread.join()
    assert (decode(decoder) == IMAGE).all()
    decoder.close()


@pytest.mark.slow
def test_a_child_that_was_killed_between_frames_is_replaced_unseen():
    decoder = IsolatedDecoder()
    decode(decoder)
    first = decoder.child_pid
    assert first is not None
    os.kill(first, signal.SIGKILL)
    assert (decode(decoder) == IMAGE).all()
    assert decoder.child_pid != first
    assert is_gone(first)
    decoder.close()
    assert decoder.child_pid is None
    assert (decode(decoder) == IMAGE).all()
    decoder.close()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("line", "name"),
    [("os.abort()", "SIGABRT"), ("os._exit(3)", "exit status 3"), ("raise BaseException", "exit status 1")],
)
def test_a_death_is_the_files_and_the_next_file_goes_on(make_odd, line, name):
    odd = make_odd(line)
    assert decode(odd).sum() == 0
    with pytest.raises(DataError, match=rf"^decoder_died: the decoder ended with {name}, in a new process as well"):
        decode(odd, b"odd")
    assert decode(odd).sum() == 0


@pytest.mark.slow
def test_a_death_that_does_not_come_again_is_nobodys(make_odd, tmp_path):
    flag = tmp_path / "died"
    odd = make_odd(f"died = os.path.exists({str(flag)!r})", f"open({str(flag)!r}, 'w').close()", "died or os.abort()")
    assert decode(odd, b"odd").sum() == 0


@pytest.mark.slow
def test_a_child_that_is_always_ended_from_outside_is_no_fault_of_the_file(make_odd):
    odd = make_odd("os.kill(os.getpid(), signal.SIGKILL)")
    with pytest.raises(StorageError, match="ended from outside by SIGKILL, twice"):
        decode(odd, b"odd")
    assert decode(odd).sum() == 0


@pytest.mark.slow
@pytest.mark.parametrize("line", ["time.sleep(1000)", "while True: pass"])
def test_a_hang_is_the_files_and_the_next_file_goes_on(make_odd, line):
    odd = make_odd(line, time_limit_s=1.0)
    decode(odd)
    first = odd.child_pid
    with pytest.raises(DataError, match=r"^decoder_timed_out: no image after 1 s"):
        decode(odd, b"odd")
    assert is_gone(first)
    assert decode(odd).sum() == 0


@pytest.mark.slow
def test_a_child_that_computes_on_ends_itself_although_nobody_waits(make_odd):
    odd = make_odd("while True: pass", time_limit_s=0.1)
    child = odd._ready_child()
    child.send(isolated_decoder.REQUEST.pack(2, 20, 10, 1 << 24, 0.1, 3) + b"odd", isolated_decoder._Timer(5.0))
    assert child.process.wait(30) == -signal.SIGXCPU


def test_time_does_not_run_while_this_process_is_stopped(monkeypatch):
    clock = iter([0.0, 1000.0, 1000.0, 2000.0, 2000.0, 2000.25])

    class Poller:
        answers: Iterator[list[int]] = iter([[], [], [1]])

        def poll(self, _: float) -> list[int]:
            return next(self.answers)

    monkeypatch.setattr("ichtune.data.dicom.isolated_decoder.time.monotonic", lambda: next(clock))
    timer = isolated_decoder._Timer(4.0)
    timer.wait(Poller())  # type: ignore[arg-type]
    assert timer.left_s == 3.0


@pytest.mark.slow
@pytest.mark.parametrize(
    "lines",
    [
        ["sys.stdout.write('noise')", "print('noise')", "os.write(1, b'noise')", "os.write(2, b'noise' * 99999)"],
        ["sys.stdin.read(1)"],
    ],
)
def test_what_a_decoder_prints_or_reads_is_no_part_of_the_talk(make_odd, lines):
    odd = make_odd(*lines)
    assert decode(odd, b"odd").sum() == 0
    assert decode(odd).sum() == 0


@pytest.mark.slow
@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("return np.zeros((20, 10), np.float32)", "the decoder returned float32, expected 8- or 16-bit integers"),
        ("return np.zeros((20, 10, 3), np.uint8)", "the decoder returned 20 x 10 x 3, the header says 20 x 10"),
        ("raise type('Own', (RuntimeError,), {'__module__': 'imagecodecs._x'})('w' * 9999)", "Own: w{155}$"),
        ("raise ValueError('DOE^JANE')", "ValueError$"),  # what others raise may quote what they were given
        ("raise KeyError('DOE^JANE')", "KeyError$"),
        ("np.zeros(1 << 30)", "MemoryError"),
    ],
)
def test_what_is_no_image_is_refused_in_words(make_odd, line, reason):
    with pytest.raises(DataError, match=f"^undecodable_pixels: .*{reason}"):
        decode(make_odd(line), b"odd")


@pytest.mark.slow
@pytest.mark.parametrize("byte", ["?", "H", "!"])
def test_an_answer_that_is_none_counts_as_a_death(make_odd, byte):
    odd = make_odd(f"decoder_child.ANSWER = type('Odd', (), {{'pack': lambda *_: b'{byte}' * 9}})()")
    with pytest.raises(DataError, match=r"^decoder_died"):
        decode(odd, b"odd")
    assert decode(odd).sum() == 0


@pytest.mark.slow
@pytest.mark.parametrize(
    ("command", "why"),
    [
        (["/no/such/program"], "FileNotFoundError"),
        (["/dev/null"], "PermissionError"),
        ([sys.executable, "-c", "raise ImportError('no codecs here')"], "ImportError: no codecs here"),
        ([sys.executable, "-c", ABORT], "SIGABRT"),
        ([sys.executable, "-X", "faulthandler", "-c", ABORT], "SIGABRT"),
        ([sys.executable, "-c", "print('hello there, I am somebody else')"], "protocol"),
    ],
)
def test_a_child_that_cannot_start_is_an_error_of_the_machine(command, why):
    decoder = IsolatedDecoder(command)
    for _ in range(2):
        with pytest.raises(StorageError, match=f"cannot be started .*{why}"):
            decode(decoder)


@pytest.mark.slow
def test_a_forked_process_leaves_its_parents_child_alone():
    shape = IMAGE.shape
    assert (decode_isolated("jpegls", FRAME, shape, 2) == IMAGE).all()
    pid = isolated_decoder._DECODER.child_pid
    forked = os.fork()
    if forked == 0:
        is_right = (decode_isolated("jpegls", FRAME, shape, 2) == IMAGE).all()
        own = isolated_decoder._DECODER.child_pid
        isolated_decoder._DECODER.close()
        os._exit(0 if is_right and own != pid else 1)
    assert os.waitpid(forked, 0)[1] == 0
    assert (decode_isolated("jpegls", FRAME, shape, 2) == IMAGE).all()
    assert isolated_decoder._DECODER.child_pid == pid


def children_of(pid: int) -> list[int]:
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


@pytest.mark.slow
def test_workers_of_a_pool_have_a_child_each_and_take_it_with_them():
    with ProcessPoolExecutor(2, mp_context=get_context("spawn")) as pool:
        images = pool.map(decode_isolated, ["jpegls"] * 20, [FRAME] * 20, [IMAGE.shape] * 20, [2] * 20)
        assert all((image == IMAGE).all() for image in images)
        children = [child for worker in pool._processes for child in children_of(worker)]
        assert children
    assert all(wait_until_gone(child) for child in children)


SCRIPT = """
import sys, time
import numpy as np
from ichtune.data.dicom import isolated_decoder
isolated_decoder.decode_isolated("jpegls", bytes.fromhex(sys.argv[1]), (20, 10), 2)
print(isolated_decoder._DECODER.child_pid, flush=True)
if sys.argv[2] == "wait":
    time.sleep(1000)
"""


@pytest.mark.slow
@pytest.mark.parametrize("how", ["wait", "end"])
def test_the_child_ends_with_its_process_whether_that_ends_or_is_killed(how):
    process = subprocess.Popen([sys.executable, "-c", SCRIPT, FRAME.hex(), how], stdout=subprocess.PIPE)
    assert process.stdout is not None
    child = int(process.stdout.readline())
    if how == "wait":
        process.kill()
    assert process.wait(60) == (-signal.SIGKILL if how == "wait" else 0)
    assert wait_until_gone(child)
    process.stdout.close()


@pytest.mark.slow
def test_ctrl_c_leaves_the_child_to_its_process(real):
    decode(real)
    os.kill(real.child_pid, signal.SIGINT)
    pid = real.child_pid
    assert (decode(real) == IMAGE).all()
    assert real.child_pid == pid
