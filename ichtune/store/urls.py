"""Telling a URL from a path, and what a URL is called on this machine. Imports nothing heavy: every command asks."""

import hashlib
import re
from pathlib import Path

_URL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://")
#: Characters of the hash that tells two URLs apart in a folder's name.
_HASH_DIGITS = 12
_READABLE_LENGTH = 48


def is_url(place: str | Path) -> bool:
    """Say whether a place is written as a URL, ``protocol://...``, and not as a path.

    Example:
        >>> is_url("s3://bucket/ct"), is_url("./ct")
        (True, False)
    """
    return bool(_URL.match(str(place)))


def folder_name(url: str) -> str:
    """Return a folder name for a URL: readable, and no other URL's.

    Example:
        >>> folder_name("s3://bucket/head ct/")
        'bucket-head-ct-56087746d37e'
    """
    url = url.rstrip("/")
    readable = re.sub(r"[^A-Za-z0-9._]+", "-", _URL.sub("", url)).strip("-.")[-_READABLE_LENGTH:]
    return f"{readable}-{hashlib.sha256(url.encode()).hexdigest()[:_HASH_DIGITS]}".lstrip("-.")
