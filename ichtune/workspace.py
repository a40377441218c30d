"""Workspace: one folder with every table and file of a project, read through one object."""

import json
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from ichtune.data.folds import FoldPlan, read_folds
from ichtune.data.hu_cache import HuCache
from ichtune.errors import ConfigError, DataError, nearest
from ichtune.labels import LABELS
from ichtune.layout import Layout
from ichtune.tables import PREDICTIONS, SLICES, TRIALS, read_table

PREDICTION_KINDS = ("oof", "test")


class Workspace:
    """Read access to one workspace; nothing is loaded before it is asked for.

    Args:
        path: the folder that ``ichtune prepare --out`` made.

    Attributes:
        layout: where each file lies.
    """

    def __init__(self, path: str | Path) -> None:
        self.layout = Layout(Path(path))

    def __repr__(self) -> str:
        return f"Workspace({str(self.layout.root)!r})"

    @cached_property
    def about(self) -> dict[str, Any]:
        """What the workspace was made from: ``cache_id``, ``size_px``, ``fold_plan_hash``, ``generated``, ...

        Raises:
            DataError: nothing was prepared here.
        """
        path = self.layout.workspace_json
        if not path.is_file():
            where = "does not exist" if not self.layout.root.is_dir() else "holds no prepared data"
            raise DataError(
                f"workspace {self.layout.root} {where}: run `ichtune prepare DICOM_DIR --labels CSV --out "
                f"{self.layout.root}` first, or name another one with --work"
            )
        try:
            about = json.loads(path.read_text(encoding="utf-8"))
            return {"cache_id": about["cache_id"], **about}
        except (ValueError, TypeError, LookupError) as error:
            raise DataError(f"{path} describes no workspace ({error!r}); run `ichtune prepare` again") from error

    @cached_property
    def slices(self) -> pd.DataFrame:
        """SliceTable: one row a file, in the order of the HU cache."""
        _ = self.about
        return read_table(self.layout.slices, SLICES)

    @cached_property
    def labelled(self) -> pd.DataFrame:
        """The readable slices that have labels; its index is the row in the HU cache."""
        slices = self.slices
        return slices[(slices["status"] == "ok") & slices["is_labelled"]]

    @cached_property
    def unlabelled(self) -> pd.DataFrame:
        """The readable slices without labels: what a submission predicts. Its index is the row in the HU cache."""
        slices = self.slices
        return slices[(slices["status"] == "ok") & ~slices["is_labelled"]]

    @cached_property
    def hu_cache(self) -> HuCache:
        """The HU cache in use.

        Raises:
            DataError: it is absent or damaged, or has not one row for each slice.
        """
        cache = HuCache(self.layout.hu / str(self.about["cache_id"]))
        if cache.n_rows != len(self.slices):
            raise DataError(
                f"the HU cache {cache.cache_id} has {cache.n_rows} rows, but {self.layout.slices} has "
                f"{len(self.slices)}; run `ichtune prepare` again"
            )
        return cache

    @cached_property
    def _row_of(self) -> dict[str, int]:
        return {image_id: row for row, image_id in enumerate(self.slices["image_id"])}

    def hu(self, image_id: str) -> np.ndarray:
        """Return one slice as cached: int16 (H, W), HU.

        Raises:
            DataError: no such slice, or a slice whose pixels could not be read (the reason is named).
        """
        row = self._row_of.get(image_id)
        if row is None:
            raise DataError(f"no slice has image_id {image_id!r} in {self.layout.slices}")
        if self.hu_cache.shape(row) is None:
            raise DataError(f"slice {image_id!r} has no pixels: {self.slices['reason'].iloc[row]}")
        return self.hu_cache.read(row)

    @cached_property
    def fold_plan(self) -> FoldPlan:
        """The patient-grouped fold plan."""
        _ = self.about
        return read_folds(self.layout.folds)

    @cached_property
    def folds(self) -> pd.DataFrame:
        """One row a readable slice: ``image_id``, ``patient_id``, ``fold``."""
        usable = self.slices[self.slices["status"] == "ok"]
        frame = usable[["image_id", "patient_id"]].copy()
        frame["fold"] = self.fold_plan.folds_for(usable["patient_id"])
        return frame

    @property
    def trials(self) -> pd.DataFrame:
        """Every trial of every search."""
        _ = self.about
        return read_table(self.layout.trials, TRIALS)

    def labels(self, rows: np.ndarray) -> np.ndarray:
        """Return labels of cache rows: float32 (n, 6) in label order, NaN where unlabelled."""
        return self.slices[list(LABELS)].to_numpy(dtype=np.float32)[rows]

    def run_ids(self) -> list[str]:
        """Return the recipe_ids of the runs that are trained on every fold, in alphabetical order."""
        return sorted(path.parent.name for path in self.layout.runs.glob("*/oof.parquet"))

    def predictions(self, kind: str) -> pd.DataFrame:
        """Return predictions of every complete run.

        Args:
            kind: ``oof`` (each labelled slice once a recipe, by the model that did not see its patient) or ``test``
                (each unlabelled slice once a recipe and fold model).

        Returns:
            ``recipe_id, fold, image_id, p_any, ..., p_subdural``; join by ``image_id``.
        """
        if kind not in PREDICTION_KINDS:
            raise ConfigError(f"unknown kind of predictions {kind!r}. {nearest(kind, PREDICTION_KINDS)}")
        run_ids = self.run_ids()
        if not run_ids:
            _ = self.about
            raise DataError(f"no complete run in {self.layout.runs}: run `ichtune train` first")
        path_of = self.layout.oof if kind == "oof" else self.layout.test
        tables = [read_table(path_of(run_id), PREDICTIONS) for run_id in run_ids if path_of(run_id).is_file()]
        if not tables:
            return pd.DataFrame({c: pd.Series(dtype=d) for c, d in PREDICTIONS.columns.items()})
        return pd.concat(tables, ignore_index=True)
