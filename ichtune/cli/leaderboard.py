"""ichtune leaderboard: the trials of a workspace, ranked."""

from typing import Annotated

import typer

from ichtune.cli.options import DEFAULT_WORK, JsonOption, WorkOption, work_argument


def leaderboard(
    work: WorkOption = DEFAULT_WORK,
    search: Annotated[str | None, typer.Option("--search", help="Only the trials of this search.")] = None,
    top: Annotated[int | None, typer.Option("--top", min=1, help="Only the best so many.")] = None,
    as_json: JsonOption = False,
) -> None:
    """Rank the trials by validation weighted log loss, best first. Works while a search runs.

    Example: ichtune leaderboard --top 10
    """
    from ichtune.cli.console import note, result, result_json
    from ichtune.cli.search_view import leaderboard_table
    from ichtune.search.trial_table import leaderboard as ranked
    from ichtune.workspace import Workspace

    workspace = Workspace(work)
    _ = workspace.about
    rows = ranked(workspace.layout, search)[:top]
    if as_json:
        result_json(rows)
        return
    result(leaderboard_table(rows))
    for row in rows:
        if row["reason"]:
            note(f"trial {row['trial']} failed: {row['reason']}")
    note(f"next: ichtune train{work_argument(work)}")
