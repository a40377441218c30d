"""``ichtune inspect``: look at what was prepared, the data set as a card and a series as a montage."""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ichtune.cli import console
from ichtune.cli.options import DEFAULT_WORK, JsonOption, QuietOption, WorkOption, work_argument
from ichtune.errors import ConfigError, nearest

if TYPE_CHECKING:
    from ichtune.report.data_card import DataCard
    from ichtune.report.series_view import SeriesView
    from ichtune.windows import Window
    from ichtune.workspace import Workspace

DEFAULT_WINDOWS = "brain_subdural_bone"
DATA_CARD_PNG = "data_card.png"
#: What a file name keeps of a series' name; anything else becomes an underscore.
_NOT_IN_NAMES = re.compile(r"[^A-Za-z0-9._~-]")
_LONGEST_NAME = 80


def inspect(
    work: WorkOption = DEFAULT_WORK,
    series: Annotated[str | None, typer.Option("--series", help="Series Instance UID of the series to draw.")] = None,
    image: Annotated[str | None, typer.Option("--image", help="Draw the series that this image_id is in.")] = None,
    patient: Annotated[str | None, typer.Option("--patient", help="Draw every series of this patient_id.")] = None,
    windows: Annotated[
        str, typer.Option("--windows", help="Window sets to show: names, or 40/80+80/200, separated by commas.")
    ] = DEFAULT_WINDOWS,
    crop: Annotated[
        str, typer.Option("--crop", help="Show what this crop keeps of the slices, as prepared with `--crop`.")
    ] = "none",
    out: Annotated[
        Path | None, typer.Option("--out", help="Folder for the pictures.", show_default="WORK/inspect")
    ] = None,
    as_json: JsonOption = False,
    quiet: QuietOption = False,
) -> None:
    """Draw what was prepared: a data card, and series slice by slice under each window with their labels.

    Without --series, --image or --patient it counts the whole workspace, here and as a picture, and draws the
    series with the most positive labels as an example. Pictures show PatientIDs and UIDs: mind whom you send them.

    Example: ichtune inspect --patient ID_0a1b2c3d --windows brain_subdural_bone,brain_stroke_bone
    """
    from ichtune.recipe import CROPS
    from ichtune.report.series_view import example_series, find_series, view_series
    from ichtune.workspace import Workspace

    window_sets = read_window_sets(windows)
    if sum(name is not None for name in (series, image, patient)) > 1:
        raise ConfigError("--series, --image and --patient each say what to draw; give one of them")
    if crop not in CROPS:
        raise ConfigError(f"unknown --crop {crop!r}. {nearest(crop, CROPS)}")
    workspace = Workspace(work)
    folder = out or workspace.layout.inspect
    is_card = series is None and image is None and patient is None
    if is_card:
        card, files = _card(workspace, folder)
        chosen = [example_series(workspace.slices)]
    else:
        card, files = None, []
        chosen = find_series(workspace.slices, series, image, patient)
    views = [view_series(workspace, uid, crop) for uid in chosen]
    for view in views:
        files += _montage(workspace, view, window_sets, folder)
    if as_json:
        console.result_json(_as_json(card, views, files))
        return
    for note in (note for view in views for note in view.notes):
        console.note(f"note: {note}", quiet)
    if not quiet:
        _show(card, views, files, workspace)
        console.result(next_command(workspace, work))


def read_window_sets(text: str) -> "list[tuple[Window, ...]]":
    """Read ``--windows``: names of window sets or ``centre/width+centre/width``, separated by commas.

    Raises:
        ConfigError: an unknown name, or numbers that are no window.
    """
    from ichtune.windows import resolve_windows

    entries = [entry.strip() for entry in text.split(",") if entry.strip()]
    if not entries:
        raise ConfigError(f"--windows must name at least one window set, got {text!r}; write --windows brain")
    return list(dict.fromkeys(resolve_windows(_numbers(entry) if "/" in entry else entry) for entry in entries))


def _numbers(entry: str) -> list[list[float]]:
    try:
        return [[float(number) for number in window.split("/")] for window in entry.split("+")]
    except ValueError as error:
        raise ConfigError(f"--windows must be centre/width in HU, as in 40/80+80/200, got {entry!r}") from error


def picture_name(series_instance_uid: str, crop: str = "none") -> str:
    """Return the file name of a series' montage."""
    cropped = "" if crop == "none" else f"_{crop}_crop"
    return f"series_{_NOT_IN_NAMES.sub('_', series_instance_uid)[:_LONGEST_NAME]}{cropped}.png"


def _card(workspace: "Workspace", folder: Path) -> "tuple[DataCard, list[Path]]":
    from ichtune.report.data_card import collect_card
    from ichtune.report.data_card_figure import write_data_card

    card = collect_card(workspace)
    return card, [write_data_card(card, folder / DATA_CARD_PNG, workspace.layout.root.resolve().name)]


def _montage(
    workspace: "Workspace", view: "SeriesView", window_sets: "Sequence[tuple[Window, ...]]", folder: Path
) -> list[Path]:
    from ichtune.report.montage import TILE_PX, write_montage

    path = folder / picture_name(view.series_instance_uid, view.crop)
    hu_cache = workspace.cache_for(TILE_PX, view.crop)
    return write_montage(view, hu_cache, window_sets, path, is_generated=bool(workspace.about.get("generated")))


def _as_json(card: "DataCard | None", views: "Sequence[SeriesView]", files: Sequence[Path]) -> dict[str, Any]:
    shown = [
        {
            "series_instance_uid": view.series_instance_uid,
            "patient_id": view.patient_id,
            "slices": view.n_slices,
            "positives": view.positives,
            "notes": view.notes,
        }
        for view in views
    ]
    return {"card": card.as_json() if card else None, "series": shown, "files": [str(path) for path in files]}


def _show(
    card: "DataCard | None", views: "Sequence[SeriesView]", files: Sequence[Path], workspace: "Workspace"
) -> None:
    from ichtune.cli.inspect_view import card_tables

    if card is not None:
        for table in card_tables(card, str(workspace.layout.root)):
            console.result(table)
            console.result("")
    for view in views:
        console.result(f"Series {view.series_instance_uid} of patient {view.patient_id}: {view.facts}")
    for path in files:
        console.result(f"Wrote {path}")


def next_command(workspace: "Workspace", work: Path) -> str:
    """Return the line that names the likely next command."""
    if workspace.labelled.empty:
        return f"Next: ichtune prepare DICOM_DIR --labels CSV --out {work} to train on these slices"
    return f"Next: ichtune audit{work_argument(work)}"
