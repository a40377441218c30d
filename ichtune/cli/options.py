"""Options that several commands share, defined once so that they are spelt and explained the same way."""

from pathlib import Path
from typing import Annotated

import typer

#: Where a workspace lies unless ``--work``, ``ICHTUNE_WORK`` or ``ichtune.toml`` says otherwise.
DEFAULT_WORK = Path("ichtune-work")

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
