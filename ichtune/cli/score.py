"""``ichtune score``: the competition's metric of a submission, where the truth is known."""

from pathlib import Path
from typing import Annotated, Any

import typer

from ichtune.cli.console import note, result, result_json
from ichtune.cli.options import DEFAULT_WORK, JsonOption, QuietOption, WorkOption, work_argument


def score(
    context: typer.Context,
    submission: Annotated[Path, typer.Argument(help="CSV with ID,Label: probabilities.", show_default=False)],
    truth: Annotated[Path, typer.Option(help="CSV with ID,Label: 0 or 1.", show_default=False)],
    ladder: Annotated[
        bool,
        typer.Option("--ladder", help="Score every rung of the workspace's ladder.json too, and rewrite it."),
    ] = False,
    work: WorkOption = DEFAULT_WORK,
    as_json: JsonOption = False,
    quiet: QuietOption = False,
) -> None:
    """Score a submission against the truth: weighted log loss, joined by ID.

    With --json, "generated": true where the truth or the named workspace is a phantom's.

    Example: ichtune score submission.csv --truth truth.csv
    """
    from ichtune.report.scoring import add_test_losses, score_submission

    scored: dict[str, Any] = score_submission(submission, truth)
    if ladder:
        from ichtune.workspace import Workspace

        scored["ladder"] = add_test_losses(Workspace(work), submission, truth)
    source = context.get_parameter_source("work")
    is_named = ladder or (source is not None and source.name != "DEFAULT")
    if _is_generated(truth, work if is_named else None):
        scored["generated"] = True
    if as_json:
        result_json(scored)
        return
    if quiet:
        result(f"{scored['weighted_log_loss']:.6f}")
        return
    _show(scored)
    note(f"next: ichtune report{work_argument(work)}")


def _is_generated(truth: Path, work: Path | None) -> bool:
    from ichtune.data.phantom.folder import MANIFEST
    from ichtune.workspace import Workspace

    if (truth.resolve().parent / MANIFEST).is_file():
        return True
    if work is None or not Workspace(work).layout.workspace_json.is_file():
        return False
    return bool(Workspace(work).about.get("generated"))


def _show(scored: dict[str, Any]) -> None:
    from ichtune.cli.blend import ladder_table
    from ichtune.data.phantom.folder import GENERATED_DATA

    is_generated = "generated" in scored
    if "ladder" in scored:
        result(ladder_table(scored["ladder"], is_generated=is_generated))
        result(_verdict(scored["ladder"]))
    for label, loss in scored["per_label"].items():
        result(f"{label:17s} {loss:.5f}")
    of = f" of {GENERATED_DATA}" if is_generated else ""
    result(f"{'weighted log loss':17s} {scored['weighted_log_loss']:.5f} on {scored['n']} slices{of}")


def _verdict(rows: list[dict[str, Any]]) -> str:
    """Say whether the blend's test loss lies where its cross-fitted estimate said it should."""
    row = next(row for row in rows if row["name"] == "blend")
    low, high = row["expected_test_low"], row["expected_test_high"]
    if low is None or high is None:
        return f"The blend's test loss is {row['test_loss']:.5f}; without unlabelled patients none was expected."
    where = "inside" if low <= row["test_loss"] <= high else "OUTSIDE"
    return f"The blend's test loss {row['test_loss']:.5f} lies {where} the expected {low:.5f} to {high:.5f}."
