"""``ichtune score``: the competition's metric of a submission, where the truth is known."""

from pathlib import Path
from typing import Annotated, Any

import typer

from ichtune.cli.console import result, result_json
from ichtune.cli.options import DEFAULT_WORK, JsonOption, QuietOption, WorkOption


def score(
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

    Example: ichtune score submission.csv --truth truth.csv
    """
    from ichtune.report.scoring import add_test_losses, score_submission

    scored: dict[str, Any] = score_submission(submission, truth)
    if ladder:
        from ichtune.workspace import Workspace

        scored["ladder"] = add_test_losses(Workspace(work), submission, truth)
    if as_json:
        result_json(scored)
        return
    if quiet:
        result(f"{scored['weighted_log_loss']:.6f}")
        return
    _show(scored)


def _show(scored: dict[str, Any]) -> None:
    from ichtune.cli.blend import ladder_table

    if "ladder" in scored:
        result(ladder_table(scored["ladder"]))
        result(_verdict(scored["ladder"]))
    for label, loss in scored["per_label"].items():
        result(f"{label:17s} {loss:.5f}")
    result(f"{'weighted log loss':17s} {scored['weighted_log_loss']:.5f} on {scored['n']} slices")


def _verdict(rows: list[dict[str, Any]]) -> str:
    """Say whether the blend's test loss lies where its cross-fitted estimate said it should."""
    row = next(row for row in rows if row["name"] == "blend")
    low, high = row["expected_test_low"], row["expected_test_high"]
    inside = low is not None and low <= row["test_loss"] <= high
    where = "inside" if inside else "OUTSIDE"
    return f"The blend's test loss {row['test_loss']:.5f} lies {where} the expected {low:.5f} to {high:.5f}."
