"""Workspace: one folder with every table and file of a project, read through one object."""

import json
import math
import shlex
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from ichtune.data.cache.hu_cache import HuCache
from ichtune.data.folds import FoldPlan, read_folds
from ichtune.errors import ConfigError, DataError, nearest
from ichtune.labels import LABELS
from ichtune.layout import Layout
from ichtune.tables import LABEL_ISSUES, PREDICTIONS, SLICES, TRIALS, read_table

PREDICTION_KINDS = ("oof", "test")


class Workspace:
    """Read access to one workspace; nothing is loaded before it is asked for.

    Args:
        path: the folder that ``ichtune prepare --out`` made.
        origin: URL of the workspace where ``path`` only mirrors it; empty for a workspace on a disk.

    Attributes:
        layout: where each file lies.
    """

    def __init__(self, path: str | Path, origin: str = "") -> None:
        self.layout = Layout(Path(path))
        self.origin = origin
        self._opened: dict[str, HuCache] = {}

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

    @property
    def caches(self) -> list[dict[str, Any]]:
        """The HU caches of these slices: ``cache_id``, ``size_px`` (None for native) and ``crop`` of each."""
        base = {"cache_id": self.about["cache_id"], "size_px": self.about.get("size_px"), "crop": "none"}
        return list(self.about.get("caches") or [base])

    @property
    def hu_cache(self) -> HuCache:
        """The base cache: whole slices, at the size that was prepared first.

        Raises:
            DataError: it is absent or damaged, or has not one row for each slice.
        """
        return self._cache(str(self.about["cache_id"]))

    def cache_for(self, image_px: int, crop: str = "none") -> HuCache:
        """Return the cache to read for a network input: the smallest that need not be enlarged, else the largest.

        Args:
            image_px: side of the input, pixels.
            crop: what of each slice is wanted, from ``recipe.CROPS``.

        Raises:
            DataError: no cache with this crop was prepared (the message names the command), or it is damaged.
        """
        return self._cache(self.cache_id_for(image_px, crop))

    def cache_id_for(self, image_px: int, crop: str = "none") -> str:
        """Return the name of the cache that ``cache_for`` opens.

        Raises:
            DataError: no cache with this crop was prepared.
        """
        fitting = [cache for cache in self.caches if cache["crop"] == crop]
        if not fitting:
            there = ", ".join(sorted({str(cache["crop"]) for cache in self.caches}))
            raise DataError(
                f"workspace {self.layout.root} has no cache with crop {crop!r}, only {there}; build it with "
                f"`{self.prepare_command(image_px, crop)}`"
            )
        size_of = {str(cache["cache_id"]): cache["size_px"] or math.inf for cache in fitting}
        by_size = sorted(size_of, key=lambda cache_id: size_of[cache_id])
        return next((cache_id for cache_id in by_size if size_of[cache_id] >= image_px), by_size[-1])

    def prepare_command(self, size_px: int, crop: str) -> str:
        """Return the command that adds a cache to this workspace and leaves tables and folds as they are."""
        given = {
            "--labels": self.about.get("labels_path"),
            "--out": self.layout.root,
            "--size": size_px,
            "--crop": crop,
            "--folds": self.about.get("k"),
            "--seed": self.about.get("seed"),
        }
        options = [str(part) for flag, value in given.items() if value is not None for part in (flag, value)]
        return shlex.join(["ichtune", "prepare", str(self.about.get("source_dir") or "DICOM_DIR"), *options])

    def _cache(self, cache_id: str) -> HuCache:
        """Open a cache once, and only if its rows are those of the SliceTable."""
        if cache_id not in self._opened:
            cache = HuCache(self.layout.hu / cache_id)
            if cache.n_rows != len(self.slices):
                raise DataError(
                    f"the HU cache {cache.cache_id} has {cache.n_rows} rows, but {self.layout.slices} has "
                    f"{len(self.slices)}; run `ichtune prepare` again"
                )
            self._opened[cache_id] = cache
        return self._opened[cache_id]

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

    @cached_property
    def label_issues(self) -> pd.DataFrame:
        """Every label that contradicts another, is incomplete or names no usable file."""
        _ = self.about
        return read_table(self.layout.label_issues, LABEL_ISSUES)

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

    def run_about(self, recipe_id: str) -> dict[str, Any]:
        """Return what a run's recipe.json says of it: ``recipe``, ``summary``, its inputs; empty where it is not kept.

        Raises:
            DataError: the file is no JSON, or holds no mapping.
        """
        path = self.layout.runs / recipe_id / "recipe.json"
        if not path.is_file():
            return {}
        try:
            about = json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise DataError(f"{path} is no readable JSON ({error}); run `ichtune train` again") from error
        if not isinstance(about, dict):
            raise DataError(f"{path} must hold a JSON object, got {str(about)[:60]!r}; run `ichtune train` again")
        return about

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
