import subprocess
import sys

import pytest

CHILD = """
import os, signal
from ichtune.interrupts import as_ctrl_c
signal.signal(signal.SIGINT, {on_ctrl_c})
signal.signal(signal.SIGTERM, as_ctrl_c)
try:
    os.kill(os.getpid(), signal.SIGTERM)
    print("went on")
except KeyboardInterrupt:
    print("interrupted")
"""


@pytest.mark.parametrize(
    ("on_ctrl_c", "said"),
    [
        ("signal.default_int_handler", "interrupted"),
        ("signal.SIG_IGN", "interrupted"),
        ("lambda number, frame: print('handled')", "handled\nwent on"),
    ],
)
def test_the_signal_does_what_ctrl_c_does_and_interrupts_where_that_is_ignored(on_ctrl_c, said):
    code = CHILD.format(on_ctrl_c=on_ctrl_c)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout.strip() == said
