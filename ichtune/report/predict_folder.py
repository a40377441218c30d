"""Predictions of a blend on a new folder of DICOM files: reader, cache, fold models, blend, one CSV.

Dimension key: T new slices, L labels.
"""

import hashlib
import tempfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from ichtune.data.prepare import PrepareSpec, prepare
from ichtune.errors import StorageError
from ichtune.report.bundle import read_bundle
from ichtune.report.fold_ensemble import CacheNeed, FoldEnsemble, ensemble_of
from ichtune.report.member_predictions import OnStep, member_predictions
from ichtune.tables import P_COLUMNS, whole_file
from ichtune.workspace import Workspace

#: Columns that precede the probabilities in the CSV.
ABOUT_COLUMNS = ("image_id", "series_instance_uid", "path", "status", "reason")
#: Largest probability of any slice of the series; columns of the CSV after those of the slice itself.
SERIES_P_COLUMNS = tuple(f"series_{column}" for column in P_COLUMNS)


@dataclass(frozen=True)
class FolderPredictions:
    """What was predicted: ``frame`` has a row a file, probabilities empty where the file could not be read.

    ``n_left_out`` members did not run, since their weight is zero for every label.
    """

    frame: pd.DataFrame
    n_predicted: int
    n_refused: int
    n_series: int
    n_models: int
    generated: bool
    n_left_out: int = 0


def predict_with_workspace(workspace: Workspace, dicom_dir: Path, on_step: OnStep | None = None) -> FolderPredictions:
    """Predict every slice below a folder with the workspace's last blend.

    The slices are read into a workspace of their own inside this one, so that a second call reads no file again.

    Raises:
        DataError: no blend yet, missing weights, or no such folder.
        NothingUsableError: not one usable CT slice in the folder.
    """
    ensemble = ensemble_of(workspace)
    source = f"{dicom_dir.resolve()} {ensemble.caches[0]}"  # crops depend on the cache that is prepared first
    name = hashlib.sha256(source.encode()).hexdigest()[:12]
    return predict_folder(ensemble, dicom_dir, workspace.layout.new / name, on_step)


def predict_with_bundle(
    bundle: Path, dicom_dir: Path, work_dir: Path | None = None, on_step: OnStep | None = None
) -> FolderPredictions:
    """Predict every slice below a folder with a bundle, without the workspace that it was made from.

    Args:
        bundle: what ``ichtune bundle`` wrote.
        dicom_dir: DICOM files that need no labels; every one becomes a row of the result.
        work_dir: where the slices are cached until the end; by default where the system keeps temporary files.
        on_step: see ``OnStep``.

    Raises:
        DataError: no bundle, a weights file that is missing or has changed, or no such folder.
        NothingUsableError: not one usable CT slice in the folder.
        StorageError: no temporary folder can be made there.
    """
    ensemble = read_bundle(bundle)
    try:
        if work_dir is not None:
            work_dir.mkdir(parents=True, exist_ok=True)
        folder = tempfile.TemporaryDirectory(prefix="ichtune-predict-", dir=work_dir, ignore_cleanup_errors=True)
    except OSError as error:
        raise StorageError(f"cannot make a temporary folder in {work_dir}: {error.strerror or error}") from error
    with folder as name:
        return predict_folder(ensemble, dicom_dir, Path(name) / "new", on_step)


def predict_folder(
    ensemble: FoldEnsemble, dicom_dir: Path, out: Path, on_step: OnStep | None = None
) -> FolderPredictions:
    """Predict every slice below a folder with the fold models of an ensemble, one after the other.

    Args:
        ensemble: models and blend; every weights file is checked before a DICOM file is read.
        dicom_dir: DICOM files that need no labels; every one becomes a row of the result.
        out: workspace to prepare the slices into; what it holds of the same files is not read again.
        on_step: see ``OnStep``.

    Raises:
        DataError: weights that are missing or have changed, or no such folder.
        NothingUsableError: not one usable CT slice in the folder.
    """
    for weights in ensemble.weights:
        weights.check()
    new = _prepared(dicom_dir, out, ensemble.caches)
    rows = new.slices.index[new.slices["status"] == "ok"].to_numpy()
    p_TL = ensemble.blend.predict(member_predictions(ensemble, new, rows, on_step))
    frame = new.slices[list(ABOUT_COLUMNS)].copy()
    frame[list(P_COLUMNS)] = np.nan
    frame.loc[rows, list(P_COLUMNS)] = p_TL
    frame = with_series(frame)
    return FolderPredictions(
        frame=frame,
        n_predicted=len(rows),
        n_refused=len(frame) - len(rows),
        n_series=frame["series_instance_uid"][frame[SERIES_P_COLUMNS[0]].notna()].nunique(),
        n_models=len(ensemble.weights),
        generated=ensemble.trained_on.generated,
        n_left_out=ensemble.n_left_out,
    )


def _prepared(dicom_dir: Path, out: Path, caches: tuple[CacheNeed, ...]) -> Workspace:
    """Read the folder into a workspace with these caches, in their order."""
    for need in caches:
        prepare(PrepareSpec(dicom_dir=dicom_dir, labels=None, out=out, size_px=need.size_px, crops=(need.crop,)))
    return Workspace(out)


def with_series(frame: pd.DataFrame) -> pd.DataFrame:
    """Add each label's largest probability in the series to every row of the series, refused ones among them.

    A bleed that is seen on one slice is in the series, so the series is as suspicious as its most suspicious slice. The
    columns stay empty where the series is not known or has no readable slice.
    """
    series = frame["series_instance_uid"].replace("", pd.NA)
    largest = frame[list(P_COLUMNS)].groupby(series).transform("max")
    return frame.assign(**{name: largest[p] for name, p in zip(SERIES_P_COLUMNS, P_COLUMNS, strict=True)})


def write_predictions(predictions: FolderPredictions, path: Path) -> None:
    """Write the rows as CSV, whole or not at all.

    Raises:
        StorageError: the path may not be written.
    """
    with whole_file(path) as temporary:
        predictions.frame.to_csv(temporary, index=False, float_format="%.8f")
