"""ichtune search: try many recipes on one fold, stop the bad ones early, keep everything."""

import shlex
import sys
import time as clock
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ichtune.cli.options import DEFAULT_PLACE, JsonOption, PlaceOption, QuietOption, work_argument

if TYPE_CHECKING:
    from collections.abc import Callable

    from ichtune.search.running import Running
    from ichtune.search.study import SearchOptions, SearchResult
    from ichtune.space import Space
    from ichtune.workspace import Workspace

SpaceOption = Annotated[str, typer.Option("--space", help="Search space: a YAML file or a shipped one's name.")]
NameOption = Annotated[str | None, typer.Option("--name", help="Name of this search; the space's by default.")]
TrialsOption = Annotated[int | None, typer.Option("--trials", min=1, help="Trials in all; overrides the space.")]
TimeOption = Annotated[
    str | None, typer.Option("--time", help="End this run after 90s, 30m, 6h ...; overrides the space.")
]
GpuHoursOption = Annotated[
    float | None, typer.Option("--gpu-hours", min=1e-6, help="End when so many GPU hours are spent, over all runs.")
]
NoGainOption = Annotated[
    int | None, typer.Option("--until-no-gain", min=1, help="End when so many trials in a row brought no gain.")
]
ConcurrentOption = Annotated[
    int | None, typer.Option("--concurrent", min=1, help="Trials at a time; as many as fit by default.")
]
AddressOption = Annotated[
    str | None,
    typer.Option("--address", help="Ray cluster to join; RAY_ADDRESS counts too. Starts Ray here if unset."),
]
DashboardOption = Annotated[bool, typer.Option(help="Start the Ray dashboard with a Ray that is started here.")]
TensorBoardOption = Annotated[bool, typer.Option(help="Write event files for TensorBoard into the search's folder.")]
MlflowOption = Annotated[
    str | None, typer.Option("--mlflow", metavar="URI", help="Log to this MLflow server or folder too.")
]
StageOption = Annotated[
    str | None,
    typer.Option("--stage", metavar="DIR", help="Copy the data to this folder of each node's own disk first."),
]
DryRunOption = Annotated[bool, typer.Option("--dry-run", help="Say what would be searched and what it would cost.")]
#: Rows of the table at the end.
ROWS = 20
StrictOption = Annotated[bool, typer.Option("--strict", help="Exit with code 6 when some trials failed.")]


def search(
    space: SpaceOption = "windows",
    work: PlaceOption = DEFAULT_PLACE,
    name: NameOption = None,
    trials: TrialsOption = None,
    time: TimeOption = None,
    gpu_hours: GpuHoursOption = None,
    until_no_gain: NoGainOption = None,
    concurrent: ConcurrentOption = None,
    address: AddressOption = None,
    dashboard: DashboardOption = True,
    tensorboard: TensorBoardOption = True,
    mlflow: MlflowOption = None,
    stage: StageOption = None,
    dry_run: DryRunOption = False,
    strict: StrictOption = False,
    as_json: JsonOption = False,
    quiet: QuietOption = False,
) -> None:
    """Search a space of recipes with Ray Tune, Optuna and ASHA.

    An interrupted search goes on with the same command: trials that ended are not run again. With --json one line is
    written for each thing that happens, the last one being the summary.

    Example: ichtune search --space windows.yaml --trials 40
    """
    from ichtune.cli.places import fetch_pixels, open_place
    from ichtune.search.checks import check_data, check_space, inputs_of
    from ichtune.search.study import SearchOptions
    from ichtune.shipped import find_yaml
    from ichtune.space import read_space

    options = SearchOptions(
        name=name,
        n_trials=trials,
        time_s=None if time is None else _time_s(time),
        gpu_hours=gpu_hours,
        until_no_gain=until_no_gain,
        concurrent=concurrent,
        address=address,
        dashboard=dashboard,
        tensorboard=tensorboard,
        mlflow=mlflow,
        stage=stage,
    )
    chosen = read_space(find_yaml(space, "search_spaces"))
    workspace = open_place(work, quiet, stage=stage)
    check_space(workspace, chosen)
    fetch_pixels(workspace, inputs_of(chosen), quiet)
    check_data(workspace, inputs_of(chosen))
    if dry_run:
        _describe(workspace, chosen, options, as_json)
        return
    _finish(_run(workspace, chosen, options, as_json, quiet), chosen, work, quiet, strict)


def _time_s(text: str) -> float:
    from ichtune.errors import ConfigError
    from ichtune.space.settings import read_time_s

    try:
        return read_time_s(text)
    except ConfigError as error:
        raise ConfigError(f"--time {error}") from None


def _describe(workspace: "Workspace", space: "Space", options: "SearchOptions", as_json: bool) -> None:
    """Say what would be searched, on what of this machine; a cluster is not asked."""
    from ichtune.cli.console import result, result_json
    from ichtune.search.dry_run import describe_search
    from ichtune.search.packer import packing_here

    n_concurrent, asked = packing_here(space.resources)
    settled = replace(space, search=options.over(space.search))
    dry = describe_search(workspace, settled, settled.search.concurrent or n_concurrent, asked)
    if as_json:
        result_json(dry.to_dict())
    else:
        result("\n".join(dry.lines()))


def _run(
    workspace: "Workspace", space: "Space", options: "SearchOptions", as_json: bool, quiet: bool
) -> "SearchResult":
    from ichtune.cli.console import note, result
    from ichtune.cli.leaderboard_view import LeaderboardTable
    from ichtune.cli.search_view import JsonLines, SearchView
    from ichtune.search.leaderboard import leaderboard_rows
    from ichtune.search.running import Running
    from ichtune.search.study import run_search
    from ichtune.space.counting import space_size

    size = space_size(space)
    note(f"searching {space.name}: {size.text}, {len(workspace.labelled)} labelled slices", quiet)
    lines = JsonLines()
    n_trials = options.over(space.search).trials
    running = Running()
    with SearchView(n_trials, quiet, _seconds_left(workspace, space, options, running)) as view:
        found = run_search(workspace, space, options, [running, view, *([lines] if as_json else [])], note)
    rows = leaderboard_rows(workspace.layout, found.name)
    if as_json:
        lines.summary(_summary(found, rows))
    else:
        result(LeaderboardTable(rows[:ROWS]))
    return found


def _seconds_left(
    workspace: "Workspace", space: "Space", options: "SearchOptions", running: "Running"
) -> "Callable[[], float | None]":
    """Return what says how long the search takes yet: as its cost model sees it, and no longer than it may."""
    from ichtune.search.cost_model import time_left_s
    from ichtune.search.ledger import Ledger
    from ichtune.search.trial_table import ledger_path

    ledger = Ledger(ledger_path(workspace.layout, options.name or space.name))
    settings, start = options.over(space.search), clock.monotonic()

    def left() -> float | None:
        if not ledger.path.is_file():
            return None
        left_s = time_left_s(ledger.records(), settings.trials, running.n, top=space.train.top)
        if left_s is None or settings.time_s is None:
            return left_s
        return min(left_s, max(0.0, settings.time_s - (clock.monotonic() - start)))

    return left


def _summary(found: "SearchResult", rows: list[dict[str, Any]]) -> dict[str, Any]:
    states = ("finished", "stopped", "failed", "interrupted", "duplicate")
    best = None if found.best is None else {"trial": found.best.trial, "best_loss": found.best.best_loss}
    return {
        "search": found.name,
        "complete": found.complete,
        "why": found.why,
        "trials": {status: found.count(status) for status in states},
        "best": best,
        "leaderboard": rows,
    }


def _finish(found: "SearchResult", space: "Space", work: str | Path, quiet: bool, strict: bool) -> None:
    from ichtune.cli.console import note
    from ichtune.search.levels import search_level

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
    else:
        note(f"the search is complete: {found.why}", quiet)
    note(f"next: ichtune {search_level(space.level).command}{where}", quiet)
    if failed and strict:
        raise typer.Exit(6)
