import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest

from ichtune.search import node_processes
from ichtune.search.node_processes import MARK_VARIABLE, Started, end, is_alive, start

pytestmark = pytest.mark.slow  # starts and ends real processes

#: A process that has a child of its own and says so; with "stubborn", SIGTERM ends neither.
PARENT = """
import os, signal, subprocess, sys, time
if "stubborn" in sys.argv:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(120)"], start_new_session="apart" in sys.argv)
print(child.pid, os.getcwd(), flush=True)
time.sleep(120)
"""


@pytest.fixture
def begin(tmp_path):
    """Start ``PARENT`` with a mark; whatever is left at the end is killed."""
    started: list[Started] = []

    def begin(mark: str, *how: str) -> tuple[Started, int]:
        log = tmp_path / f"{len(started)}.log"
        started.append(start([sys.executable, "-c", PARENT, *how], os.environ, mark, log, tmp_path))
        wait_until(lambda: len(log.read_text().split()) == 2)
        child, folder = log.read_text().split()
        assert Path(folder) == tmp_path.resolve()
        return started[-1], int(child)

    yield begin
    for process in started:
        end([process], process.mark, 0.5)


def wait_until(is_so, timeout_s: float = 60) -> None:
    deadline = time.monotonic() + timeout_s
    while not is_so():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def runs(pid: int) -> bool:
    found = node_processes._process(pid)
    return found is not None


def test_a_process_is_ended_with_its_children_and_others_are_not(begin):
    mine, my_child = begin("mine", "apart")
    other, other_child = begin("other")
    assert is_alive(mine)
    assert mine.begun_s == pytest.approx(time.time(), abs=60)

    killed = end([mine], "mine", 20)

    assert killed == 0
    assert not is_alive(mine)
    assert not runs(my_child)
    assert is_alive(other)
    assert runs(other_child)


def test_what_does_not_listen_is_killed(begin):
    mine, child = begin("stubborn mark", "stubborn")

    assert end([mine], "stubborn mark", 0.3) >= 1

    assert not runs(mine.pid)
    assert not runs(child)


def test_children_whose_parent_was_killed_are_found_by_the_mark(begin):
    mine, child = begin("orphaned", "apart")
    os.kill(mine.pid, signal.SIGKILL)
    wait_until(lambda: not is_alive(mine))
    assert runs(child)

    end([mine], "orphaned", 20)

    assert not runs(child)


def test_another_process_with_the_number_is_not_taken_for_ours(begin):
    stranger, child = begin("after the reboot")
    ours = replace(stranger, mark="before the reboot")

    assert not is_alive(ours)
    end([ours], "before the reboot", 0.5)

    assert is_alive(stranger)
    assert runs(child)


def test_without_an_environment_to_read_the_start_decides(begin, monkeypatch):
    mine, _ = begin("mark")
    monkeypatch.setattr(node_processes, "_mark", lambda process: None)

    assert is_alive(mine)
    assert not is_alive(replace(mine, begun_s=mine.begun_s - 3600))


def test_a_number_that_nobody_has_is_no_process():
    finished = subprocess.run([sys.executable, "-c", "import os; print(os.getpid())"], capture_output=True, text=True)

    assert not is_alive(Started(int(finished.stdout), time.time(), "mark"))


def test_the_command_that_ends_a_group_is_never_among_it(monkeypatch):
    monkeypatch.setenv(MARK_VARIABLE, "unused")

    assert os.getpid() not in [process.pid for process in node_processes._marked("unused")]
