"""``ichtune report``: one HTML file about everything in a workspace."""

from pathlib import Path
from typing import Annotated

import typer

from ichtune.cli.console import note, result, result_json
from ichtune.cli.options import DEFAULT_PLACE, JsonOption, PlaceOption, QuietOption


def report(
    work: PlaceOption = DEFAULT_PLACE,
    out: Annotated[Path | None, typer.Option(help="The HTML file to write.", show_default="WORK/report.html")] = None,
    as_json: JsonOption = False,
    quiet: QuietOption = False,
) -> None:
    """Write one HTML page: scores, blend, search, runs, data, and how it was all made.

    The page needs no network and no script. What the workspace does not hold yet is said on the page.

    Example: ichtune report --work ./ichtune-work
    """
    from ichtune.cli.places import fetch_pixels, open_place, put_back
    from ichtune.report.page import write_report

    workspace = open_place(work, quiet, with_runs=True)
    fetch_pixels(workspace, quiet=quiet)
    written = write_report(workspace, out)
    put_back(workspace, [written.path], quiet)
    if as_json:
        result_json({"report": str(written.path), "bytes": written.n_bytes, "missing": written.missing})
        return
    for sentence in dict.fromkeys(written.missing.values()):
        note(sentence, quiet)
    if quiet:
        return
    result(f"Wrote {written.path} ({written.n_bytes / 1024:,.0f} kB).")
    result(f"Next: open {written.path} in a browser.")
