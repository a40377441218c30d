"""``ichtune blend``: combine the runs into one submission, and say honestly what it is worth."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ichtune.cli.console import note, result, result_json
from ichtune.cli.options import DEFAULT_PLACE, JsonOption, PlaceOption, QuietOption, work_argument

if TYPE_CHECKING:
    from ichtune.ensemble.blend import BlendResult
    from ichtune.report.submission import SubmissionResult
    from ichtune.workspace import Workspace

DEFAULT_ENSEMBLE = "auto"


def blend(
    work: PlaceOption = DEFAULT_PLACE,
    ensemble: Annotated[
        str, typer.Option(help="An ensemble file, or the name of a shipped one: auto, rsna, greedy, mean, demo.")
    ] = DEFAULT_ENSEMBLE,
    out: Annotated[Path | None, typer.Option(help="The CSV to write.", show_default="WORK/submission.csv")] = None,
    as_json: JsonOption = False,
    quiet: QuietOption = False,
) -> None:
    """Blend every trained run into one submission, scored cross-fitted by patient.

    Writes blends/<blend_id>/, ladder.json and submission.csv into the workspace.

    Example: ichtune blend --work ./ichtune-work --ensemble mean
    """
    import numpy as np

    from ichtune.cli.places import open_place, put_back
    from ichtune.ensemble.blend import run_blend
    from ichtune.ensemble.spec import read_spec
    from ichtune.report.submission import submission_rows, write_submission
    from ichtune.shipped import find_yaml
    from ichtune.tables import check_writable

    spec = read_spec(find_yaml(ensemble, "ensembles"))
    workspace = open_place(work, quiet, with_runs=True)
    check_writable(out or workspace.layout.submission)
    submission_rows(workspace, np.array([], dtype=object))  # a sample that cannot be filled is refused before the work
    blended = run_blend(workspace, spec)
    _notes_on_members(blended, quiet)
    submission = None
    if len(blended.panel.test_image_ids):
        submission = write_submission(workspace, blended.panel.test_image_ids, blended.p_test_TL, out)
    _notes_on_submission(submission, quiet)
    made = [workspace.layout.blends / blended.blend_id, workspace.layout.ladder]
    put_back(workspace, [*made, *([submission.path] if submission else [])], quiet)
    if as_json:
        result_json({**_as_json(blended, submission), "generated": bool(workspace.about.get("generated"))})
    elif not quiet:
        _show(blended, submission, workspace)


def _as_json(blended: "BlendResult", submission: "SubmissionResult | None") -> dict[str, Any]:
    from dataclasses import asdict

    return {
        "blend_id": blended.blend_id,
        "ladder": blended.ladder,
        "weights": blended.weights,
        "tried": [asdict(tried) for tried in blended.tried],
        "post_processing": [asdict(gain) for gain in blended.gains],
        "rates": blended.rates,
        "differences": {name: asdict(interval) for name, interval in blended.differences.items()},
        "scores": blended.scores,
        "optimism": {name: asdict(one) for name, one in blended.optimism.items()},
        "members_compared": [asdict(one) for one in blended.members_compared],
        "ways_compared": [asdict(one) for one in blended.ways_compared],
        "members": [asdict(member) for member in blended.panel.members],
        "collapsed": blended.panel.collapsed,
        "unfinished": list(blended.panel.unfinished),
        "suspicions": [asdict(suspicion) for suspicion in blended.panel.suspicions],
        "alike": [asdict(pair) for pair in blended.panel.alike],
        "submission": str(submission.path) if submission else None,
        "n_rows": submission.n_rows if submission else 0,
        "n_filled": submission.n_filled if submission else 0,
        "filled": submission.filled if submission else {},
    }


def _notes_on_members(blended: "BlendResult", quiet: bool) -> None:
    for recipe_id, kept in blended.panel.collapsed.items():
        note(f"run {recipe_id} predicts what {kept} does, but for rounding, and was left out", quiet)
    for recipe_id in blended.panel.unfinished:
        note(
            f"run {recipe_id} was left out: not every fold is trained, `ichtune train` continues it",
            quiet,
        )
    for line in blended.panel.warnings:
        note(line, quiet)


def _notes_on_submission(submission: "SubmissionResult | None", quiet: bool) -> None:
    if submission is None:
        note("no unlabelled slices: no submission was written", quiet)
    elif submission.n_filled:
        reasons = ", ".join(f"{code} {n}" for code, n in submission.filled_by_reason.items())
        named = ", ".join(list(submission.filled)[:5]) + (", ..." if submission.n_filled > 5 else "")
        note(
            f"{submission.n_filled} of {submission.n_slices} slices have no prediction and got the training "
            f"rate of each label ({reasons}): {named}",
            quiet,
        )
    if submission is not None and submission.n_unused:
        note(
            f"{submission.n_unused} predicted slices are not in the sample submission and were left out",
            quiet,
        )


def _show(blended: "BlendResult", submission: "SubmissionResult | None", workspace: "Workspace") -> None:
    from ichtune.report.score_facts import search_caveat

    result(ladder_table(blended.ladder, is_generated=bool(workspace.about.get("generated"))))
    _show_tried(blended)
    _show_weights(blended)
    _show_steps(blended)
    _show_scores(blended)
    caveat = search_caveat({"searches": blended.panel.searches})
    if caveat:
        result(caveat)
    row = next(row for row in blended.ladder if row["name"] == "blend")
    second = blended.differences.get("without_second_level")
    if second is not None:
        result(
            f"The second level: {second.estimate:+.5f} against the blend without it, {second.low:+.5f} to "
            f"{second.high:+.5f}."
        )
    gain = blended.differences["best_single"]
    result(
        f"Cross-fitted loss {row['crossfit_loss']:.5f}, 95 % interval {_interval(row, 'crossfit')}; "
        f"against the best single run {gain.estimate:+.5f}, {gain.low:+.5f} to {gain.high:+.5f}."
    )
    if row["expected_test_low"] is not None:
        n_patients = blended.panel.n_test_patients
        result(f"On {n_patients} new patients like these: {_interval(row, 'expected_test')} in 95 of 100 cases.")
    if submission is not None:
        result(f"Wrote {submission.path}: {submission.n_rows} rows, {submission.n_filled} slices filled.")
    result(f"Next: ichtune report{work_argument(workspace.origin or workspace.layout.root)}")


def ladder_table(rows: list[dict[str, Any]], *, is_generated: bool) -> Any:
    """Return the ladder as a rich table; its title says so where the data is generated."""
    from rich.table import Table

    from ichtune.data.phantom.folder import GENERATED_DATA

    on = f" on {GENERATED_DATA}" if is_generated else ""
    table = Table(title=f"Weighted log loss{on}, lower is better (95 % patient bootstrap)")
    table.add_column("name", overflow="fold")
    for column in ("in sample", "cross-fitted", "interval", "expected on test", "test"):
        table.add_column(column, justify="right")
    for row in rows:
        table.add_row(
            row["name"],
            _figure(row["oof_loss"]),
            _figure(row["crossfit_loss"]),
            _interval(row, "crossfit"),
            _interval(row, "expected_test"),
            _figure(row["test_loss"]),
        )
    return table


def _show_tried(blended: "BlendResult") -> None:
    """Print what the blender tried that chooses one, from the simplest on."""
    if not blended.tried:
        return
    from rich.table import Table

    table = Table(title="Ways to blend, the simplest first; scored on patients that they were not fitted on")
    table.add_column("way", overflow="fold")
    for column in ("loss", "behind the best", "standard error", ""):
        table.add_column(column, justify="right")
    for tried in blended.tried:
        chosen = "chosen" if tried.chosen else ""
        table.add_row(tried.title, _figure(tried.loss), f"{tried.behind:.5f}", f"{tried.standard_error:.5f}", chosen)
    result(table)


def _show_weights(blended: "BlendResult") -> None:
    if blended.weights is None:
        return
    names = {member.recipe_id: member.name for member in blended.panel.members}
    for recipe_id, by_label in blended.weights.items():
        values = list(by_label.values())
        shared = max(values) - min(values) < 1e-12
        text = f"{values[0]:.3f}" if shared else ", ".join(f"{k} {v:.3f}" for k, v in by_label.items())
        result(f"weight {text}  {names[recipe_id]} ({recipe_id})")


def _show_steps(blended: "BlendResult") -> None:
    """Print a line for each step of post-processing, what all of them came to, and the rates of the labels."""
    if blended.gains:
        result("Log loss that each step takes off a label, on patients that it was not fitted on (* applied):")
    for step in dict.fromkeys(gain.step for gain in blended.gains):
        cells = (
            f"{gain.label} {gain.gain:+.5f}{'*' if gain.applied else ''}"
            if gain.is_judged
            else f"{gain.label} ({gain.n_patients} {'patient' if gain.n_patients == 1 else 'patients'})"
            for gain in blended.gains
            if gain.step == step
        )
        result(f"  {step}: {', '.join(cells)}")
    alone = blended.differences.get("blend_alone")
    if alone is not None:
        result(f"With post-processing against without: {alone.estimate:+.5f}, {alone.low:+.5f} to {alone.high:+.5f}.")
    training, predicted, estimated = (
        blended.rates[key] or {} for key in ("training", "test_predicted", "test_estimated")
    )
    if predicted:
        rates = (f"{key} {training[key]:.1%}, {predicted[key]:.1%}, {estimated[key]:.1%}" for key in training)
        n_patients = blended.panel.n_test_patients
        result(
            f"Rates in training, predicted in the test set of {n_patients} patients, and guessed by prior shift from "
            f"these predictions: {'; '.join(rates)}."
        )


def _show_scores(blended: "BlendResult") -> None:
    """Print how well `any` is told apart, cross-fitted, and what of the choices made by loss is luck."""
    slices, series = (blended.scores[unit]["labels"]["any"] for unit in ("slices", "series"))
    told = [("AUC", "auc"), ("average precision", "average_precision")]
    told += [
        (f"sensitivity at specificity {share}", f"sensitivity_at_specificity_{share}") for share in ("0.9", "0.95")
    ]
    for unit, scores, names in (
        ("slice", slices, [*told, ("calibration error", "calibration_error")]),
        ("series", series, told),
    ):
        result(f"any of a {unit}: {', '.join(f'{title} {_score(scores[name])}' for title, name in names)}.")
    for choice, one in blended.optimism.items():
        what = f"the best of {one.n_candidates} runs"
        if choice != "best_single":
            what = f"the winner among {one.n_candidates} ways to blend"
        result(
            f"Luck in the loss {one.loss:.5f} of {what}: {one.estimate:+.5f}, so "
            f"{one.corrected.estimate:.5f} is expected of it."
        )


def _score(value: dict[str, Any]) -> str:
    if value["estimate"] is None:
        return f"unknown ({value['reason']})"
    return f"{value['estimate']:.4f}"


def _figure(value: float | None) -> str:
    return "" if value is None else f"{value:.5f}"


def _interval(row: dict[str, Any], prefix: str) -> str:
    low, high = row.get(f"{prefix}_low"), row.get(f"{prefix}_high")
    return "" if low is None or high is None else f"{low:.5f} to {high:.5f}"
