"""One writer at a time: a lock that the system lets go of when its process ends, however it ends."""

import fcntl
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ichtune.errors import ConflictError


@contextmanager
def only_one(path: Path, message: str) -> Iterator[None]:
    """Hold the lock file at ``path`` for the length of a block.

    Args:
        path: the lock file; its folder is made.
        message: what to say where another process holds it.

    Raises:
        ConflictError: another process holds the lock.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise ConflictError(message) from error
        yield


def is_held(path: Path) -> bool:
    """Say whether some process holds the lock file at ``path`` now."""
    if not path.is_file():
        return False
    with path.open() as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
    return False
