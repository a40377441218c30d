"""Starting Ray as part of this process: tried again, cleaned up, and out of our process group."""

import os
import subprocess
import sys

import pytest

from ichtune.errors import NothingUsableError
from ichtune.search import node_processes, own_ray
from ichtune.search.own_ray import START_TRIES, out_of_our_group, start_own_ray

SLEEP = [sys.executable, "-c", "import time; time.sleep(120)"]


def test_a_ray_that_does_not_come_up_is_started_again(caplog):
    tries = []

    def start() -> str:
        tries.append(len(tries))
        if len(tries) < START_TRIES:
            raise Exception("The current node timed out during startup.\nMore.")
        return "ready"

    assert start_own_ray(start) == "ready"
    assert len(tries) == START_TRIES
    assert "trying again: The current node timed out" in caplog.text


def test_one_that_never_does_is_an_error_that_says_what_to_do_and_leaves_nothing_running(monkeypatch):
    monkeypatch.setattr(own_ray, "END_WAIT_S", 20.0)
    mine, started = subprocess.Popen(SLEEP), []

    def start() -> None:
        started.append(subprocess.Popen(SLEEP))
        raise Exception("The current node timed out during startup.")

    try:
        with pytest.raises(NothingUsableError, match=r"3 tries.*timed out during startup.*the same command goes on"):
            start_own_ray(start)

        assert len(started) == START_TRIES
        assert [process.poll() for process in started] == [-15] * START_TRIES
        assert mine.poll() is None, "a process was ended that Ray did not start"
    finally:
        mine.kill()
        mine.wait()
    assert not node_processes.children() & {process.pid for process in started}


def test_an_interruption_is_no_failed_try():
    def start() -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        start_own_ray(start)


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="only Linux ends them with us")
def test_what_ray_starts_is_not_in_our_process_group():
    from ray._private import services

    before = services.ConsolePopen
    with out_of_our_group():
        process = services.ConsolePopen(SLEEP, stdin=None, preexec_fn=None, creationflags=0)
    try:
        assert os.getpgid(process.pid) == process.pid != os.getpgid(0)
        assert services.ConsolePopen is before
    finally:
        process.kill()
        process.wait()
