"""``prepare`` killed with SIGKILL again and again, at random moments: nothing is lost, nothing is done twice."""

import signal
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
import pytest

from ichtune.data.cache.hu_cache import verify_cache
from ichtune.data.phantom.generate import PhantomSpec, write_phantom

pytestmark = pytest.mark.slow

N_KILLS = 54
#: In every fourth round the shards are built by two worker processes.
TWO_PROCESSES_EVERY = 4
#: Each attempt of a round may take longer than the one before, so that a busy machine gets to the end as well.
MORE_TIME = 1.15
SEED = 20190913
#: So many that a command is still at work when it is stopped after its first shard.
N_FILES = 8000

#: Imports once, then forks a child for each line on stdin, kills it when its time is up and says how it ended.
HOST = """
import os, signal, sys, time
from pathlib import Path

from ichtune.data.cache import shards
from ichtune.data.prepare import PrepareSpec, prepare


def attempt(source, out, n_processes):
    shards._MIN_SHARD_FILES, shards._SMALL_SET_SHARDS = 4, 20
    labels = Path(source) / "stage_2_train.csv"
    prepare(PrepareSpec(Path(source), labels, Path(out), size_px=32, crops=("none", "head"), n_processes=n_processes))


def notes(out):
    try:
        return set(Path(out).glob("hu/.building-*/*.done.json"))
    except FileNotFoundError:  # a finished cache was given its name while it was looked at
        return set()


def wait(child, is_over):
    # until it is over, or the child ends; returns how it ended, None when it did not
    while not is_over():
        ended, status = os.waitpid(child, os.WNOHANG)
        if ended:
            return status
        time.sleep(0.001)


def main():
    for line in sys.stdin:
        source, out, n_processes, wait_s = line.rstrip().split("|")
        before = notes(out)
        child = os.fork()
        if not child:
            attempt(source, out, int(n_processes))
            os._exit(0)
        # starting workers takes longer than all the work, so time runs from the first shard that they finish
        status = wait(child, lambda: n_processes == "1" or notes(out) - before)
        deadline = time.monotonic() + float(wait_s)
        if status is None:
            status = wait(child, lambda: time.monotonic() >= deadline)
        if status is None:
            os.kill(child, signal.SIGKILL)
            status = os.waitpid(child, 0)[1]
        print(os.waitstatus_to_exitcode(status), flush=True)


if __name__ == "__main__":
    main()
"""


class Host:
    """The process that starts and kills preparations."""

    def __init__(self, folder: Path, source: Path) -> None:
        script = folder / "host.py"
        script.write_text(HOST, encoding="utf-8")
        self._source = source
        self._process = subprocess.Popen(
            [sys.executable, str(script)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )

    def is_finished(self, out: Path, n_processes: int, wait_s: float) -> bool:
        """Start a preparation, kill it after so many seconds, and say whether it had ended before."""
        assert self._process.stdin
        assert self._process.stdout
        self._process.stdin.write(f"{self._source}|{out}|{n_processes}|{wait_s}\n")
        self._process.stdin.flush()
        code = int(self._process.stdout.readline())
        assert code in (0, -9), "it failed, rather than being killed"
        return code == 0

    def close(self) -> None:
        self._process.communicate()


def content(out: Path) -> dict[str, bytes]:
    """Every file of a workspace but locks and what a killed process was writing."""
    paths = (path for path in out.rglob("*") if path.is_file() and not path.name.startswith("."))
    return {path.relative_to(out).as_posix(): path.read_bytes() for path in paths}


def finished_shards(out: Path) -> set[tuple[str, int, int]]:
    """Name, inode and time of every shard file that counts as done, in caches that are whole and in those that grow."""
    done = out.glob("hu/.building-*/*.done.json")
    growing = {path for note in done for path in note.parent.glob(f"{note.name.split('.')[0]}.[hr]*")}
    whole = {path for about in out.glob("hu/*/cache.json") for path in about.parent.glob("*.[hr]*")}
    return as_written(growing | whole)


def as_written(paths: Iterable[Path]) -> set[tuple[str, int, int]]:
    return {(path.name, (about := path.stat()).st_ino, about.st_mtime_ns) for path in paths}


@pytest.fixture(scope="module")
def source(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("survives") / "phantom"
    write_phantom(folder, PhantomSpec(n_patients=8, size_px=64))
    damaged = folder / "damaged.dcm"
    damaged.write_bytes(next(folder.rglob("ID_*.dcm")).read_bytes()[:2000])
    return folder


@pytest.fixture(scope="module")
def host(tmp_path_factory, source) -> Iterator[Host]:
    started = Host(tmp_path_factory.mktemp("host"), source)
    yield started
    started.close()


def survive_one_round(host: Host, out: Path, number: int, rng: np.random.Generator, longest_s: float) -> list[bool]:
    """Kill one preparation until it finishes; returns for every kill whether a shard was done by then."""
    n_processes = 2 if number % TWO_PROCESSES_EVERY == 0 else 1
    kept: set[tuple[str, int, int]] = set()
    kills: list[bool] = []
    while not host.is_finished(out, n_processes, float(rng.uniform(0.0, longest_s * MORE_TIME ** len(kills)))):
        assert kept <= as_written(out.glob("hu/*/*")), "a finished shard was lost or written again"
        kept = finished_shards(out)
        kills.append(bool(kept))
    assert kept <= as_written(out.glob("hu/*/*")), "a finished shard was lost or written again"
    return kills


def test_dozens_of_kills_at_random_moments_lose_nothing(host, tmp_path):
    assert host.is_finished(tmp_path / "warm", 1, 60.0)
    start = time.monotonic()
    assert host.is_finished(tmp_path / "whole", 1, 60.0)
    whole_s = time.monotonic() - start
    whole = content(tmp_path / "whole")
    rng = np.random.default_rng(SEED)
    n_kills = n_rounds = n_with_shards = 0
    while n_kills < N_KILLS:
        out = tmp_path / f"round{n_rounds}"
        after_kills = survive_one_round(host, out, n_rounds, rng, whole_s)
        assert content(out) == whole
        n_kills, n_with_shards, n_rounds = n_kills + len(after_kills), n_with_shards + sum(after_kills), n_rounds + 1
    assert n_with_shards >= N_KILLS // 3, (
        f"{n_kills} kills in {n_rounds} rounds, {n_with_shards} after a shard was done"
    )
    for about in (tmp_path / "whole" / "hu").glob("*/cache.json"):
        verify_cache(about.parent)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_stopped_command_says_how_to_go_on_and_does(tmp_path, source, number):
    images = sorted(source.rglob("ID_*.dcm"))
    many = tmp_path / "many"
    many.mkdir()
    for place in range(N_FILES):
        (many / f"{place:04d}.dcm").hardlink_to(images[place % len(images)])
    out = tmp_path / "work"
    command = [sys.executable, "-m", "ichtune", "prepare", str(many), "--out", str(out), "--processes", "2", "--quiet"]
    command += ["--size", "32"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        while not list(out.glob("hu/.building-32/*.done.json")) and process.poll() is None:
            time.sleep(0.005)
        process.send_signal(number)
        _, said = process.communicate()
    assert process.returncode == 130, said
    assert f"of {N_FILES} files read; run the same command again to go on" in said
    assert f"the same command continues:\n  ichtune prepare {many}" in said
    assert "Traceback" not in said
    kept = finished_shards(out)
    assert kept
    assert not list(out.glob("hu/*/.*.tmp"))
    subprocess.run(command, capture_output=True, check=True)
    assert kept <= as_written(out.glob("hu/*/*"))
