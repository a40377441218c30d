"""Every deliberate error of ichtune, each with the exit code that the command line ends with.

An error message says what is wrong, what was got, what was expected and what to do next, in one string.
"""

from collections.abc import Iterable
from difflib import get_close_matches


class IchtuneError(Exception):
    """Base of every deliberate error; ``exit_code`` is what a command returns when it meets one."""

    exit_code = 1


class ConfigError(IchtuneError):
    """A setting, option, recipe, search space or ensemble file that cannot be used as written."""

    exit_code = 2


class DataError(IchtuneError):
    """Data that is missing, unreadable or of the wrong kind."""

    exit_code = 3


class ConflictError(IchtuneError):
    """Labels, ids or fold plans that contradict each other."""

    exit_code = 4


class StorageError(IchtuneError):
    """A disk that is full, or a path that may not be read or written."""

    exit_code = 5


class NothingUsableError(IchtuneError):
    """Work ended without one usable result: no readable slice, no finished trial, no member."""

    exit_code = 7


def nearest(name: str, known: Iterable[str]) -> str:
    """Say which known name a misspelt one most likely meant, and list the known names.

    Args:
        name: what was written.
        known: the names that would have been right.

    Returns:
        ``"Did you mean 'x'? Known: x, y, z."``; without a near match only the list.
    """
    names = sorted(str(k) for k in known)
    close = get_close_matches(str(name), names, n=1, cutoff=0.5)
    hint = f"Did you mean {close[0]!r}? " if close else ""
    return f"{hint}Known: {', '.join(names)}."
