"""The end of a process: everything registered runs, the code is kept, and after Ray nothing is torn down."""

import subprocess
import sys

import pytest

#: Says so when Python tears down its modules, which happens at an ordinary end only.
CHILD = """
import atexit, os, sys
from ichtune.cli.ending import end_with

class TornDown:
    def __init__(self, write=os.write):
        self.write = write

    def __del__(self):
        self.write(1, b"torn down\\n")

kept = TornDown()

def main():
    {lines}

end_with(main)
"""


def ended(*lines: str) -> subprocess.CompletedProcess[str]:
    code = CHILD.format(lines="\n    ".join(lines))
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, timeout=60)


FAKE_RAY = "sys.modules['ray'] = sys"


def test_an_ordinary_process_ends_as_ever():
    done = ended("print('done')", "return 3")
    assert (done.returncode, done.stdout) == (3, "done\ntorn down\n")


def test_after_ray_what_is_registered_runs_and_nothing_is_torn_down():
    done = ended(FAKE_RAY, "atexit.register(print, 'registered')", "print('done')", "return 3")
    assert (done.returncode, done.stdout) == (3, "done\nregistered\n")


@pytest.mark.parametrize("first", ["pass", FAKE_RAY], ids=["without ray", "with ray"])
def test_an_error_is_told_and_ends_with_1(first):
    done = ended(first, "raise RuntimeError('told')")
    assert done.returncode == 1
    assert "RuntimeError: told" in done.stderr


def test_a_reader_that_left_does_not_change_the_code():
    done = ended(FAKE_RAY, "sys.stdout.close()", "return 4")
    assert (done.returncode, done.stderr) == (4, "")
