"""``ichtune phantom``: write generated head CT as DICOM files with labels and hidden truth."""

import time
from pathlib import Path
from typing import Annotated

import typer

from ichtune.cli.console import note, progress, result, result_json
from ichtune.cli.options import DEFAULT_WORK, JsonOption, QuietOption


def phantom(
    out: Annotated[Path, typer.Argument(help="Folder to write: new, empty, or a phantom of the same settings.")],
    patients: Annotated[int, typer.Option(help="Patients, train and test together.")] = 120,
    size: Annotated[int, typer.Option(help="Rows and columns of the files (the competition's are 512).")] = 128,
    difficulty: Annotated[float, typer.Option(help="More: noise, distractors, less contrast. Above 0.")] = 1.0,
    seed: Annotated[int, typer.Option(help="Same seed, same bytes, on every machine.")] = 7,
    test_fraction: Annotated[float, typer.Option(help="Share of patients in the test set.")] = 0.25,
    as_json: JsonOption = False,
    quiet: QuietOption = False,
) -> None:
    """Write generated head CT with known truth: DICOM files and labels in the competition's layout.

    No patient in it is real. Results on it are results on generated data.

    Example: ichtune phantom ./phantom --patients 120 --seed 7
    """
    from dataclasses import asdict

    from ichtune.data.phantom.generate import TRAIN_CSV, PhantomSpec, write_phantom

    spec = PhantomSpec(n_patients=patients, size_px=size, difficulty=difficulty, seed=seed, test_fraction=test_fraction)
    start = time.monotonic()
    with progress("phantom", unit="series", quiet=quiet) as bar:
        summary = write_phantom(out, spec, on_progress=bar.update)
    seconds = round(time.monotonic() - start, 1)
    following = f"Next: ichtune prepare {out} --labels {out / TRAIN_CSV} --out {DEFAULT_WORK}"
    if as_json:
        result_json({"out": str(out), "seconds": seconds, **asdict(summary)})
        note(following, quiet)
        return
    labels = ", ".join(f"{name} {n}" for name, n in summary.label_counts.items())
    result(
        f"Generated data in {out}: {summary.n_patients} patients, {summary.n_series} series, "
        f"{summary.n_train} train and {summary.n_test} test slices ({seconds} s).\n"
        f"Positive slices: {labels}."
    )
    if not quiet:
        result(following)
