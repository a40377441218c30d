"""``ichtune predict``: run a blend, the workspace's last one or a bundle's, on a folder of new DICOM files."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ichtune.cli.options import DEFAULT_WORK, JsonOption, QuietOption, WorkOption, work_argument
from ichtune.errors import ConfigError

if TYPE_CHECKING:
    from ichtune.report.predict_folder import FolderPredictions


def predict(
    dicom_dir: Annotated[Path, typer.Argument(help="Folder of DICOM files, searched with its sub-folders.")],
    bundle: Annotated[
        Path | None, typer.Option(help="Predict with this bundle, made by `ichtune bundle`; needs no workspace.")
    ] = None,
    out: Annotated[Path, typer.Option("--out", help="CSV to write.")] = Path("predictions.csv"),
    work_dir: Annotated[
        Path | None,
        typer.Option(
            help="With --bundle: where the slices are cached meanwhile; removed at the end.",
            show_default="the system's temporary folder",
        ),
    ] = None,
    work: WorkOption = DEFAULT_WORK,
    as_json: JsonOption = False,
    quiet: QuietOption = False,
) -> None:
    """Predict new DICOM files with every fold model of the last blend, or of a bundle.

    The CSV has a row a file; refused files have a reason and no p_ values. Its columns: image_id,
    series_instance_uid, path, status, reason; p_any, p_epidural, p_intraparenchymal, p_intraventricular,
    p_subarachnoid, p_subdural of the slice; then series_p_any to series_p_subdural, the largest of each in the
    slice's series, the same on all its rows.

    Example: ichtune predict new_dicom --bundle ./bundle --out predictions.csv
    """
    from ichtune.cli.console import progress
    from ichtune.report.predict_folder import predict_with_bundle, predict_with_workspace, write_predictions
    from ichtune.tables import check_writable
    from ichtune.workspace import Workspace

    if work_dir is not None and bundle is None:
        raise ConfigError("--work-dir goes with --bundle only: without it the slices are cached in the workspace")
    check_writable(out)
    with progress("predicting", unit="models", quiet=quiet) as bar:

        def on_step(done: int, total: int) -> None:
            bar.update(done, total)

        if bundle is None:
            predictions = predict_with_workspace(Workspace(work), dicom_dir, on_step)
        else:
            predictions = predict_with_bundle(bundle, dicom_dir, work_dir, on_step)
    write_predictions(predictions, out)
    following = f"open {out} in a spreadsheet" if bundle else f"ichtune report{work_argument(work)}"
    _show(predictions, out, following, as_json, quiet)


def _show(predictions: "FolderPredictions", out: Path, following: str, as_json: bool, quiet: bool) -> None:
    from ichtune.cli.console import note, result, result_json

    counts = {
        "predicted": predictions.n_predicted,
        "refused": predictions.n_refused,
        "series": predictions.n_series,
        "models": predictions.n_models,
        "generated": predictions.generated,
        "out": str(out),
    }
    if as_json:
        result_json(counts)
    else:
        result(
            f"{counts['predicted']} slices of {counts['series']} series predicted by {counts['models']} models -> {out}"
        )
    if predictions.n_refused:
        note(f"{predictions.n_refused} files could not be read; their rows in {out} say why")
    if predictions.n_left_out:
        note(
            f"recipes that did not run, since their weight in the blend is zero: {predictions.n_left_out}; "
            "no prediction depends on them",
            quiet,
        )
    if predictions.generated:
        from ichtune.data.phantom.folder import GENERATED_DATA

        note(f"the models were trained on {GENERATED_DATA}: what they say of real scans means nothing", quiet)
    note(f"next: {following}", quiet)
