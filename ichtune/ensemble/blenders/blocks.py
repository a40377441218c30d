"""Work through many slices in blocks that fit the cache, on every core.

What blocks return is added up in one order, whatever the number of threads, so that results do not depend on it.
"""

import os
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import cache
from typing import Any

import numpy as np
from threadpoolctl import ThreadpoolController

#: Values a block should hold: 2 MB in double precision stay near the core, and are read in long enough pieces.
BLOCK_VALUES = 1 << 18
#: Neighbouring blocks are done by one thread in turn; so many runs of blocks at most.
N_RUNS = 64
MAX_THREADS = 16
#: Below this many blocks one thread is quicker than starting others.
FEW_BLOCKS = 4


class Scratch(threading.local):
    """Arrays that each thread keeps from block to block, by name."""

    def __init__(self) -> None:
        self._kept: dict[str, np.ndarray] = {}

    def array(self, name: str, shape: tuple[int, ...], dtype: Any = np.float64) -> np.ndarray:
        """Return an array with undefined content; the same memory as last time where it fits."""
        size = int(np.prod(shape))
        kept = self._kept.get(name)
        if kept is None or kept.size < size or kept.dtype != dtype:
            kept = self._kept[name] = np.empty(size, dtype=dtype)
        return kept[:size].reshape(shape)


def n_threads() -> int:
    """Return how many cores this process may use, at most ``MAX_THREADS``."""
    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return min(usable, MAX_THREADS)


@contextmanager
def one_blas_thread() -> Iterator[None]:
    """Keep the linear algebra on the calling thread: blocks are what is spread over the cores here.

    Threads that wait for each other inside it cost a hundred times the work itself where blocks come from two threads.
    """
    with _libraries().limit(limits=1, user_api="blas"):
        yield


@cache
def _libraries() -> ThreadpoolController:
    """Return the linear algebra that numpy has loaded; looking for it takes milliseconds, and is done once."""
    return ThreadpoolController()


def block_size(values_per_row: int) -> int:
    """Return how many rows of so many values make a block."""
    return max(16, BLOCK_VALUES // max(values_per_row, 1))


def sum_over_blocks(work: Callable[[slice], tuple[Any, ...]], n: int, size: int) -> list[Any]:
    """Add up the numbers or arrays that ``work`` returns for each block of ``size`` of ``n`` rows; none for no rows."""
    if n == 0:
        return []
    if n <= size:
        return list(work(slice(0, n)))
    starts = range(0, n, size)
    n_runs = min(len(starts), N_RUNS)
    edges = [len(starts) * i // n_runs for i in range(n_runs + 1)]

    def run(i: int) -> list[Any]:
        return _add_up(work(slice(start, min(start + size, n))) for start in starts[edges[i] : edges[i + 1]])

    return _add_up(on_threads(run, range(n_runs)) if len(starts) >= FEW_BLOCKS else map(run, range(n_runs)))


def on_threads(work: Callable[[int], Any], items: Sequence[int]) -> Iterator[Any]:
    """Yield ``work(item)`` in order, done on every core."""
    if n_threads() == 1:
        yield from map(work, items)
        return
    with ThreadPoolExecutor(n_threads()) as pool:
        yield from pool.map(work, items)


def _add_up(parts: Iterator[Sequence[Any]]) -> list[Any]:
    total = list(next(parts))
    for part in parts:
        for i, value in enumerate(part):
            total[i] = total[i] + value
    return total
