"""Items made ahead: in order, with their errors, and without a thread that stays behind."""

import threading
from collections.abc import Iterator

import pytest

from ichtune.data.prefetch import prefetched

DEPTHS = [0, 1, 2, 100]
WAIT_S = 10.0


class Source:
    """Numbers from 0, noting which were made, by which thread, and that it was closed."""

    def __init__(self, n: int, fails_at: int | None = None) -> None:
        self.n, self.fails_at = n, fails_at
        self.made: list[int] = []
        self.threads: set[str] = set()
        self.was_closed = threading.Event()
        self.has_made = threading.Semaphore(0)

    def items(self) -> Iterator[int]:
        try:
            for number in range(self.n):
                if number == self.fails_at:
                    raise ValueError(f"no item {number}")
                self.threads.add(threading.current_thread().name)
                self.made.append(number)
                self.has_made.release()
                yield number
        finally:
            self.was_closed.set()


def prefetching_threads() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name == "prefetch"]


@pytest.mark.parametrize("depth", DEPTHS)
@pytest.mark.parametrize("n", [0, 1, 50])
def test_every_item_comes_in_its_order(depth: int, n: int) -> None:
    assert list(prefetched(iter(range(n)), depth)) == list(range(n))
    assert list(prefetched(range(n), depth)) == list(range(n))
    assert not prefetching_threads()


def test_items_are_made_in_one_other_thread_or_without_any() -> None:
    ahead, plain = Source(20), Source(20)
    assert list(prefetched(ahead.items())) == list(prefetched(plain.items(), 0))
    assert ahead.threads == {"prefetch"}
    assert plain.threads == {threading.current_thread().name}


@pytest.mark.parametrize("depth", [1, 3])
def test_so_many_items_are_made_ahead_and_no_more(depth: int) -> None:
    source = Source(50)
    items = prefetched(source.items(), depth)
    assert next(items) == 0
    for _ in range(depth + 1):  # the one that was taken, and those ahead
        assert source.has_made.acquire(timeout=WAIT_S)
    assert not source.has_made.acquire(timeout=0.05)
    assert source.made == list(range(depth + 1))
    items.close()


def test_nothing_is_made_ahead_without_a_thread() -> None:
    source = Source(50)
    items = prefetched(source.items(), 0)
    assert [next(items), next(items)] == source.made == [0, 1]


@pytest.mark.parametrize("depth", DEPTHS)
def test_an_error_comes_at_the_place_of_its_item(depth: int) -> None:
    source = Source(10, fails_at=3)
    items = prefetched(source.items(), depth)
    assert [next(items) for _ in range(3)] == [0, 1, 2]
    with pytest.raises(ValueError, match="no item 3"):
        next(items)
    assert not prefetching_threads()


@pytest.mark.parametrize("depth", DEPTHS)
def test_a_consumer_may_stop_early(depth: int) -> None:
    source = Source(1_000_000)
    items = prefetched(source.items(), depth)
    assert [next(items) for _ in range(3)] == [0, 1, 2]
    items.close()
    assert source.was_closed.wait(WAIT_S)
    assert len(source.made) <= 3 + depth + 1
    assert not prefetching_threads()


def test_a_consumer_that_fails_leaves_no_thread() -> None:
    source = Source(1_000_000)

    def consume() -> None:
        for number in prefetched(source.items()):
            if number == 5:
                raise KeyError(number)

    with pytest.raises(KeyError):
        consume()
    assert source.was_closed.wait(WAIT_S)


def test_nothing_starts_before_the_first_item_is_asked_for() -> None:
    source = Source(3)
    items = prefetched(source.items())
    assert not source.made
    assert not prefetching_threads()
    assert list(items) == [0, 1, 2]
