"""``ichtune bundle``: the last blend and its models as one folder that predicts without the training data."""

import shlex
from pathlib import Path
from typing import Annotated

import typer

from ichtune.cli.console import note, result, result_json
from ichtune.cli.options import DEFAULT_WORK, JsonOption, QuietOption, WorkOption


def bundle(
    work: WorkOption = DEFAULT_WORK,
    out: Annotated[Path, typer.Option(help="The folder to make.")] = Path("ichtune-bundle"),
    licence: Annotated[
        str, typer.Option(help="The terms under which you pass the models on, in your words.", show_default=False)
    ] = "",
    replace: Annotated[
        bool, typer.Option("--replace", help="Write it in the place of a bundle that is there.")
    ] = False,
    onnx: Annotated[
        bool, typer.Option("--onnx", help="Also export every network as ONNX, compared with torch on some slices.")
    ] = False,
    as_json: JsonOption = False,
    quiet: QuietOption = False,
) -> None:
    """Put the last blend and its fold models into one folder, with a model card and nothing of the training data.

    Example: ichtune bundle --work ./ichtune-work --out ./bundle --licence "CC BY 4.0"
    """
    from dataclasses import asdict

    from ichtune.report.bundle import check_bundle_path, write_bundle
    from ichtune.report.fold_ensemble import ensemble_of
    from ichtune.workspace import Workspace

    check_bundle_path(out, replace_old=replace)
    workspace = Workspace(work)
    if onnx:
        from ichtune.report.onnx_export import check_onnx_installed

        check_onnx_installed()
    ensemble = ensemble_of(workspace)
    if onnx:
        note(f"exporting {sum(len(network.folds) for network in ensemble.networks)} networks as ONNX", quiet)
    written = write_bundle(ensemble, out, licence, replace_old=replace, onnx_on=workspace if onnx else None)
    if not licence.strip():
        note("no licence was given: whoever gets the bundle may not know what is allowed; see --licence", quiet)
    if written.n_left_out:
        note(
            f"recipes left out, since their weight in the blend is zero: {written.n_left_out}; "
            "no prediction depends on them",
            quiet,
        )
    if written.n_onnx and written.n_second_level:
        note("models of the second level are not exported as ONNX: they run with `ichtune predict` alone", quiet)
    if as_json:
        result_json(asdict(written))
    else:
        result(
            f"Wrote {written.path}: {written.n_models} models of {written.n_members} recipes, "
            f"{written.n_bytes / 1e6:,.1f} MB."
        )
        if written.onnx_difference is not None:
            result(
                f"ONNX: {written.n_onnx} networks, at most {written.onnx_difference:.1e} from torch in a probability."
            )
    note(f"next: ichtune predict DICOM_DIR --bundle {shlex.quote(str(out))}", quiet)
