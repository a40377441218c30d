"""Ending on a signal as on Ctrl-C."""

import signal
from types import FrameType
from typing import Any


def as_ctrl_c(number: int, frame: FrameType | None) -> Any:
    """Do what Ctrl-C does: a handler for other signals that ask a process to end.

    Whoever handles Ctrl-C at the time (Ray Tune does while it runs) is asked. Where Ctrl-C is ignored, as it is by what
    a script starts in the background, the signal interrupts all the same: it was meant for this process.

    Raises:
        KeyboardInterrupt: unless somebody else handles Ctrl-C.
    """
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        raise KeyboardInterrupt
    signal.raise_signal(signal.SIGINT)
