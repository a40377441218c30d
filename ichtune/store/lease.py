"""Lease: one writer at a time at a URL, where no lock can be held: an object that its owner renews while it lives.

Each owner creates ``<term>.json``, one higher than the last, which S3, GCS, Azure and folders grant to one only, and
renews it. Nobody compares clocks: whoever finds the object of somebody else watches it for as long as two renewals and
more take, and takes over if nothing happens. An owner that was replaced while it slept finds a higher term and stops;
what it writes until then is told by its lower term (see ``journal``).
"""

import json
import logging
import os
import socket
import threading
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from ichtune.errors import ConflictError, StorageError
from ichtune.store.store import Store

#: Seconds between two renewals, and seconds without one after which an owner counts as dead.
RENEW_S, DEAD_AFTER_S = 10.0, 35.0
_LOG = logging.getLogger(__name__)


@dataclass(frozen=True)
class Holder:
    """Who holds a lease, or held it last.

    Attributes:
        owner: a random id of this hold.
        host: name of its machine.
        machine: what tells its processes from those of another machine or container.
        pid: its process.
        renewed_at: when it was renewed last, by its own clock, seconds since 1970; to show, never to decide by.
        count: number of renewals.
        released: it was given back.
    """

    owner: str
    host: str
    machine: str
    pid: int
    renewed_at: float
    count: int = 0
    released: bool = False

    @property
    def is_dead(self) -> bool:
        """Whether it is known to be gone: given back, or a process of this machine that has ended."""
        if self.released:
            return True
        if self.machine != _machine() or self.pid == os.getpid():
            return False
        try:
            os.kill(self.pid, 0)
        except ProcessLookupError:
            return True
        except OSError:
            return False
        return False


def last_holder(store: Store, folder: str) -> Holder | None:
    """Return who holds the lease of a folder, or held it last; None where nobody ever did.

    Raises:
        StorageError: the store cannot be read.
    """
    return _holder(store, folder, max(_terms(store, folder), default=0))


class Lease:
    """A lease that is held until it is released or lost.

    Args:
        store: where it lies.
        folder: its folder there.
        message: what to say where somebody else holds it.
    """

    def __init__(self, store: Store, folder: str, message: str) -> None:
        self._store, self._folder, self._message = store, folder, message
        self._me = Holder(uuid.uuid4().hex, socket.gethostname(), _machine(), os.getpid(), time.time())
        self.term = 0
        self._lost = ""
        self._renewed = 0.0
        self._done = threading.Event()
        self._lock = threading.Lock()
        self._thread = threading.Thread(target=self._renew_until_done, name="lease", daemon=True)

    def acquire(self, above: int = 0) -> None:
        """Take the lease, once whoever had it has given it back or is dead.

        Args:
            above: the term is higher than this, whatever the folder says.

        Raises:
            ConflictError: somebody else holds it.
            StorageError: the store cannot be read or written.
        """
        last = max(_terms(self._store, self._folder), default=0)
        if last:
            self._outwait(last)
        self.term = max(last, above) + 1
        try:
            self._store.write(self._name(self.term), self._content(), is_new=True)
        except FileExistsError as error:
            raise ConflictError(f"{self._message}: another process took it at this very moment") from error
        self._renewed = time.monotonic()
        with suppress(StorageError):
            self._store.remove([self._name(term) for term in _terms(self._store, self._folder) if term < self.term])
        self._thread.start()

    def check(self) -> None:
        """Make sure that it is still held.

        Raises:
            ConflictError: somebody else has taken it.
            StorageError: it could not be renewed for so long that somebody else may have taken it.
        """
        if not self._lost and time.monotonic() - self._renewed > DEAD_AFTER_S:
            self._renew(self._store)
        if self._lost:
            raise ConflictError(f"{self._message}: {self._lost}; this one stops")

    def release(self) -> None:
        """Give it back; where that fails whoever comes next finds out by watching."""
        self._done.set()
        if self._thread.is_alive():
            self._thread.join(timeout=RENEW_S)
        if not self._lost:
            self._me = replace(self._me, released=True)
            with suppress(StorageError):
                self._store.write(self._name(self.term), self._content())

    def _outwait(self, term: int) -> None:
        """Return once the holder of a term is known to be dead."""
        seen = _holder(self._store, self._folder, term)
        if seen is not None and seen.is_dead:
            return
        who = "somebody" if seen is None else f"process {seen.pid} on {seen.host}"
        _LOG.info("%s held %s; watching for up to %.0f s whether it still runs", who, self._folder, DEAD_AFTER_S)
        deadline = time.monotonic() + DEAD_AFTER_S
        while time.monotonic() < deadline:
            time.sleep(min(1.0, RENEW_S / 5))
            now = _holder(self._store, self._folder, term)
            if now is not None and now.is_dead:
                return
            if now != seen or max(_terms(self._store, self._folder), default=0) != term:
                raise ConflictError(f"{self._message}: {who} works on it")

    def _renew_until_done(self) -> None:
        store: Store | None = None
        while not self._done.wait(RENEW_S):
            try:
                store = store or Store(self._store.url)  # connections are not shared between threads
                self._renew(store)
            except StorageError as error:
                _LOG.warning("%s; trying again", error)
            if self._lost:
                return

    def _renew(self, store: Store) -> None:
        with self._lock:
            if max(_terms(store, self._folder), default=0) > self.term:
                self._lost = "somebody else has taken it over"
                return
            self._me = replace(self._me, count=self._me.count + 1, renewed_at=time.time())
            store.write(self._name(self.term), self._content())
            self._renewed = time.monotonic()

    def _name(self, term: int) -> str:
        return f"{self._folder}/{term:06d}.json"

    def _content(self) -> bytes:
        return json.dumps(asdict(self._me), sort_keys=True).encode()


@contextmanager
def held(store: Store, folder: str, message: str, above: int = 0) -> Iterator[Lease]:
    """Hold the lease of a folder for the length of a block.

    Args:
        store: where it lies.
        folder: its folder there.
        message: what to say where somebody else holds it.
        above: the term is higher than this.

    Raises:
        ConflictError: somebody else holds it.
        StorageError: the store cannot be read or written.
    """
    lease = Lease(store, folder, message)
    lease.acquire(above)
    try:
        yield lease
    finally:
        lease.release()


def _terms(store: Store, folder: str) -> list[int]:
    names = (name.removesuffix(".json") for name in store.files(folder))
    return [int(name) for name in names if name.isdigit()]


def _holder(store: Store, folder: str, term: int) -> Holder | None:
    content = store.read(f"{folder}/{term:06d}.json")
    try:
        return Holder(**json.loads(content or b"null"))
    except (ValueError, TypeError):
        return None


def _machine() -> str:
    """Return what processes that can see each other share: the boot of a machine and, in it, a container."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        return f"{boot} {os.readlink('/proc/self/ns/pid')}"
    except OSError:
        return socket.gethostname()
