"""ichtune search: try many recipes on one fold, stop the bad ones early, keep everything."""

import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ichtune.cli.options import DEFAULT_WORK, JsonOption, QuietOption, WorkOption, work_argument

if TYPE_CHECKING:
    from ichtune.search.study import SearchResult


def search(
    space: Annotated[
        str, typer.Option("--space", help="Search space: a YAML file or a shipped one's name.")
    ] = "windows",
    work: WorkOption = DEFAULT_WORK,
    name: Annotated[str | None, typer.Option("--name", help="Name of this search; the space's by default.")] = None,
    trials: Annotated[int | None, typer.Option("--trials", min=1, help="Trials in all; overrides the space.")] = None,
    time: Annotated[str | None, typer.Option("--time", help="End after 90s, 30m, 6h ...; overrides the space.")] = None,
    concurrent: Annotated[
        int | None, typer.Option("--concurrent", min=1, help="Trials at a time; as many as fit by default.")
    ] = None,
    address: Annotated[
        str | None,
        typer.Option("--address", help="Ray cluster to join; RAY_ADDRESS counts too. Starts Ray here if unset."),
    ] = None,
    dashboard: Annotated[bool, typer.Option(help="Start the Ray dashboard with a Ray that is started here.")] = True,
    strict: Annotated[bool, typer.Option("--strict", help="Exit with code 6 when some trials failed.")] = False,
    as_json: JsonOption = False,
    quiet: QuietOption = False,
) -> None:
    """Search a space of recipes with Ray Tune, Optuna and ASHA.

    An interrupted search goes on with the same command: trials that ended are not run again.

    Example: ichtune search --space windows.yaml --trials 40
    """
    from ichtune.cli.console import note, result, result_json
    from ichtune.cli.search_view import SearchView
    from ichtune.search.study import SearchOptions, check_data, check_space, inputs_of, run_search
    from ichtune.search.trial_table import leaderboard
    from ichtune.shipped import find_yaml
    from ichtune.space import n_configurations, read_space
    from ichtune.space.settings import read_time_s
    from ichtune.workspace import Workspace

    chosen = read_space(find_yaml(space, "search_spaces"))
    workspace = Workspace(work)
    check_space(workspace, chosen)
    check_data(workspace, inputs_of(chosen))
    time_s = None if time is None else read_time_s(time)
    options = SearchOptions(name, trials, time_s, concurrent, address, dashboard)
    count = n_configurations(chosen)
    size = f"{count:,.0f} configurations" if count < 1e12 else "a continuous space"
    note(f"searching {chosen.name}: {size}, {len(workspace.labelled)} labelled slices", quiet)
    with SearchView(options.n_trials or chosen.search.trials, quiet) as view:
        found = run_search(workspace, chosen, options, view.started, view.event)
    rows = leaderboard(workspace.layout, found.name)
    if as_json:
        result_json(_summary(found, rows))
    else:
        result(view.table(rows))
    _finish(found, work, quiet, strict)


def _summary(found: "SearchResult", rows: list[dict[str, Any]]) -> dict[str, Any]:
    states = {status: found.count(status) for status in ("finished", "stopped", "failed", "interrupted")}
    best = None if found.best is None else {"trial": found.best.trial, "best_loss": found.best.best_loss}
    return {
        "search": found.name,
        "complete": found.complete,
        "trials": states,
        "best": best,
        "leaderboard": rows,
    }


def _finish(found: "SearchResult", work: Path, quiet: bool, strict: bool) -> None:
    from ichtune.cli.console import note

    where = work_argument(work)
    failed = found.count("failed")
    if failed:
        note(f"{failed} of {len(found.records)} trials failed; `ichtune leaderboard{where}` gives the reasons")
    if not found.complete:
        ended = len(found.records) - found.count("interrupted")
        why = "its time is up" if found.time_is_up else "interrupted"
        note(f"{why}: {ended} of {found.n_trials} trials have ended; the same command continues the search:")
        note(f"  {shlex.join(['ichtune', *sys.argv[1:]])}")
        if not found.time_is_up:
            raise typer.Exit(130)
    note(f"next: ichtune train{where}", quiet)
    if failed and strict:
        raise typer.Exit(6)
