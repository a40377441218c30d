"""Options that several commands share, defined once so that they are spelt and explained the same way."""

import os
import shlex
from pathlib import Path
from typing import Annotated

import typer

#: Where a workspace lies unless ``--work``, ``ICHTUNE_WORK`` or ``ichtune.toml`` says otherwise.
DEFAULT_WORK = Path("ichtune-work")


def work_argument(work: Path) -> str:
    """Return `` --work PATH`` for the next command's line, or nothing where that command would find it by itself."""
    known = work == DEFAULT_WORK or str(work) == os.environ.get("ICHTUNE_WORK")
    return "" if known else f" --work {shlex.quote(str(work))}"


WorkOption = Annotated[
    Path,
    typer.Option(
        "--work",
        envvar="ICHTUNE_WORK",
        help="Workspace folder, made by `ichtune prepare`.",
        file_okay=True,
        show_default=True,
    ),
]
JsonOption = Annotated[bool, typer.Option("--json", help="Write the result to stdout as JSON, for scripts.")]
QuietOption = Annotated[bool, typer.Option("--quiet", "-q", help="No progress and no notes; errors only.")]
