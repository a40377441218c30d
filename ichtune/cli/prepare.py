"""``ichtune prepare``: a folder of DICOM files and a label CSV become a workspace."""

from contextlib import AbstractContextManager, ExitStack, nullcontext
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ichtune.cli import console
from ichtune.cli.options import DEFAULT_WORK, JsonOption, QuietOption, folder
from ichtune.errors import ConfigError

if TYPE_CHECKING:
    from rich.table import Table

    from ichtune.data.cache.build import RunShards
    from ichtune.data.cache.cache_set import CacheNote, PrepareProgress
    from ichtune.data.prepare import PrepareSpec
    from ichtune.data.prepare_summary import PrepareSummary

NATIVE = "native"


def prepare(
    dicom_dir: Annotated[
        Path, typer.Argument(help="Folder with the DICOM files, sub-folders and zip archives included; or one zip.")
    ],
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
        typer.Option(
            "--out",
            "--work",
            envvar="ICHTUNE_WORK",
            help="Workspace folder to write.",
            parser=folder,
            metavar="PATH",
            show_default=True,
        ),
    ] = DEFAULT_WORK,
    size: Annotated[
        str,
        typer.Option("--size", help="Side of the cached slices in pixels, or 'native'; several as in 256,512."),
    ] = "256",
    crop: Annotated[
        str,
        typer.Option(
            "--crop",
            help="What the caches hold: 'none' (whole slices), 'head' (a box around the head of each series), "
            "'tight' (a box around what is bright in each slice); several as in none,head.",
        ),
    ] = "none",
    folds: Annotated[
        int | None,
        typer.Option("--folds", help="Number of folds; 5 by default, fewer with fewer labelled patients."),
    ] = None,
    seed: Annotated[int, typer.Option("--seed", min=0, help="Breaks ties between folds.")] = 7,
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
    address: Annotated[
        str | None,
        typer.Option(
            "--address",
            envvar="RAY_ADDRESS",
            help="Ray cluster whose cores read the files instead; its machines must see DICOM_DIR and the workspace "
            "under the same paths.",
        ),
    ] = None,
    replace_source: Annotated[
        bool, typer.Option("--replace", help="Prepare in a workspace that holds the tables of another source.")
    ] = False,
    as_json: JsonOption = False,
    quiet: QuietOption = False,
) -> None:
    """Read every DICOM file once: slice table, HU cache and patient folds.

    A file that cannot be read is a row with a reason, never missing. A run that was killed goes on where it
    stopped; unchanged files are not read again. Another size or crop of the same files adds a cache.

    Example: ichtune prepare rsna/ --labels rsna/stage_2_train.csv --out work --crop none,head
    """
    from ichtune.data.prepare import PrepareSpec

    sizes = [read_size(part) for part in size.split(",")]
    spec = PrepareSpec(
        dicom_dir=dicom_dir,
        labels=labels,
        out=out,
        size_px=sizes[0],
        crops=tuple(part.strip() for part in crop.split(",")),
        sample_submission=sample_submission,
        k=folds,
        seed=seed,
        n_processes=processes,
        replace=replace_source,
    )
    summary = _prepared([replace(spec, size_px=size_px) for size_px in sizes], address, quiet)
    for warning in summary.warnings:
        console.note(f"note: {warning}", quiet)
    if as_json:
        console.result_json(summary.as_json())
        return
    console.result(summary_table(summary, out))
    console.result(next_command(summary, out))


def _prepared(specs: "list[PrepareSpec]", address: str | None, quiet: bool) -> "PrepareSummary":
    """Prepare each size in turn; the last summary tells of all of them, and of the time they took together."""
    from ichtune.data.prepare import prepare as run

    with _shards_on(address) as run_shards, StageBars(quiet) as bars:
        summaries = [run(spec, bars.show, run_shards=run_shards) for spec in specs]
    return replace(
        summaries[-1],
        seconds=sum(summary.seconds for summary in summaries),
        cache_reused=all(summary.cache_reused for summary in summaries),
    )


def _shards_on(address: str | None) -> "AbstractContextManager[RunShards | None]":
    if address is None:
        return nullcontext()
    from ichtune.search.shard_tasks import ray_shards

    return ray_shards(address)


class StageBars:
    """A progress bar for each stage of a preparation, one after the other."""

    def __init__(self, quiet: bool) -> None:
        self._quiet = quiet
        self._open = ExitStack()
        self._stage = ""

    def __enter__(self) -> "StageBars":
        return self

    def __exit__(self, *error: object) -> None:
        self._open.close()

    def show(self, progress: "PrepareProgress") -> None:
        """Move the bar of the stage; a new stage ends the bar of the one before."""
        if progress.stage != self._stage:
            self._open.close()
            self._stage = progress.stage
            self._bar = self._open.enter_context(console.progress(self._stage, unit="slices", quiet=self._quiet))
        remarks = [f"{progress.n_refused:,} refused"] if progress.n_refused else []
        remarks += [f"{progress.n_resumed:,} files were done before"] if progress.n_resumed else []
        self._bar.update(progress.n_done, progress.n_all, ", ".join(remarks))


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
        raise ConfigError(
            f"--size must be a number of pixels or {NATIVE!r}, got {text.strip()!r}; write --size 256"
        ) from error


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
    how = "caches were there already" if summary.cache_reused else f"in {console.duration(summary.seconds)}"
    positives = ", ".join(f"{label} {n:,}" for label, n in summary.positive.items())
    lines: list[tuple[str, int, str]] = [
        ("files", summary.files, f"{summary.ignored:,} others ignored" if summary.ignored else ""),
        ("usable slices", summary.slices, how),
        ("caches", len(summary.caches), ", ".join(_cache_text(note) for note in summary.caches)),
        ("series", summary.series, ""),
        ("patients", summary.patients, f"{summary.k} folds" if summary.k else "no folds"),
        ("labelled", summary.labelled, positives if summary.labelled else ""),
    ]
    optional = [
        ("repaired 12-bit", summary.repaired_12bit, ""),
        ("lossy", summary.lossy, "slices whose values were changed by compression"),
        ("blank", summary.blank, "kept"),
        ("multi-frame files", summary.multi_frame, "a row a frame"),
        ("padding kept", summary.padding_ignored, "slices whose padding value is one of tissue"),
        ("known bad", summary.known_bad, "damaged in the competition's own files"),
        ("uneven series", summary.uneven_spacing, "spacing varies"),
        ("crowded series", summary.duplicate_positions, "several slices at one position"),
        ("parted series", summary.stacks, "were of several orientations"),
    ]
    lines += [line for line in optional if line[1]]
    lines += [("refused", count, code) for code, count in summary.refused.items()]
    lines += [("label issue", count, issue) for issue, count in summary.label_issues.items()]
    return lines


def _cache_text(note: "CacheNote") -> str:
    size = f"{note['size_px']} px" if note["size_px"] else "native size"
    return size if note["crop"] == "none" else f"{size} {note['crop']}"


def next_command(summary: "PrepareSummary", out: Path) -> str:
    """Return the line that names the likely next command."""
    work = "" if out == DEFAULT_WORK else f" --work {out}"
    if not summary.labelled:
        return f"Next: ichtune prepare DICOM_DIR --labels CSV --out {out} to train on these slices"
    return f"Next: ichtune search --space windows.yaml{work}"
