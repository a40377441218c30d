"""Building shards side by side on this machine: a process a core, none of which outlives the build."""

import os
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from multiprocessing import get_context
from multiprocessing.connection import Connection
from multiprocessing.connection import wait as wait_for

import cv2

from ichtune.data.cache.shards import ShardResult, ShardTask, build_shard
from ichtune.errors import DataError

#: Builds shards, wherever, and yields them in whatever order they finish.
RunShards = Callable[[Sequence[ShardTask]], Iterator[ShardResult]]
#: Shards handed out ahead, for each process: one at work and one waiting.
_AHEAD = 2


def available_cores() -> int:
    """Return how many cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def local_shards(n_processes: int) -> RunShards:
    """Return the way to build shards in so many processes; in this one for 1."""

    def run(tasks: Sequence[ShardTask]) -> Iterator[ShardResult]:
        n_workers = min(n_processes, len(tasks))
        if n_workers > 1:
            yield from _pooled(tasks, n_workers)
        else:
            yield from (build_shard(task) for task in tasks)

    return run


def _pooled(tasks: Sequence[ShardTask], n_processes: int) -> Iterator[ShardResult]:
    context = get_context("spawn")
    life, hold = context.Pipe(duplex=False)
    pool = ProcessPoolExecutor(n_processes, mp_context=context, initializer=_start_worker, initargs=(life,))
    waiting = iter(tasks)
    running: set[Future[ShardResult]] = set()
    try:
        while True:
            while len(running) < _AHEAD * n_processes and (task := next(waiting, None)) is not None:
                running.add(_submitted(pool, task))
            if not running:
                break
            finished, running = wait(running, return_when=FIRST_COMPLETED)
            for future in finished:
                yield future.result()
        pool.shutdown()
    except BrokenProcessPool as error:
        raise DataError(
            "a worker process died while it read files: it was killed, or memory ran out. Finished shards are kept; "
            "run the same command again, with --processes 1 if it happens twice"
        ) from error
    finally:
        hold.close()
        pool.shutdown(cancel_futures=True)
        life.close()


def _submitted(pool: ProcessPoolExecutor, task: ShardTask) -> Future[ShardResult]:
    """Hand out a shard, which may start a process: one that Ctrl-C does not reach while it imports."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        return pool.submit(build_shard, task)
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _start_worker(life: Connection) -> None:
    """One thread a worker; it ends at once, in mid-shard, when the build is stopped or its process is killed."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches every process; the build decides
    cv2.setNumThreads(1)
    threading.Thread(target=_end_with, args=(life,), daemon=True).start()


def _end_with(life: Connection) -> None:
    wait_for([life])  # the other end is held by the build alone, and closed with it
    os._exit(1)
