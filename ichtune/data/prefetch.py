"""Work ahead of whoever consumes it, in one background thread."""

from collections.abc import Iterable, Iterator
from queue import SimpleQueue
from threading import Event, Semaphore, Thread
from typing import Generic, TypeVar

Item = TypeVar("Item")


def prefetched(items: Iterable[Item], depth: int = 2) -> Iterator[Item]:
    """Yield items in their order while a thread makes the next ones.

    The thread ends with the items, with their first error, or when the consumer stops: it never waits for one that is
    gone. Reading, resizing and augmenting release the interpreter's lock, so that they run beside the training step.

    Args:
        items: what is consumed; only the thread touches it.
        depth: items that are made ahead; 0 makes each when it is asked for, without a thread.

    Raises:
        Exception: whatever making an item raised, at the place of that item.
    """
    if depth <= 0:
        yield from items
        return
    worker = _Worker(items, depth)
    worker.thread.start()
    try:
        yield from worker.made()
    finally:
        worker.stop()


class _Worker(Generic[Item]):
    """The thread, and what it has made."""

    def __init__(self, items: Iterable[Item], depth: int) -> None:
        self._items = items
        self._free = Semaphore(depth)
        self._stopped = Event()
        self._made: SimpleQueue[tuple[Item] | BaseException | None] = SimpleQueue()
        self.thread = Thread(target=self._work, name="prefetch", daemon=True)

    def made(self) -> Iterator[Item]:
        """Yield what was made, and raise what was raised."""
        while (entry := self._made.get()) is not None:
            if isinstance(entry, BaseException):
                raise entry
            self._free.release()
            yield entry[0]

    def stop(self) -> None:
        """End the thread and wait for it: at most one item is still being made."""
        self._stopped.set()
        self._free.release()
        self.thread.join()

    def _work(self) -> None:
        try:
            self._make()
        except BaseException as error:  # noqa: BLE001 - the consumer raises it
            self._made.put(error)
        else:
            self._made.put(None)

    def _make(self) -> None:
        iterator = iter(self._items)
        try:
            while self._wait_for_place():
                self._made.put((next(iterator),))
        except StopIteration:
            return
        finally:
            close = getattr(iterator, "close", None)
            if close is not None:
                close()

    def _wait_for_place(self) -> bool:
        self._free.acquire()
        return not self._stopped.is_set()
