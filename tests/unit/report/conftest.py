"""A workspace with everything that a report can show: pictures, trials, runs, a blend and a submission."""

import hashlib
import json
import math
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from ichtune.data.cache.hu_cache import CACHE_FORMAT, index_of, pack_slice
from ichtune.ensemble.blend import run_blend
from ichtune.ensemble.spec import BlendSpec
from ichtune.models.network import create_network
from ichtune.recipe import Recipe
from ichtune.report.submission import write_submission
from ichtune.second_level.stacking_runs import stack
from ichtune.second_level_recipe import SecondLevelRecipe
from ichtune.tables import LABEL_ISSUES, PREDICTIONS, SLICES, TRIALS, prediction_frame, write_json, write_table
from ichtune.training.embeddings import write_embeddings
from ichtune.training.fold_run import WEIGHTS_FILE, fold_folder, fold_rows, open_batches
from ichtune.training.predict import extract, load_model, save_model
from ichtune.training.provenance import patient_marks
from ichtune.training.run_folder import inputs_of
from ichtune.workspace import Workspace

SIZE_PX = 8
UID = "1.2.840.113619.2.5.1762583153.215519"


def write_hu_cache(folder: Path, has_pixels: np.ndarray) -> None:
    """Write a cache of one shard by hand: row i is filled with i HU, refused rows have no pixels."""
    folder.mkdir(parents=True)
    slices = [np.full((SIZE_PX, SIZE_PX), row, np.int16) if has else None for row, has in enumerate(has_pixels)]
    packed = [b"" if hu is None else pack_slice(hu) for hu in slices]
    index = index_of(packed, [(0, 0) if hu is None else hu.shape for hu in slices])
    (folder / "00000.hu.b2").write_bytes(b"".join(packed))
    np.save(folder / "index.npy", index)
    digest = hashlib.sha256((folder / "index.npy").read_bytes()).hexdigest()
    shards = [{"name": "00000.hu.b2", "n_bytes": sum(map(len, packed)), "checksum": ""}]
    about = {"cache_id": folder.name, "size_px": SIZE_PX, "format": CACHE_FORMAT, "n_rows": len(index)}
    about |= {"crop": "none", "rows_id": "rows"}
    write_json({**about, "shards": shards, "index_sha256": digest}, folder / "cache.json")


_DISTRIBUTIONS = {
    "windows": {"name": "CategoricalDistribution", "attributes": {"choices": ["brain", "bone", "brain_subdural_bone"]}},
    "lr": {"name": "FloatDistribution", "attributes": {"low": 1e-4, "high": 1e-1, "log": True, "step": None}},
}


def trial(
    number: int,
    windows: str,
    losses: list[float],
    status: str,
    reason: str = "",
    rungs: dict[int, float] | None = None,
    lr: float | None = None,
) -> dict[str, object]:
    """Return one row of the trial table; at an epoch of ``rungs`` it was judged by half an epoch's branch."""
    recipe = Recipe(architecture="tiny_convnet", windows=windows, lr=lr or 1e-3 * (number + 1), seed=number)
    curve = [
        {"epoch": e, "val_weighted_log_loss": v, "train_loss": v, "lr": 0.1, "seconds": 1.5}
        for e, v in enumerate(losses, start=1)
    ]
    rungs = rungs or {}
    for epoch, loss in rungs.items():
        curve[epoch - 1] |= {"rung": epoch, "rung_loss": loss, "cost": 1.5, "seconds": 1.5 * 1.5}
    parameters = {"windows": windows, "lr": recipe.lr, "epochs": 4}
    distributions = {name: json.dumps(told) for name, told in _DISTRIBUTIONS.items()}
    return {
        "search": "windows",
        "trial": number,
        "recipe_id": recipe.recipe_id,
        "status": status,
        "reason": reason,
        "epochs": len(losses),
        "best_loss": min(losses, default=math.nan),
        "last_loss": losses[-1] if losses else math.nan,
        "seconds": 1.5 * (len(losses) + 0.5 * len(rungs)),
        "epochs_spent": len(losses) + 0.5 * len(rungs),
        "n_rungs": len(rungs),
        "rung_loss": rungs[max(rungs)] if rungs else math.nan,
        "duplicate_of": "",
        "recipe": json.dumps(recipe.to_dict()),
        "parameters": json.dumps(parameters),
        "optuna": json.dumps({"params": {"windows": windows, "lr": recipe.lr}, "distributions": distributions}),
        "curve": json.dumps(curve),
    }


@pytest.fixture
def trial_row():
    """Return the function that makes one row of the trial table."""
    return trial


TRIAL_ROWS = [
    trial(0, "brain", [0.30, 0.22, 0.20], "finished"),
    trial(1, "bone", [0.31, 0.30], "stopped", rungs={2: 0.29}),
    trial(2, "brain_subdural_bone", [0.25, 0.15, 0.12], "finished", rungs={2: 0.14}),
    trial(3, "brain", [9.0], "failed", f"diverged <b>on</b> {UID} of patient P003"),
    trial(4, "brain", [], "interrupted"),
]


def complete(made) -> None:
    """Turn a blend workspace into one that a whole job has left behind."""
    root = made.root
    made.slices["rows_px"] = made.slices["columns_px"] = 512
    made.slices["encoding"] = np.where(np.arange(len(made.slices)) % 3, "12u-1024", "16s-1024")
    write_table(made.slices, root / "slices.parquet", SLICES)
    write_hu_cache(root / "hu" / "cache1", (made.slices["status"] == "ok").to_numpy())
    about = json.loads((root / "workspace.json").read_text(encoding="utf-8"))
    about |= {"cache_id": "cache1", "size_px": SIZE_PX, "source_dir": str(root / "phantom")}
    about["labels_csv"] = {"name": "labels.csv", "sha256": "ab" * 32}
    write_json(about, root / "workspace.json")
    issues = [{"image_id": "ID_000001", "issue": "duplicate_agrees", "detail": "twice"}]
    write_table(pd.DataFrame(issues), root / "label_issues.parquet", LABEL_ISSUES)
    write_table(pd.DataFrame(TRIAL_ROWS), root / "trials.parquet", TRIALS)
    ledger = root / "searches" / "windows" / "ledger.jsonl"
    ledger.parent.mkdir(parents=True)
    ledger.write_text(
        json.dumps({"event": "search", "space": {"name": "windows", "search": {"seed": 11, "trials": 5}}}) + "\n",
        encoding="utf-8",
    )
    (root / "runs" / "halfway").mkdir()
    made.write_sample()
    workspace = made.open()
    blended = run_blend(workspace, BlendSpec(blender="convex"))
    write_submission(workspace, blended.panel.test_image_ids, blended.p_test_TL)


@pytest.fixture
def full_workspace(make_blend_workspace):
    """Return the made workspace with every section filled."""
    made = make_blend_workspace()
    complete(made)
    return made


COMMON = {"architecture": "tiny_convnet", "image_px": 32, "batch_size": 8, "epochs": 1}


def untrained_state(recipe: Recipe) -> dict[str, torch.Tensor]:
    """Return weights of a network that never learnt anything, and yet tells slices apart."""
    state = create_network(replace(recipe, pretrained=False, warm_start="")).state_dict()
    state["body.classifier.weight"] *= 30.0
    return state


def write_untrained_run(
    workspace: Workspace, recipe: Recipe, seed: int = 0, embeddings: bool = False, n_networks: int = 1
) -> None:
    """Write a run as training leaves it: its fold models are networks that never learnt anything."""
    inputs = {"recipe_id": recipe.recipe_id, **inputs_of(workspace)}
    data, run = open_batches(workspace, recipe), workspace.layout.runs / recipe.recipe_id
    tables: dict[str, list[pd.DataFrame]] = {"oof": [], "test": []}
    for fold in range(workspace.fold_plan.k):
        torch.manual_seed(100 * seed + fold)
        path, rows = fold_folder(workspace, recipe.recipe_id, fold) / WEIGHTS_FILE, fold_rows(workspace, fold)
        states = [untrained_state(recipe) for _ in range(n_networks)]
        marks = sorted(patient_marks(workspace.slices["patient_id"][rows.train]))
        save_model(path, states, recipe, {"fold": fold, **inputs}, learnt_from=marks)
        model, _ = load_model(path, torch.device("cpu"))
        for kind, wanted in (("oof", rows.valid), ("test", rows.test)):
            found = extract(model, recipe, data, wanted, torch.device("cpu"), embeddings=embeddings)
            ids = workspace.slices["image_id"][wanted]
            tables[kind].append(prediction_frame(recipe.recipe_id, fold, ids, found.p_MNL.mean(axis=0)))
            if found.e_MND is not None:
                write_embeddings(path.with_name(f"{kind}_embeddings.parquet"), ids.tolist(), found.e_MND, inputs)
    write_json({"recipe": recipe.to_dict(), "summary": recipe.summary, **inputs}, run / "recipe.json")
    for kind, frames in tables.items():
        write_table(pd.concat(frames, ignore_index=True), run / f"{kind}.parquet", PREDICTIONS, inputs)


@pytest.fixture
def untrained():
    """Return the function that gives weights of an untrained network."""
    return untrained_state


@pytest.fixture
def write_untrained():
    """Return the function that writes a run of untrained networks."""
    return write_untrained_run


@pytest.fixture(scope="session")
def networks_template(session_workspace, tmp_path_factory):
    """A workspace with runs of two untrained recipes, to be copied."""
    root = tmp_path_factory.mktemp("networks") / "work"
    shutil.copytree(session_workspace.layout.root, root)
    for seed, windows in enumerate(("brain", "subdural")):
        write_untrained_run(Workspace(root), Recipe(**COMMON, windows=windows), seed)
    return root


@pytest.fixture
def blended_networks(networks_template, tmp_path):
    """Return a function that gives a workspace with a blend of untrained networks, one run for each recipe's keys."""

    def make(
        *recipes: dict[str, object], workspace: Workspace | None = None, spec: BlendSpec | None = None
    ) -> Workspace:
        if workspace is None:
            shutil.copytree(networks_template, tmp_path / "work")
            workspace = Workspace(tmp_path / "work")
        if recipes:
            shutil.rmtree(workspace.layout.runs, ignore_errors=True)
        for seed, keys in enumerate(recipes):
            write_untrained_run(workspace, Recipe(**(COMMON | keys)), seed)
        run_blend(workspace, spec or BlendSpec(blender="equal_mean_logit"))
        return workspace

    return make


#: Models of the second level that are quickly fitted.
GAUSSIAN = {"model": "gaussian"}
GRU = {"model": "gru", "hidden": 8, "layers": 1, "epochs": 2, "batch_size": 4, "lr": 0.05}


@pytest.fixture(scope="session")
def stacked_template(networks_template, tmp_path_factory):
    """The workspace of ``networks_template`` with second levels, to be copied, and the recipe_ids of these."""
    root = tmp_path_factory.mktemp("stacked") / "work"
    shutil.copytree(networks_template, root)
    return root, [stack(Workspace(root), SecondLevelRecipe(**one)).recipe.recipe_id for one in (GAUSSIAN, GRU)]


@pytest.fixture
def stacked_networks(stacked_template, tmp_path):
    """Return a function that gives a workspace with a blend of untrained networks and second levels on them.

    It returns the recipe_ids of the second levels too; with ``alone`` the blend is of these. By default they are
    smoothing and a small recurrent network; else one for each recipe's keys.
    """

    def make(
        *keys: dict[str, object], alone: bool = False, workspace: Workspace | None = None, spec: BlendSpec | None = None
    ) -> tuple[Workspace, list[str]]:
        template, stacked = stacked_template
        if workspace is None:
            shutil.copytree(template, tmp_path / "work")
            workspace = Workspace(tmp_path / "work")
        if keys:
            stacked = [stack(workspace, SecondLevelRecipe(**one)).recipe.recipe_id for one in keys]
        members = tuple(stacked) if alone else "all"
        run_blend(workspace, spec or BlendSpec(members=members, blender="equal_mean_logit"))
        return workspace, stacked

    return make
