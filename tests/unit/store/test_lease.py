import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

import pytest

from ichtune.errors import ConflictError
from ichtune.store import lease as module
from ichtune.store.lease import Holder, Lease, held, last_holder
from ichtune.store.store import Store

ELSEWHERE = Holder("b" * 32, "other-host", "another machine", 77, renewed_at=0.0, count=3)


@pytest.fixture(autouse=True)
def fast(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "RENEW_S", 0.02)
    monkeypatch.setattr(module, "DEAD_AFTER_S", 0.2)


def put(store: Store, holder: Holder, term: int = 4) -> None:
    store.write(f"lease/{term:06d}.json", json.dumps(holder.__dict__).encode())


@contextmanager
def renewing(store: Store, holder: Holder) -> Iterator[None]:
    """Somebody elsewhere who lives and renews the lease."""
    done = threading.Event()

    def renew() -> None:
        own, count = Store(store.url), holder.count
        while not done.wait(0.01):
            count += 1
            put(own, replace(holder, count=count))

    thread = threading.Thread(target=renew)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()


def test_a_lease_is_renewed_while_it_is_held_and_given_back_after(store: Store) -> None:
    with held(store, "lease", "busy") as lease:
        first = last_holder(store, "lease")
        assert first is not None
        assert (first.pid, first.released, lease.term) == (os.getpid(), False, 1)
        while (last_holder(store, "lease") or first).count == first.count:
            lease.check()

    given_back = last_holder(store, "lease")
    assert given_back is not None
    assert given_back.released
    with held(store, "lease", "busy") as again:
        assert again.term == 2
    assert list(store.files("lease")) == ["000002.json"]


def test_a_lease_that_lives_is_not_taken(store: Store) -> None:
    put(store, ELSEWHERE)

    with (
        renewing(store, ELSEWHERE),
        pytest.raises(ConflictError, match=r"search 'a' runs: process 77 on other-host works on it"),
        held(store, "lease", "search 'a' runs"),
    ):
        pass

    assert list(store.files("lease")) == ["000004.json"]


def test_a_lease_that_is_not_renewed_is_taken_over(store: Store) -> None:
    put(store, ELSEWHERE)

    with held(store, "lease", "busy") as lease:
        assert lease.term == 5


def test_a_lease_of_a_process_here_that_has_ended_is_taken_over_at_once(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "DEAD_AFTER_S", 600.0)
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    put(store, replace(ELSEWHERE, machine=module._machine(), pid=ended.pid))

    with held(store, "lease", "busy") as lease:
        assert lease.term == 5


def test_a_lease_that_cannot_be_read_is_waited_for_like_any_other(store: Store) -> None:
    store.write("lease/000004.json", b'{"owner": "half')

    with held(store, "lease", "busy") as lease:
        assert lease.term == 5


def test_of_two_who_come_at_the_same_moment_one_is_turned_away(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    write = Store.write

    def overtaken(self: Store, name: str, content: bytes, *, is_new: bool = False) -> None:
        if is_new and self.read(name) is None:
            write(self, name, b"{}", is_new=True)
        write(self, name, content, is_new=is_new)

    monkeypatch.setattr(Store, "write", overtaken)

    with pytest.raises(ConflictError, match="at this very moment"), held(store, "lease", "busy"):
        pass


def test_whoever_was_replaced_finds_out_and_gives_nothing_back(store: Store) -> None:
    lease = Lease(store, "lease", "busy")
    lease.acquire()
    put(store, ELSEWHERE, term=2)
    lease._thread.join(timeout=10)

    with pytest.raises(ConflictError, match="somebody else has taken it over; this one stops"):
        lease.check()
    lease.release()
    assert last_holder(store, "lease") == ELSEWHERE


def test_terms_rise_above_what_the_journal_has_seen(store: Store) -> None:
    with held(store, "lease", "busy", above=11) as lease:
        assert lease.term == 12


def test_a_lease_that_could_not_be_renewed_for_long_is_checked_before_it_is_used(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "RENEW_S", 600.0)
    with held(store, "lease", "busy") as lease:
        lease._renewed -= 1.0
        lease.check()
        assert (last_holder(store, "lease") or ELSEWHERE).count == 1
        lease._renewed -= 1.0
        put(store, ELSEWHERE, term=2)
        with pytest.raises(ConflictError):
            lease.check()


def test_nobody_ever_held_it(store: Store) -> None:
    assert last_holder(store, "lease") is None
