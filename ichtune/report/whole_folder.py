"""A folder that is written whole or not at all, and takes the place of an older one only at the end."""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ichtune.errors import StorageError


def beside(out: Path, what: str) -> Path:
    """Return a name beside the folder itself, which ``out`` may only link to, so that renaming moves no data."""
    out = out.resolve()
    return out.with_name(f".{out.name}.{os.getpid()}.{what}")


@contextmanager
def whole_folder(out: Path, kind: str) -> Iterator[Path]:
    """Give a folder beside ``out`` to write into, which takes its name when the block ends well and goes otherwise.

    What lay at ``out`` goes only after the new folder has taken its place.

    Args:
        out: the folder to make.
        kind: what it is, for messages.

    Raises:
        StorageError: the disk is full, or ``out`` may not be written; what lay there still does, or is named.
    """
    new, old, out = beside(out, "new"), beside(out, "old"), out.resolve()
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        new.mkdir()
        yield new
        if out.exists():
            out.rename(old)
        new.rename(out)
    except OSError as error:
        raise StorageError(f"cannot write the {kind} {out}: {error.strerror or error}") from error
    finally:
        shutil.rmtree(new, ignore_errors=True)
        if out.exists():
            shutil.rmtree(old, ignore_errors=True)
        elif old.exists():
            _put_back(old, out, kind)


def _put_back(old: Path, out: Path, kind: str) -> None:
    try:
        old.rename(out)
    except OSError as error:
        raise StorageError(
            f"cannot write the {kind} {out}, nor put back the one that lay there: {error.strerror or error}; it is "
            f"whole and lies in {old}"
        ) from error
