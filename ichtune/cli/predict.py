"""ichtune predict: run the last blend on a folder of new DICOM files."""

from pathlib import Path
from typing import Annotated

import typer

from ichtune.cli.options import DEFAULT_WORK, JsonOption, QuietOption, WorkOption, work_argument


def predict(
    dicom_dir: Annotated[Path, typer.Argument(help="Folder of DICOM files, searched with its sub-folders.")],
    out: Annotated[Path, typer.Option("--out", help="CSV to write.")] = Path("predictions.csv"),
    work: WorkOption = DEFAULT_WORK,
    as_json: JsonOption = False,
    quiet: QuietOption = False,
) -> None:
    """Predict new DICOM files with every fold model of the last blend; a row a file, refused ones with a reason.

    Example: ichtune predict new_dicom --out predictions.csv
    """
    from ichtune.cli.console import note, progress, result, result_json
    from ichtune.report.predict_folder import predict_folder, write_predictions
    from ichtune.workspace import Workspace

    with progress("predicting", unit="models", quiet=quiet) as bar:
        predictions = predict_folder(Workspace(work), dicom_dir, on_step=lambda done, total: bar.update(done, total))
    write_predictions(predictions, out)
    counts = {
        "predicted": predictions.n_predicted,
        "refused": predictions.n_refused,
        "models": predictions.n_models,
        "out": str(out),
    }
    if as_json:
        result_json(counts)
    else:
        result(f"{counts['predicted']} slices predicted by {counts['models']} models -> {out}")
    note(f"next: ichtune report{work_argument(work)}", quiet)
    if predictions.n_refused:
        note(f"{predictions.n_refused} files could not be read; their rows in {out} say why")
