"""A tiny but complete prepared workspace whose labels can be read from its pixels, made without a DICOM file."""

import gc
import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from ichtune.data.cache.hu_cache import (
    CACHE_FORMAT,
    CACHE_JSON,
    INDEX_FILE,
    file_checksum,
    file_sha256,
    index_of,
    pack_slice,
)
from ichtune.data.folds import make_folds, write_folds
from ichtune.labels import ANY, LABELS, SUBTYPES
from ichtune.layout import Layout
from ichtune.tables import LABEL_ISSUES, PREDICTIONS, SLICES, prediction_frame, write_json, write_table
from ichtune.workspace import Workspace

# Tiny networks gain nothing from threads, and one gives the same bits everywhere. Read when torch is imported.
os.environ.setdefault("OMP_NUM_THREADS", "1")

# A suite that a script starts in the background ignores Ctrl-C, and what it starts would do so too.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

FakeWorkspace = Callable[..., Workspace]


def pytest_collection_finish() -> None:
    """Spare the garbage collector what imports and collecting made: going through it again took a tenth of the time."""
    gc.collect()
    gc.freeze()


def pytest_sessionfinish() -> None:
    """Let everything end as it would have."""
    gc.unfreeze()


BRAIN_HU = 30
BLEED_PX = 8
CACHE_ID = "fakecache"


def bleed_hu(subtype: str) -> np.ndarray:
    """Return the patch that marks a subtype, int16 (8, 8): a texture that a small network tells apart."""
    row, column = np.mgrid[:BLEED_PX, :BLEED_PX]
    textures = {
        "epidural": np.ones_like(row),
        "intraparenchymal": np.zeros_like(row),
        "intraventricular": row // 2 % 2,
        "subarachnoid": column // 2 % 2,
        "subdural": (row // 2 + column // 2) % 2,
    }
    return (70 * textures[subtype] + 5).astype(np.int16)


def slice_hu(y: dict[str, int], size_px: int, rng: np.random.Generator) -> np.ndarray:
    """Return one slice int16 (size_px, size_px) in HU: noisy brain in air, and a patch for each subtype."""
    hu = np.full((size_px, size_px), -1000.0)
    hu[2:-2, 2:-2] = BRAIN_HU + rng.normal(0, 3, (size_px - 4, size_px - 4))
    places = rng.permutation((size_px // BLEED_PX) ** 2)
    for subtype, place in zip(SUBTYPES, places, strict=False):
        if y[subtype]:
            top, left = (BLEED_PX * int(p) for p in divmod(place, size_px // BLEED_PX))
            hu[top : top + BLEED_PX, left : left + BLEED_PX] = bleed_hu(subtype)
    return np.round(hu).astype(np.int16)


def slice_rows(n_patients: int, n_test_patients: int, n_slices: int, rng: np.random.Generator) -> pd.DataFrame:
    """Return a SliceTable in shuffled file order: patient P000 has two series, patients ``Q...`` have no labels."""
    rows = []
    for p in range(n_patients + n_test_patients):
        patient = f"P{p:03d}" if p < n_patients else f"Q{p:03d}"
        has = {subtype: rng.random() < 0.5 for subtype in SUBTYPES}
        for series in range(2 if p == 0 else 1):
            for rank in range(n_slices):
                y = {subtype: int(has[subtype] and rng.random() < 0.6) for subtype in SUBTYPES}
                y[ANY] = max(y.values())
                rows.append(
                    {"patient_id": patient, "series_instance_uid": f"{patient}.{series}", "slice_rank": rank} | y
                )
    table = pd.DataFrame(rows).sample(frac=1.0, random_state=int(rng.integers(2**31))).reset_index(drop=True)
    table["image_id"] = [f"ID_{i:06d}" for i in range(len(table))]
    table["sop_instance_uid"] = table["image_id"]
    table["dicom_study_uid"] = table["series_instance_uid"]
    table["path"] = table["image_id"] + ".dcm"
    table["z_mm"] = table["slice_rank"] * 5.0
    table["window_center_hu"] = 40.0
    table["window_width_hu"] = 80.0 + table["slice_rank"]
    has_none = table["patient_id"] == "P001"  # its files ask for no window
    table.loc[has_none, ["window_center_hu", "window_width_hu"]] = np.nan
    table["is_labelled"] = table["patient_id"].str.startswith("P")
    return table.assign(status="ok", reason="", encoding="plain")


def with_refused_and_duplicate(table: pd.DataFrame) -> pd.DataFrame:
    """Add a file without pixels and a second copy of the first slice: rows, but in no rank, fold or training."""
    extra = table.iloc[[0, 0]].copy()
    extra["image_id"] = ["ID_refused", f"{table['image_id'].iloc[0]}~2"]
    extra["path"] = extra["image_id"] + ".dcm"
    extra["status"] = ["refused", "duplicate"]
    extra["reason"] = ["truncated_pixel_data: 12 bytes missing", f"duplicate_sop_instance_uid: {table['path'].iloc[0]}"]
    extra["slice_rank"], extra["is_labelled"] = -1, False
    return pd.concat([table.iloc[:3], extra, table.iloc[3:]], ignore_index=True)


def write_hu_cache(folder: Path, slices: list[np.ndarray | None], size_px: int) -> None:
    """Write a cache of one shard, as ``ichtune.data.cache.hu_cache`` describes it."""
    folder.mkdir(parents=True)
    packed = [b"" if hu is None else pack_slice(hu) for hu in slices]
    index = index_of(packed, [(0, 0) if hu is None else hu.shape for hu in slices])
    shard = folder / "00000.hu.b2"
    shard.write_bytes(b"".join(packed))
    np.save(folder / INDEX_FILE, index)
    about = {
        "cache_id": folder.name,
        "format": CACHE_FORMAT,
        "size_px": size_px,
        "crop": "none",
        "rows_id": f"rows of {folder.name}",
        "n_rows": len(index),
        "index_sha256": file_sha256(folder / INDEX_FILE),
        "shards": [{"name": shard.name, "n_bytes": shard.stat().st_size, "checksum": file_checksum(shard)}],
    }
    write_json(about, folder / CACHE_JSON)


def write_fake_workspace(
    root: Path,
    n_patients: int = 9,
    n_test_patients: int = 2,
    n_slices: int = 5,
    size_px: int = 32,
    k: int = 3,
    seed: int = 7,
) -> Workspace:
    """Write SliceTable, HU cache, fold plan and workspace.json, and open them."""
    rng = np.random.default_rng(seed)
    layout = Layout(root)
    table = with_refused_and_duplicate(slice_rows(n_patients, n_test_patients, n_slices, rng))
    pixels = [
        None if row["status"] == "refused" else slice_hu({s: row[s] for s in SUBTYPES}, size_px, rng)
        for row in table.to_dict("records")
    ]
    write_hu_cache(layout.hu / CACHE_ID, pixels, size_px)
    table[list(LABELS)] = table[list(LABELS)].where(table["is_labelled"], np.nan)
    empty = {
        column: pd.Series(["" if dtype == "string" else 0] * len(table), dtype=dtype)
        for column, dtype in SLICES.columns.items()
        if column not in table
    }
    table = pd.concat([table, pd.DataFrame(empty)], axis=1)
    write_table(table, layout.slices, SLICES, {"cache_id": CACHE_ID})
    issues = pd.DataFrame({column: pd.Series(dtype="string") for column in LABEL_ISSUES.columns})
    write_table(issues, layout.label_issues, LABEL_ISSUES)
    plan = make_folds(table, k, seed)
    write_folds(plan, layout.folds)
    about = {
        "source_dir": "nowhere",
        "labels_csv": {"name": "labels.csv", "sha256": "0" * 64},
        "labels_path": "nowhere/labels.csv",
        "cache_id": CACHE_ID,
        "size_px": size_px,
        "fold_plan_hash": plan.plan_hash,
        "k": k,
        "seed": seed,
        "generated": True,
    }
    write_json(about, layout.workspace_json)
    return Workspace(root)


def write_first_level_run(workspace: Workspace, recipe_id: str, noise: float = 1.5, seed: int = 0) -> None:
    """Write what ``ichtune train`` leaves of a run: predictions that see the labels through noise, never trained."""
    rng, labelled, layout = np.random.default_rng([seed, *map(ord, recipe_id)]), workspace.labelled, workspace.layout
    y_NL, plan = labelled[list(LABELS)].to_numpy(np.float64), workspace.fold_plan
    recipe = {"architecture": "tiny_convnet", "windows": "brain", "seed": seed}
    about = {"fold_plan_hash": plan.plan_hash, "cache_id": CACHE_ID, "recipe_id": recipe_id}
    write_json({"recipe": recipe, "summary": f"net {recipe_id}", **about}, layout.runs / recipe_id / "recipe.json")

    def seen(z_NL: np.ndarray) -> np.ndarray:
        return 1.0 / (1.0 + np.exp(-z_NL - noise * rng.standard_normal(z_NL.shape)))

    folds, p_NL = plan.folds_for(labelled["patient_id"]), seen(4.0 * y_NL - 2.0)
    oof = prediction_frame(recipe_id, folds, labelled["image_id"], p_NL)
    write_table(oof, layout.oof(recipe_id), PREDICTIONS, about)
    test = [
        prediction_frame(recipe_id, fold, ids, seen(np.full((len(ids), len(LABELS)), -2.0)))
        for fold in range(plan.k)
        for ids in [workspace.unlabelled["image_id"]]
    ]
    write_table(pd.concat(test, ignore_index=True), layout.test(recipe_id), PREDICTIONS, about)


@pytest.fixture
def first_level_workspace(fake_workspace: FakeWorkspace) -> FakeWorkspace:
    """Return a function that writes a workspace with two runs of the first level; nothing was trained."""

    def make(name: str = "stacked", **settings: Any) -> Workspace:
        workspace = fake_workspace(name, **{"n_patients": 15, **settings})
        for recipe_id in FIRST_LEVEL_RUNS:
            write_first_level_run(workspace, recipe_id)
        return workspace

    return make


#: Runs of ``first_level_workspace``.
FIRST_LEVEL_RUNS = ("aaaaaaaaaaa1", "bbbbbbbbbbb2")
#: Keys of recipes that between them hold every kind of state, of draw and of loss.
STATEFUL: dict[str, dict[str, Any]] = {
    "plain": {},
    "everything random": {
        "dropout": 0.3,
        "window_jitter": 0.1,
        "mixup": 0.4,
        "cutmix": 1.0,
        "cutout": 0.5,
        "noise_hu": 5.0,
        "flip_slices": 0.5,
        "neighbours": 1,
        "neighbour_targets": 0.3,
        "augmentation": "affine",
        "negative_share": 0.5,
        "calibration": "prior_shift",
        "rotate_deg": 30.0,
        "zoom": 0.2,
        "shift": 0.1,
        "gain_jitter": 0.1,
    },
    "ranger, frozen head, layer rates": {
        "optimizer": "ranger",
        "frozen_epochs": 1,
        "layer_lr_decay": 0.7,
        "grad_clip": 0.5,
        "accumulation": 3,
    },
    "plateau, snapshots": {"lr_schedule": "plateau", "snapshots": 2, "optimizer": "sgd", "learnable_windows": True},
    "averaged weights": {"ema_decay": 0.0, "swa_start": 0.4, "normalisation": "data", "optimizer": "lion", "lr": 1e-3},
    "focal, sigmoid windows": {"loss": "focal", "window_shape": "sigmoid", "any_rule": "noisy_or", "pooling": "gem"},
}


@pytest.fixture(params=STATEFUL)
def stateful(request: pytest.FixtureRequest) -> dict[str, Any]:
    """The keys of each of ``STATEFUL`` in turn."""
    return STATEFUL[request.param]


@pytest.fixture
def everything_random() -> dict[str, Any]:
    """Keys of a recipe in which all is drawn that can be."""
    return STATEFUL["everything random"]


@pytest.fixture
def fake_workspace(tmp_path: Path) -> FakeWorkspace:
    """Return a function that writes a workspace below ``tmp_path`` and opens it; see ``write_fake_workspace``."""

    def make(name: str = "work", **settings: int) -> Workspace:
        return write_fake_workspace(tmp_path / name, **settings)

    return make


@pytest.fixture(scope="session")
def session_workspace(tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    """A fake workspace that many tests share: read it, write nothing into it."""
    return write_fake_workspace(tmp_path_factory.mktemp("session") / "work")
