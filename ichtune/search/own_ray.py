"""Starting a Ray of this process's own: again if it does not come up, and out of reach of signals meant for us."""

import logging
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any, TypeVar

from ichtune.errors import NothingUsableError
from ichtune.search import node_processes

#: How often Ray is started before it counts as one that cannot be: a busy machine misses the 30 s that a node is given.
START_TRIES = 3
#: Seconds that processes of a Ray that did not come up are given to end, before they are killed.
END_WAIT_S = 5.0

_Started = TypeVar("_Started")


def start_own_ray(start: Callable[[], _Started]) -> _Started:
    """Start Ray, several times if need be; what a try that failed left running is ended.

    Args:
        start: calls ``ray.init`` with the address ``local``.

    Raises:
        NothingUsableError: it does not start; nothing of it is left running.
    """
    for number in range(1, START_TRIES + 1):
        before = node_processes.children()
        try:
            with out_of_our_group():
                return start()
        except Exception as error:  # Ray raises bare ones
            _clean_up(before)
            told = str(error).splitlines()[0] if str(error) else type(error).__name__
            if number == START_TRIES:
                raise NothingUsableError(
                    f"Ray did not start on this machine in {START_TRIES} tries, the last with: {told} What has ended "
                    f"is kept, and the same command goes on from there; try again when the machine is less busy"
                ) from error
            logging.getLogger(__name__).warning(f"Ray did not start, trying again: {told}")
    raise AssertionError("unreachable")


@contextmanager
def out_of_our_group() -> Iterator[None]:
    """Let Ray start its processes in groups of their own for the length of a block.

    Whoever ends a whole group (``timeout``, a shell, a batch system) would end Ray together with the search, which then
    waits a minute for a Ray that is gone, and is aborted. Outside of the group Ray lives until the search has ended;
    that it does not outlive the search is the kernel's doing, which Ray asks for where it can: on Linux.
    """
    from ray._private import services

    there: Any = services  # to mypy a class in a module is no variable

    if not sys.platform.startswith("linux"):
        yield
        return
    before = there.ConsolePopen

    class OfItsOwn(before):  # type: ignore[misc, valid-type]
        def __init__(self, *arguments: Any, **options: Any) -> None:
            super().__init__(*arguments, **{"process_group": 0, **options})

    there.ConsolePopen = OfItsOwn
    try:
        yield
    finally:
        there.ConsolePopen = before


def _clean_up(before: set[int]) -> None:
    """End what a Ray that did not come up left running: the children of this process that were not there before."""
    import ray

    with suppress(Exception):
        ray.shutdown()
    node_processes.end_children(node_processes.children() - before, END_WAIT_S)
