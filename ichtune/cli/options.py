"""Options that several commands share, defined once so that they are spelt and explained the same way."""

import os
import shlex
from pathlib import Path
from typing import Annotated

import typer

from ichtune.errors import ConfigError
from ichtune.store.urls import is_url

#: Where a workspace lies unless ``--work``, ``ICHTUNE_WORK`` or ``ichtune.toml`` says otherwise.
DEFAULT_WORK = Path("ichtune-work")
DEFAULT_PLACE = str(DEFAULT_WORK)


def work_argument(work: str | Path) -> str:
    """Return `` --work PATH`` for the next command's line, or nothing where that command would find it by itself."""
    known = Path(work) == DEFAULT_WORK or str(work) == os.environ.get("ICHTUNE_WORK")
    return "" if known else f" --work {shlex.quote(str(work))}"


def folder(given: str | Path) -> Path:
    """Return the path that was given, where a folder of this machine is needed.

    Raises:
        ConfigError: it is a URL.
    """
    if is_url(given):
        raise ConfigError(
            f"{given} is a URL, and this command works on a folder of this machine. Copy the workspace to one first "
            f"(for S3: aws s3 sync {given} FOLDER) and name that; only search, train, stack, blend, report and "
            f"leaderboard take a URL"
        )
    return Path(given)


WorkOption = Annotated[
    Path,
    typer.Option(
        "--work",
        envvar="ICHTUNE_WORK",
        help="Workspace folder, made by `ichtune prepare`.",
        parser=folder,
        metavar="PATH",
        show_default=True,
    ),
]
#: ``--work`` of the commands that work on a workspace wherever it lies; a URL stays as it is written.
PlaceOption = Annotated[
    str,
    typer.Option(
        "--work",
        envvar="ICHTUNE_WORK",
        help="Workspace folder, made by `ichtune prepare`, or the URL of one: s3://bucket/prefix, sftp://, ...",
        metavar="PATH|URL",
        show_default=True,
    ),
]
JsonOption = Annotated[bool, typer.Option("--json", help="Write the result to stdout as JSON, for scripts.")]
QuietOption = Annotated[bool, typer.Option("--quiet", "-q", help="No progress and no notes; errors only.")]
