"""Processes of ours that outlive the command that started them: known again by a mark, and ended with their children.

A process number alone proves nothing: after a reboot, or long enough after its end, another process has it. Every
process that is started here carries a mark in its environment, which its children inherit.
"""

import os
import signal
import subprocess
import time
from collections.abc import Iterable, Mapping, Sequence, Set
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

#: The variable that holds the mark.
MARK_VARIABLE = "ICHTUNE_CLUSTER_ID"
#: Seconds by which two readings of one process's start may differ: the clock is set now and then.
START_TOLERANCE_S = 2.0
#: Seconds between two looks at what is left.
LOOK_S = 0.1


@dataclass(frozen=True)
class Started:
    """A process that was started: its number, when it began (seconds since 1970), and its mark."""

    pid: int
    begun_s: float
    mark: str


def start(command: Sequence[str], environment: Mapping[str, str], mark: str, log: Path, folder: Path) -> Started:
    """Start a process in a session of its own, so that it stays when this one ends.

    Args:
        command: what to run.
        environment: its variables; the mark is added.
        mark: of the group of processes that it belongs to.
        log: file that its output goes to, emptied first.
        folder: its working directory.
    """
    with log.open("wb") as output:
        process = subprocess.Popen(
            command,
            cwd=folder,
            env={**environment, MARK_VARIABLE: mark},
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    _CHILDREN[process.pid] = process
    found = _process(process.pid)
    return Started(process.pid, found.create_time() if found else time.time(), mark)


def is_alive(started: Started) -> bool:
    """Say whether a process still runs; another one that has its number by now does not count."""
    child = _CHILDREN.get(started.pid)
    if child is not None:
        child.poll()  # a child that ended is let go
    return _ours(started) is not None


def end(processes: Iterable[Started], mark: str, wait_s: float) -> int:
    """End processes, their children, and whatever else carries the mark; nothing else is touched.

    Each is asked with SIGTERM, the given ones before their children; what is left after the wait is killed.

    Args:
        processes: those that were started.
        mark: of their group.
        wait_s: seconds to wait for each of the two.

    Returns:
        How many processes had to be killed.
    """
    roots = [found for started in processes if (found := _ours(started))]
    everything = [*roots, *(child for root in roots for child in _children(root)), *_marked(mark)]
    _signal(roots, signal.SIGTERM)
    _wait(roots, wait_s)
    rest = _wait(_distinct(everything, _marked(mark)), LOOK_S)
    _signal(rest, signal.SIGTERM)
    killed = _wait(rest, wait_s)
    _signal(killed, signal.SIGKILL)
    _wait(killed, wait_s)
    return len(killed)


def children() -> set[int]:
    """Return the numbers of the processes that this one started and that still run."""
    return {child.pid for child in _psutil().Process().children()}


def end_children(pids: Set[int], wait_s: float) -> None:
    """End processes that this one started, and theirs; they are asked first, and killed after the wait.

    Args:
        pids: numbers among ``children()``; others are left alone.
        wait_s: seconds to wait for each of the two.
    """
    roots = [child for child in _psutil().Process().children() if child.pid in pids]
    everything = _distinct(roots, *(_children(root) for root in roots))
    _signal(roots, signal.SIGTERM)
    killed = _wait(everything, wait_s)
    _signal(killed, signal.SIGKILL)
    _wait(killed, wait_s)


#: Processes that this process started, so that they can be let go when they end before it does.
_CHILDREN: dict[int, "subprocess.Popen[bytes]"] = {}


def _psutil() -> Any:
    import ray  # noqa: F401 - it brings psutil along

    import psutil  # isort: skip

    return psutil


def _process(pid: int) -> Any:
    psutil = _psutil()
    try:
        process = psutil.Process(pid)
        return None if process.status() == psutil.STATUS_ZOMBIE else process
    except psutil.Error:
        return None


def _ours(started: Started) -> Any:
    """Return the process if it is the one that was started; where its environment cannot be read, its start decides."""
    process = _process(started.pid)
    if process is None:
        return None
    mark = _mark(process)
    if mark is not None:
        return process if mark == started.mark else None
    return process if abs(process.create_time() - started.begun_s) <= START_TOLERANCE_S else None


def _mark(process: Any) -> str | None:
    """Return the mark of a process, ``""`` if it has none; None where its environment cannot be read."""
    with suppress(_psutil().Error, OSError):
        environment = process.environ()
        return str(environment.get(MARK_VARIABLE, "")) if environment else None
    return None


def _children(process: Any) -> list[Any]:
    with suppress(_psutil().Error):
        return list(process.children(recursive=True))
    return []


def _marked(mark: str) -> list[Any]:
    """Return every process with the mark, except this one and those that it came from."""
    psutil = _psutil()
    own = {os.getpid(), *(parent.pid for parent in psutil.Process().parents())}
    return [process for process in psutil.process_iter() if process.pid not in own and _mark(process) == mark]


def _distinct(*groups: Iterable[Any]) -> list[Any]:
    return list({process.pid: process for group in groups for process in group}.values())


def _signal(processes: Iterable[Any], number: int) -> None:
    for process in processes:
        with suppress(_psutil().Error):
            process.send_signal(number)  # refuses a number that was given to another process


def _wait(processes: Iterable[Any], wait_s: float) -> list[Any]:
    """Wait for processes to end; return those that did not."""
    deadline = time.monotonic() + wait_s
    left = [process for process in processes if _runs(process)]
    while left and time.monotonic() < deadline:
        time.sleep(LOOK_S)
        left = [process for process in left if _runs(process)]
    return left


def _runs(process: Any) -> bool:
    psutil = _psutil()
    child = _CHILDREN.get(process.pid)
    if child is not None:
        child.poll()
    try:
        return bool(process.is_running() and process.status() != psutil.STATUS_ZOMBIE)
    except psutil.Error:
        return False
