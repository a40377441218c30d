"""ichtune ensemble: what a blend can be made of, and predictions that were made elsewhere."""

import shlex
from pathlib import Path
from typing import Annotated

import typer

from ichtune.cli.options import DEFAULT_WORK, JsonOption, QuietOption, WorkOption, work_argument

ensemble = typer.Typer(
    name="ensemble",
    help="Bring predictions that were made elsewhere, and list what a blend can be made of.\n\n"
    "Example: ichtune ensemble add oof.csv --name resnet --fold-plan this --test test.csv",
    no_args_is_help=True,
    rich_markup_mode=None,
)


@ensemble.command()
def add(
    file: Annotated[Path, typer.Argument(help="Out-of-fold predictions, CSV or parquet.", show_default=False)],
    name: Annotated[str, typer.Option(help="What to call this member.", show_default=False)],
    fold_plan: Annotated[
        str,
        typer.Option(
            "--fold-plan",
            metavar="HASH|this|FILE",
            help="The folds that it was trained on: the plan's hash, `this` if you vouch that they are the "
            "workspace's, or a file with patient_id and fold.",
            show_default=False,
        ),
    ],
    test: Annotated[
        Path | None,
        typer.Option(help="Its predictions of the slices without a label; a column fold tells fold models apart."),
    ] = None,
    work: WorkOption = DEFAULT_WORK,
    as_json: JsonOption = False,
    quiet: QuietOption = False,
) -> None:
    """Check predictions that were made elsewhere, and keep them as a run that blends like any other.

    FILE has a row a slice (image_id, p_any, ... or any, ...) or a row a slice and label (ID_xxx_any,probability).

    Example: ichtune ensemble add oof.csv --name resnet --fold-plan folds.csv --test test.csv
    """
    from dataclasses import asdict

    from ichtune.cli.console import note, result, result_json
    from ichtune.ensemble.members.foreign import add_predictions
    from ichtune.workspace import Workspace

    added = add_predictions(Workspace(work), file, name, fold_plan, test)
    for line in added.notes:
        note(line, quiet)
    if as_json:
        result_json(asdict(added))
        return
    result(
        f"{'Added' if added.is_new else 'Kept'} {added.name} as run {added.recipe_id}: out-of-fold loss "
        f"{added.oof_loss:.5f} on {added.n_slices} labelled slices; {added.n_test_slices} slices without a label"
    )
    note(f"next: ichtune blend{work_argument(work)}", quiet)


@ensemble.command("list")
def list_members(work: WorkOption = DEFAULT_WORK, as_json: JsonOption = False, quiet: QuietOption = False) -> None:
    """List the complete runs, trained here or added: what `members` in an ensemble file may name.

    Example: ichtune ensemble list
    """
    from ichtune.cli.console import note, result, result_json
    from ichtune.ensemble.members.foreign import member_rows
    from ichtune.errors import DataError
    from ichtune.workspace import Workspace

    rows = member_rows(Workspace(work))
    if as_json:
        result_json(rows)
        return
    if not rows:
        raise DataError(f"no complete run in {work}: run `ichtune train` or `ichtune ensemble add` first")
    for row in rows:
        kind = "added  " if row["foreign"] else "trained"
        result(f"{row['recipe_id']}  {kind}  out-of-fold {row['oof_loss']:.5f}  {row['name']}")
    note(f"next: ichtune blend{work_argument(work)}", quiet)


@ensemble.command()
def remove(
    name: Annotated[str, typer.Argument(help="What it was called, or its recipe_id.", show_default=False)],
    work: WorkOption = DEFAULT_WORK,
    quiet: QuietOption = False,
) -> None:
    """Remove predictions that were added; runs that were trained here stay.

    Example: ichtune ensemble remove resnet
    """
    from ichtune.cli.console import note
    from ichtune.ensemble.members.foreign import remove_predictions
    from ichtune.workspace import Workspace

    recipe_id = remove_predictions(Workspace(work), name)
    note(f"removed run {recipe_id} ({shlex.quote(name)}); blends that it took part in stay as they are", quiet)
    note(f"next: ichtune blend{work_argument(work)}", quiet)
