"""How a process ends that may have used Ray."""

import atexit
import os
import sys
from collections.abc import Callable
from contextlib import suppress
from typing import NoReturn


def end_with(main: Callable[[], int]) -> NoReturn:
    """Run ``main`` and end the process with the exit code that it returns.

    ``ray.shutdown`` leaves native threads running (its client of the cluster's store, gRPC's event engine). An ordinary
    end destroys what they use while they run, which now and then turned work that was done into a segmentation fault.
    So a process that imported Ray leaves without that, after everything that was registered to run at its end, and
    after what it wrote has been flushed.

    Args:
        main: called once, in the main thread.
    """
    code = 1  # what Python itself ends with when main raises

    def leave() -> None:
        if "ray" in sys.modules:
            for stream in (sys.stdout, sys.stderr):
                with suppress(OSError, ValueError):
                    stream.flush()
            os._exit(code)

    atexit.register(leave)  # registered first, so that it runs last
    code = int(main())
    sys.exit(code)
