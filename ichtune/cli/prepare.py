"""``ichtune prepare``: a folder of DICOM files and a label CSV become a workspace."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ichtune.cli import console
from ichtune.cli.options import DEFAULT_WORK, JsonOption, QuietOption
from ichtune.errors import ConfigError

if TYPE_CHECKING:
    from rich.table import Table

    from ichtune.data.prepare_summary import PrepareSummary

NATIVE = "native"


def prepare(
    dicom_dir: Annotated[Path, typer.Argument(help="Folder with the DICOM files; sub-folders are searched too.")],
    labels: Annotated[
        Path | None,
        typer.Option(
            "--labels",
            help="Label CSV: the competition's ID,Label or a wide one (image_id and a column a label). "
            "Without it the slices are unlabelled.",
        ),
    ] = None,
    out: Annotated[
        Path,
        typer.Option("--out", "--work", envvar="ICHTUNE_WORK", help="Workspace folder to write.", show_default=True),
    ] = DEFAULT_WORK,
    size: Annotated[str, typer.Option("--size", help="Side of the cached slices in pixels, or 'native'.")] = "256",
    folds: Annotated[
        int | None,
        typer.Option("--folds", help="Number of folds; 5 by default, fewer with fewer labelled patients."),
    ] = None,
    seed: Annotated[int, typer.Option("--seed", help="Breaks ties between folds.")] = 7,
    sample_submission: Annotated[
        Path | None,
        typer.Option(
            "--sample-submission",
            help="CSV whose order the submission keeps; by default the one in DICOM_DIR, if there is one.",
        ),
    ] = None,
    processes: Annotated[
        int | None, typer.Option("--processes", help="Worker processes; all cores by default.")
    ] = None,
    as_json: JsonOption = False,
    quiet: QuietOption = False,
) -> None:
    """Read every DICOM file once: slice table, HU cache and patient folds.

    A file that cannot be read is a row with a reason, never missing. A run that was killed goes on where it
    stopped; unchanged files are not read again.

    Example: ichtune prepare rsna/ --labels rsna/stage_2_train.csv --out work
    """
    from ichtune.data.cache_build import Progress
    from ichtune.data.prepare import PrepareSpec
    from ichtune.data.prepare import prepare as run

    spec = PrepareSpec(
        dicom_dir=dicom_dir,
        labels=labels,
        out=out,
        size_px=read_size(size),
        sample_submission=sample_submission,
        k=folds,
        seed=seed,
        n_processes=processes,
    )
    with console.progress("reading", unit="slices", quiet=quiet) as bar:

        def show(progress: Progress) -> None:
            bar.update(progress.n_done, progress.n_files, f"{progress.n_refused} refused")

        summary = run(spec, show)
    for warning in summary.warnings:
        console.note(f"note: {warning}", quiet)
    if as_json:
        console.result_json(summary.as_json())
        return
    console.result(summary_table(summary, out))
    console.result(next_command(summary, out))


def read_size(text: str) -> int | None:
    """Read ``--size``: a number of pixels, or ``native`` as None.

    Raises:
        ConfigError: neither.
    """
    if text.strip().lower() == NATIVE:
        return None
    try:
        return int(text)
    except ValueError as error:
        raise ConfigError(f"--size must be a number of pixels or {NATIVE!r}, got {text!r}; write --size 256") from error


def summary_table(summary: "PrepareSummary", out: Path) -> "Table":
    """Return the counts of a prepared workspace as a table for the terminal."""
    from rich.table import Table

    table = Table(title=f"Prepared {out}", title_justify="left", show_header=False, box=None, pad_edge=False)
    table.add_column(no_wrap=True)
    table.add_column(justify="right", no_wrap=True)
    table.add_column(overflow="fold")
    for name, count, remark in _lines(summary):
        table.add_row(name, f"{count:,}", remark)
    return table


def _lines(summary: "PrepareSummary") -> list[tuple[str, int, str]]:
    size = f"{summary.size_px} px" if summary.size_px else "native size"
    how = "cache was there already" if summary.cache_reused else f"in {console.duration(summary.seconds)}"
    positives = ", ".join(f"{label} {n:,}" for label, n in summary.positive.items())
    lines: list[tuple[str, int, str]] = [
        ("files", summary.files, f"{summary.ignored:,} others ignored" if summary.ignored else ""),
        ("usable slices", summary.slices, f"{size}, {how}"),
        ("series", summary.series, ""),
        ("patients", summary.patients, f"{summary.k} folds" if summary.k else "no folds"),
        ("labelled", summary.labelled, positives if summary.labelled else ""),
    ]
    optional: dict[str, Any] = {"repaired 12-bit": summary.repaired_12bit, "blank": summary.blank}
    lines += [(name, count, "") for name, count in optional.items() if count]
    lines += [("refused", count, code) for code, count in summary.refused.items()]
    lines += [("label issue", count, issue) for issue, count in summary.label_issues.items()]
    return lines


def next_command(summary: "PrepareSummary", out: Path) -> str:
    """Return the line that names the likely next command."""
    work = "" if out == DEFAULT_WORK else f" --work {out}"
    if not summary.labelled:
        return f"Next: ichtune prepare DICOM_DIR --labels CSV --out {out} to train on these slices"
    return f"Next: ichtune search --space windows.yaml{work}"
