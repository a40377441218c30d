"""ichtune leaderboard: the trials of a workspace, ranked, and what their parameters decided."""

from typing import TYPE_CHECKING, Annotated, Any

import typer

from ichtune.cli.options import DEFAULT_PLACE, JsonOption, PlaceOption, work_argument
from ichtune.errors import ConfigError, nearest

if TYPE_CHECKING:
    from ichtune.search.ledger import TrialRecord

SearchOption = Annotated[str | None, typer.Option("--search", help="Only the trials of this search.")]
TopOption = Annotated[int | None, typer.Option("--top", min=1, help="Only the first so many.")]
SortOption = Annotated[
    str | None,
    typer.Option("--sort", metavar="KEY", help="Sort by a column or a searched parameter; -KEY from large to small."),
]
ReverseOption = Annotated[bool, typer.Option("--reverse", help="From large to small, or the ranking upside down.")]
FilterOption = Annotated[
    list[str] | None,
    typer.Option(
        "--filter",
        metavar="TEXT",
        help="Only rows for which it holds: 'lr<1e-3', 'windows=brain'; = != < <= > >=. May be repeated.",
    ),
]
StatusOption = Annotated[
    list[str] | None, typer.Option("--status", help="Only trials in this state. May be repeated.", metavar="STATE")
]
ImportanceOption = Annotated[
    bool, typer.Option("--importance", help="Show which searched parameters decided instead of the trials.")
]


def leaderboard(
    work: PlaceOption = DEFAULT_PLACE,
    search: SearchOption = None,
    top: TopOption = None,
    sort: SortOption = None,
    reverse: ReverseOption = False,
    filters: FilterOption = None,
    status: StatusOption = None,
    importance: ImportanceOption = False,
    as_json: JsonOption = False,
) -> None:
    """Rank the trials, finished ones first. Works while a search runs.

    Example: ichtune leaderboard --filter 'windows=brain' --sort lr --top 10
    """
    from ichtune.cli.console import note, result, result_json
    from ichtune.cli.leaderboard_view import LeaderboardTable
    from ichtune.cli.places import open_place
    from ichtune.search.leaderboard import RowFilter, filter_rows, in_vain, leaderboard_rows, sort_rows
    from ichtune.search.trial_table import chosen_records

    wanted = [RowFilter.parse(text) for text in filters or []]
    _check_status(status or [])
    workspace = open_place(work, quiet=True)
    _ = workspace.about
    if importance:
        if sort or reverse or filters or status or top:
            raise ConfigError("--importance looks at whole searches: leave out --sort, --filter, --status and --top")
        _show_importance(chosen_records(workspace.layout, search), as_json)
        return
    every = leaderboard_rows(workspace.layout, search)
    rows = filter_rows(every, wanted)
    for line in in_vain(every, wanted):
        note(line)
    rows = [row for row in rows if not status or row["status"] in status]
    if sort:
        rows = sort_rows(rows, sort, reverse)
    elif reverse:
        rows.reverse()
    rows = rows[:top]
    if as_json:
        result_json(rows)
        return
    result(LeaderboardTable(rows))
    for row in rows:
        if row["reason"]:
            note(f"trial {row['trial']} failed: {row['reason']}")
    for line in _savings(chosen_records(workspace.layout, search)):
        note(line)
    note(f"next: ichtune {_next_command(chosen_records(workspace.layout, search))}{work_argument(work)}")


def _next_command(searches: "dict[str, list[TrialRecord]]") -> str:
    """The command that takes winners: of the first level, unless there are only others."""
    from ichtune.search.levels import search_level
    from ichtune.space.levels import level_of_recipe

    levels = {level_of_recipe(record.recipe).number for records in searches.values() for record in records}
    return search_level(min(levels, default=1)).command


def _check_status(wanted: list[str]) -> None:
    from ichtune.search.ledger import DUPLICATE, FAILED, FINISHED, INTERRUPTED, STOPPED
    from ichtune.search.trial_table import RUNNING

    known = (FINISHED, STOPPED, FAILED, RUNNING, INTERRUPTED, DUPLICATE)
    for one in wanted:
        if one not in known:
            raise ConfigError(f"--status {one!r} is no state of a trial. {nearest(one, known)}")


def _savings(searches: "dict[str, list[TrialRecord]]") -> list[str]:
    """A line for each search that stopped a trial."""
    from ichtune.cli.leaderboard_view import savings_line
    from ichtune.search.cost_model import CostModel, saved_by_stopping

    lines = []
    for name, records in searches.items():
        model = CostModel.fit(records)
        line = savings_line(saved_by_stopping(records, model), model.typical_error, len(records))
        if line:
            lines.append(f"search {name}: {line}")
    return lines


def _show_importance(searches: "dict[str, list[TrialRecord]]", as_json: bool) -> None:
    from ichtune.cli.console import note, result, result_json
    from ichtune.cli.leaderboard_view import importance_table
    from ichtune.search.importance import IMPORTANCES, N_SHUFFLES, parameter_importances

    told: list[dict[str, Any]] = []
    for name, records in searches.items():
        found = [parameter_importances(records, method) for method in IMPORTANCES]
        told += [{"search": name, **vars(one)} for one in found]
        if as_json:
            continue
        if any(one.shares for one in found):
            result(importance_table(found))
        for one in found:
            shown = f"{one.n_trials} trials by their {one.what}: {IMPORTANCES[one.method].meaning}"
            note(f"search {name}, {one.method}: " + "; ".join(part for part in (shown, one.note) if part))
        if any(one.shares for one in found):
            note(
                f"  * more than in any of {N_SHUFFLES} shuffles of the losses; a share without it, chance gives as well"
            )
    if as_json:
        result_json(told)
