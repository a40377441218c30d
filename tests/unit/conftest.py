"""A small prepared workspace with trained runs, made without a pixel: what the blend, submission and score read."""

import copy
import json
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from ichtune.data.folds import FoldPlan, make_folds, write_folds
from ichtune.labels import LABELS, N_LABELS, SUBTYPES
from ichtune.tables import P_COLUMNS, PREDICTIONS, SLICES, write_json, write_table
from ichtune.workspace import Workspace

N_SLICES_A_PATIENT = 10


def sigmoid(z: np.ndarray) -> np.ndarray:
    return 1.0 / (1.0 + np.exp(-z))


@dataclass
class BlendWorkspace:
    """Files of one workspace, and the truth that it does not know. Patients ``P...`` are labelled, ``Q...`` are not."""

    root: Path
    slices: pd.DataFrame
    latent_NL: np.ndarray
    y_NL: np.ndarray
    plan: FoldPlan
    rng: np.random.Generator
    run_ids: list[str] = field(default_factory=list)

    def open(self) -> Workspace:
        return Workspace(self.root)

    @property
    def labelled(self) -> np.ndarray:
        return np.flatnonzero(self.slices["is_labelled"])

    @property
    def test(self) -> np.ndarray:
        return np.flatnonzero(~self.slices["is_labelled"] & (self.slices["status"] == "ok"))

    def frame(self, recipe_id: str, rows: np.ndarray, fold: np.ndarray | int, p_NL: np.ndarray) -> pd.DataFrame:
        ids = self.slices["image_id"].to_numpy(object)[rows]
        return pd.DataFrame(p_NL, columns=list(P_COLUMNS)).assign(recipe_id=recipe_id, fold=fold, image_id=ids)

    def predictions(self, recipe_id: str, noise: float) -> tuple[pd.DataFrame, pd.DataFrame]:
        """Return out-of-fold and test predictions of a model that sees the truth through noise."""

        def model(rows: np.ndarray) -> np.ndarray:
            return sigmoid(self.latent_NL[rows] + noise * self.rng.standard_normal((len(rows), N_LABELS)))

        folds = self.plan.folds_for(self.slices["patient_id"].iloc[self.labelled])
        oof = self.frame(recipe_id, self.labelled, folds, model(self.labelled))
        per_fold = [self.frame(recipe_id, self.test, fold, model(self.test)) for fold in range(self.plan.k)]
        return oof, pd.concat(per_fold, ignore_index=True)

    def write_run(
        self, recipe_id: str, oof: pd.DataFrame, test: pd.DataFrame | None, plan_hash: str | None = None
    ) -> None:
        folder = self.root / "runs" / recipe_id
        inputs = {"fold_plan_hash": plan_hash or self.plan.plan_hash, "recipe_id": recipe_id}
        write_table(oof, folder / "oof.parquet", PREDICTIONS, inputs)
        if test is not None:
            write_table(test, folder / "test.parquet", PREDICTIONS, inputs)
        recipe = {"architecture": f"net_{recipe_id}", "windows": "brain", "image_px": 64, "lr": 1e-3}
        summary = f"net_{recipe_id}|brain|64px|lr=1.0e-03"
        write_json({"recipe": recipe, "summary": summary}, folder / "recipe.json")
        self.run_ids.append(recipe_id)

    def add_run(self, recipe_id: str, noise: float) -> None:
        self.write_run(recipe_id, *self.predictions(recipe_id, noise))

    def write_truth(self, path: Path) -> Path:
        """Write the truth of every unlabelled slice, the refused one included, in an order of its own."""
        rows = np.flatnonzero(~self.slices["is_labelled"])
        ids = self.slices["image_id"].to_numpy(object)[rows]
        lines = [
            f"{i}_{label},{int(y)}"
            for i, y_L in zip(ids, self.y_NL[rows], strict=True)
            for label, y in zip(LABELS, y_L, strict=True)
        ]
        path.write_text("ID,Label\n" + "\n".join(sorted(lines)) + "\n", encoding="utf-8")
        return path

    def write_sample(self) -> list[str]:
        """Write the sample submission: every unlabelled slice, the refused one included, in a shuffled order."""
        rows = np.flatnonzero(~self.slices["is_labelled"])
        ids = self.slices["image_id"].to_numpy(object)[rows]
        row_ids = [f"{i}_{label}" for i in ids for label in (*SUBTYPES, "any")]
        self.rng.shuffle(row_ids)
        text = "ID,Label\n" + "".join(f"{row_id},0.5\n" for row_id in row_ids)
        (self.root / "sample_submission.csv").write_text(text, encoding="utf-8")
        return row_ids


@cache
def _drawn(
    n_patients: int, n_test_patients: int, seed: int, in_runs: bool
) -> tuple[pd.DataFrame, np.ndarray, np.ndarray, FoldPlan, np.random.Generator]:
    """Draw slices, latent log odds and labels of patients, and their folds; the generator goes on from there."""
    rng = np.random.default_rng(seed)
    patients = [f"P{i:03d}" for i in range(n_patients)] + [f"Q{i:03d}" for i in range(n_test_patients)]
    n = len(patients) * N_SLICES_A_PATIENT
    patient_effect = np.repeat(rng.standard_normal((len(patients), N_LABELS)), N_SLICES_A_PATIENT, axis=0)
    latent = -2.0 + 1.2 * patient_effect + 1.2 * rng.standard_normal((n, N_LABELS))
    y_NL = (rng.random((n, N_LABELS)) < sigmoid(latent)).astype(float)
    if in_runs:
        y_NL = labels_in_runs(len(patients), rng)
        latent = 4.0 * y_NL - 2.5
    y_NL[:, 0], latent[:, 0] = y_NL[:, 1:].max(axis=1), latent[:, 1:].max(axis=1) + 0.3
    slices = _slices(patients, y_NL)
    return slices, latent, y_NL, make_folds(slices, k=3, seed=seed), rng


def _slices(patients: list[str], y_NL: np.ndarray) -> pd.DataFrame:
    patient_N = np.repeat(patients, N_SLICES_A_PATIENT)
    n = len(patient_N)
    is_test = np.char.startswith(patient_N.astype(str), "Q")
    frame = pd.DataFrame({column: [0] * n for column, dtype in SLICES.columns.items() if dtype != "string"})
    frame = frame.assign(**{column: "" for column, dtype in SLICES.columns.items() if dtype == "string"})
    frame["image_id"] = [f"ID_{i:06d}" for i in range(n)]
    frame["patient_id"], frame["series_instance_uid"] = patient_N, patient_N
    frame["slice_rank"] = np.tile(np.arange(N_SLICES_A_PATIENT), len(patients))
    frame["z_mm"] = 5.0 * frame["slice_rank"]
    frame["frame_number"] = frame["n_at_position"] = 1
    frame["is_labelled"] = ~is_test
    frame["status"] = "ok"
    frame[list(LABELS)] = np.where(is_test[:, None], np.nan, y_NL)
    last_test = np.flatnonzero(is_test)[-1:]
    frame.loc[last_test, ["status", "reason"]] = ["refused", "truncated_pixel_data: 12 bytes missing"]
    return frame


def labels_in_runs(n_patients: int, rng: np.random.Generator) -> np.ndarray:
    """Return labels (N, L) that are on in neighbouring slices of some patients, as a bleed is."""
    place_N = np.tile(np.arange(N_SLICES_A_PATIENT), n_patients)
    y_NL = np.zeros((len(place_N), N_LABELS))
    for label in range(1, N_LABELS):
        first = np.repeat(rng.integers(0, N_SLICES_A_PATIENT, n_patients), N_SLICES_A_PATIENT)
        length = np.repeat(rng.integers(2, 7, n_patients) * (rng.random(n_patients) < 0.5), N_SLICES_A_PATIENT)
        y_NL[:, label] = (place_N >= first) & (place_N < first + length)
    return y_NL


@pytest.fixture
def make_blend_workspace(tmp_path: Path) -> Callable[..., BlendWorkspace]:
    """Return a function that writes a workspace: patients, folds, and one run for each noise level.

    With ``in_runs`` a slice's neighbours tell what it is; ``z_mm`` and ``slice_rank`` are those of a series.
    """

    def make(
        n_patients: int = 30,
        n_test_patients: int = 12,
        noises: tuple[float, ...] = (0.9, 1.1, 1.3),
        seed: int = 3,
        in_runs: bool = False,
    ) -> BlendWorkspace:
        slices, latent, y_NL, plan, rng = copy.deepcopy(_drawn(n_patients, n_test_patients, seed, in_runs))
        root = tmp_path / "work"
        write_table(slices, root / "slices.parquet", SLICES)
        write_folds(plan, root / "folds.parquet")
        about = {"fold_plan_hash": plan.plan_hash, "k": 3, "seed": seed, "cache_id": None, "generated": True}
        (root / "workspace.json").write_text(json.dumps(about), encoding="utf-8")
        made = BlendWorkspace(root, slices, latent, y_NL, plan, rng)
        for m, noise in enumerate(noises):
            made.add_run(f"r{m}", noise)
        return made

    return make
