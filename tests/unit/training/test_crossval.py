"""Cross-validation: each labelled slice once, by a model that saw none of its patient; nothing trained twice."""

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

from ichtune.data.cache.hu_cache import CACHE_JSON
from ichtune.data.folds import FoldPlan, make_folds, write_folds
from ichtune.errors import ConflictError, DataError, NothingUsableError
from ichtune.labels import LABELS
from ichtune.metrics import weighted_log_loss
from ichtune.recipe import Recipe
from ichtune.tables import P_COLUMNS, PREDICTIONS, read_table, table_about, write_json, write_table
from ichtune.training import crossval
from ichtune.training.crossval import TrainOptions, assemble_run, finished_fold, is_complete, train_fold
from ichtune.training.embeddings import read_embeddings
from ichtune.training.fold_run import fold_folder, fold_rows, open_batches
from ichtune.training.loop import EpochResult, TrainingRun
from ichtune.training.predict import load_model
from ichtune.training.provenance import patient_marks
from ichtune.workspace import Workspace

pytestmark = pytest.mark.slow  # whole runs

CPU = torch.device("cpu")
FakeWorkspace = Callable[..., Workspace]
RECIPE = Recipe(architecture="tiny_convnet", windows="brain", image_px=32, lr=1e-2, epochs=2, batch_size=16)  # type: ignore[arg-type]


def train_all(workspace: Workspace, recipe: Recipe = RECIPE) -> None:
    for fold in range(workspace.fold_plan.k):
        train_fold(workspace, recipe, fold, CPU)


def change_folds(workspace: Workspace) -> Workspace:
    """Give every patient the next fold, as another `prepare` might, and open the workspace anew."""
    old = workspace.fold_plan
    plan = FoldPlan(old.k, old.seed, {patient: (fold + 1) % old.k for patient, fold in old.fold_of.items()})
    write_folds(plan, workspace.layout.folds)
    write_json({**workspace.about, "fold_plan_hash": plan.plan_hash}, workspace.layout.workspace_json)
    return Workspace(workspace.layout.root)


def with_crop(workspace: Workspace, cache_id: str = "cropped", crop: str = "head") -> Workspace:
    """Add a second cache with the same pixels under the name of a crop, and open the workspace anew."""
    layout = workspace.layout
    base = workspace.hu_cache
    shutil.copytree(base.folder, layout.hu / cache_id)
    about = json.loads((base.folder / CACHE_JSON).read_text(encoding="utf-8"))
    write_json({**about, "cache_id": cache_id, "crop": crop}, layout.hu / cache_id / CACHE_JSON)
    added = {"cache_id": cache_id, "size_px": base.size_px, "crop": crop}
    write_json({**workspace.about, "caches": [*workspace.caches, added]}, layout.workspace_json)
    return Workspace(layout.root)


def files_of(folder: Path) -> dict[str, tuple[int, bytes]]:
    return {path.name: (path.stat().st_mtime_ns, path.read_bytes()) for path in folder.iterdir()}


def test_every_labelled_slice_is_predicted_once_by_the_model_without_its_patient(fake_workspace: FakeWorkspace) -> None:
    workspace = fake_workspace()
    train_all(workspace)
    loss = assemble_run(workspace, RECIPE)
    oof = workspace.predictions("oof")
    assert sorted(oof["image_id"]) == sorted(workspace.labelled["image_id"])
    joined = oof.merge(workspace.slices, on="image_id")
    np.testing.assert_array_equal(workspace.fold_plan.folds_for(joined["patient_id"]), joined["fold"])
    expected = weighted_log_loss(joined[list(LABELS)].to_numpy(), joined[list(P_COLUMNS)].to_numpy())
    assert loss == pytest.approx(expected, rel=1e-12)


def test_every_fold_model_predicts_every_unlabelled_slice(fake_workspace: FakeWorkspace) -> None:
    workspace = fake_workspace()
    train_all(workspace)
    assemble_run(workspace, RECIPE)
    test = workspace.predictions("test")
    ids = sorted(workspace.unlabelled["image_id"])
    assert {fold: sorted(rows["image_id"]) for fold, rows in test.groupby("fold")} == {0: ids, 1: ids, 2: ids}
    assert table_about(workspace.layout.test(RECIPE.recipe_id))["inputs"] == {
        "recipe_id": RECIPE.recipe_id,
        "fold_plan_hash": workspace.fold_plan.plan_hash,
        "cache_id": workspace.about["cache_id"],
        "labels_sha256": workspace.about["labels_csv"]["sha256"],
    }
    kept = json.loads((workspace.layout.runs / RECIPE.recipe_id / "recipe.json").read_text(encoding="utf-8"))
    assert Recipe.from_dict(kept["recipe"]) == RECIPE


def test_a_fold_reports_the_loss_of_the_predictions_that_it_keeps(fake_workspace: FakeWorkspace) -> None:
    workspace = fake_workspace()
    epochs: list[EpochResult] = []
    result = train_fold(workspace, RECIPE, 1, CPU, epochs.append)
    assert [epoch.epoch for epoch in epochs] == [1, 2]
    assert result.val_weighted_log_loss == epochs[-1].val_weighted_log_loss
    oof = read_table(fold_folder(workspace, RECIPE.recipe_id, 1) / "oof.parquet", PREDICTIONS)
    y_NL = oof[["image_id"]].merge(workspace.slices, on="image_id")[list(LABELS)].to_numpy()
    assert result.val_weighted_log_loss == pytest.approx(weighted_log_loss(y_NL, oof[list(P_COLUMNS)].to_numpy()))
    assert sorted(files_of(fold_folder(workspace, RECIPE.recipe_id, 1))) == [
        "best.json",
        "best.safetensors",
        "curve.json",
        "oof.parquet",
        "run.json",
        "test.parquet",
        "weights.json",
        "weights.safetensors",
    ]


def test_a_finished_fold_is_not_trained_again(fake_workspace: FakeWorkspace, monkeypatch: pytest.MonkeyPatch) -> None:
    workspace = fake_workspace()
    first = train_fold(workspace, RECIPE, 0, CPU)
    before = files_of(fold_folder(workspace, RECIPE.recipe_id, 0))
    monkeypatch.setattr(crossval, "open_fold", None)
    assert train_fold(workspace, RECIPE, 0, CPU) == first == finished_fold(workspace, RECIPE, 0)
    assert files_of(fold_folder(workspace, RECIPE.recipe_id, 0)) == before
    assert finished_fold(workspace, RECIPE, 1) is None
    assert finished_fold(workspace, replace(RECIPE, seed=8), 0) is None


def test_an_interrupted_fold_goes_on_to_the_same_predictions(
    fake_workspace: FakeWorkspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole, cut = fake_workspace("whole"), fake_workspace("cut")
    train_fold(whole, RECIPE, 0, CPU)

    def interrupt(result: EpochResult) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train_fold(cut, RECIPE, 0, CPU, interrupt)
    epochs: list[EpochResult] = []
    train_fold(cut, RECIPE, 0, CPU, epochs.append)
    assert [epoch.epoch for epoch in epochs] == [2]
    for name in ("oof.parquet", "test.parquet"):
        one, other = (read_table(fold_folder(w, RECIPE.recipe_id, 0) / name, PREDICTIONS) for w in (whole, cut))
        pd.testing.assert_frame_equal(one, other)
    assert not (fold_folder(cut, RECIPE.recipe_id, 0) / "resume.safetensors").exists()


def test_a_fold_killed_within_an_epoch_goes_on_from_its_last_checkpoint(
    fake_workspace: FakeWorkspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole, cut = fake_workspace("whole"), fake_workspace("cut")
    train_fold(whole, RECIPE, 0, CPU)
    step, n_steps, wanted = TrainingRun.step, 0, 4

    def killed(run: TrainingRun, *batch: Any) -> Any:
        nonlocal n_steps
        n_steps += 1
        if n_steps == wanted:
            raise KeyboardInterrupt
        return step(run, *batch)

    monkeypatch.setattr(TrainingRun, "step", killed)
    with pytest.raises(KeyboardInterrupt):
        train_fold(cut, RECIPE, 0, CPU, options=TrainOptions(checkpoint_s=0.0))
    wanted, n_steps = -1, 0
    train_fold(cut, RECIPE, 0, CPU)
    in_all = RECIPE.epochs * -(-len(cut.labelled) * 2 // 3 // RECIPE.batch_size)
    assert n_steps <= in_all - 3 + 1
    for name in ("oof.parquet", "test.parquet"):
        one, other = (read_table(fold_folder(w, RECIPE.recipe_id, 0) / name, PREDICTIONS) for w in (whole, cut))
        pd.testing.assert_frame_equal(one, other)


def test_every_epoch_s_weights_and_embeddings_are_kept_where_asked(fake_workspace: FakeWorkspace) -> None:
    workspace = fake_workspace()
    recipe = replace(RECIPE, snapshots=2, tta="flip")
    train_fold(workspace, recipe, 0, CPU, options=TrainOptions(keep_snapshots=True, embeddings=True))
    folder = fold_folder(workspace, recipe.recipe_id, 0)
    assert {"epoch_01.safetensors", "epoch_02.safetensors", "best.safetensors"} <= set(files_of(folder))
    for kind in ("oof", "test"):
        ids = read_table(folder / f"{kind}.parquet", PREDICTIONS)["image_id"].tolist()
        e_MND = read_embeddings(folder / f"{kind}_embeddings.parquet", ids[::-1])
        assert e_MND.shape == (2, len(ids), 128)
        assert np.isfinite(e_MND).all()
        assert e_MND.std(axis=1).max() > 0
        assert not np.array_equal(e_MND[0], e_MND[1])


def test_embeddings_are_added_to_a_fold_that_is_trained_already(
    fake_workspace: FakeWorkspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    workspace = fake_workspace()
    wanted = TrainOptions(embeddings=True)
    train_fold(workspace, RECIPE, 0, CPU)
    weights = fold_folder(workspace, RECIPE.recipe_id, 0) / "weights.safetensors"
    before = weights.read_bytes()
    assert not is_complete(workspace, RECIPE, 0, wanted)
    monkeypatch.setattr(crossval, "open_fold", None)
    train_fold(workspace, RECIPE, 0, CPU, options=wanted)
    assert is_complete(workspace, RECIPE, 0, wanted)
    assert weights.read_bytes() == before
    oof = read_table(weights.with_name("oof.parquet"), PREDICTIONS)
    e_ND = read_embeddings(weights.with_name("oof_embeddings.parquet"), oof["image_id"].tolist())[0]
    with torch.no_grad():
        answer_NK = load_model(weights, CPU)[0].networks[0].answer(torch.from_numpy(e_ND.astype(np.float32)))
    np.testing.assert_allclose(torch.sigmoid(answer_NK), oof[list(P_COLUMNS)], atol=2e-3)


def test_embeddings_of_no_unlabelled_slices_are_an_empty_table(fake_workspace: FakeWorkspace) -> None:
    workspace = fake_workspace(n_test_patients=0)
    train_fold(workspace, RECIPE, 0, CPU, options=TrainOptions(embeddings=True))
    path = fold_folder(workspace, RECIPE.recipe_id, 0) / "test_embeddings.parquet"
    assert read_embeddings(path, []).shape == (1, 0, 128)


def test_what_a_kill_left_behind_is_cleared_away(fake_workspace: FakeWorkspace) -> None:
    workspace = fake_workspace()
    folder = fold_folder(workspace, RECIPE.recipe_id, 0)
    folder.mkdir(parents=True)
    (folder / ".resume.safetensors.123.tmp").write_bytes(b"half")
    kept = [path.name for path in folder.iterdir()]
    train_fold(workspace, RECIPE, 0, CPU)
    (folder / "resume.safetensors").write_bytes(b"left by a kill after run.json")
    train_fold(workspace, RECIPE, 0, CPU)
    assert not {"resume.safetensors", *kept} & {path.name for path in folder.iterdir()}


def test_an_average_that_predicts_leaves_the_last_weights_too(fake_workspace: FakeWorkspace) -> None:
    workspace = fake_workspace()
    recipe = replace(RECIPE, ema_decay=0.9)
    train_fold(workspace, recipe, 0, CPU)
    folder = fold_folder(workspace, recipe.recipe_id, 0)
    weights, last = (load_model(folder / f"{name}.safetensors", CPU)[0].networks[0] for name in ("weights", "last"))
    pairs = zip(weights.parameters(), last.parameters(), strict=True)
    assert any(not torch.equal(one, other) for one, other in pairs)


def test_the_sidecar_says_what_the_weights_are_and_names_no_patient(fake_workspace: FakeWorkspace) -> None:
    workspace = fake_workspace()
    train_fold(workspace, RECIPE, 0, CPU)
    folder = fold_folder(workspace, RECIPE.recipe_id, 0)
    text = (folder / "weights.json").read_text(encoding="utf-8")
    about = json.loads(text)
    assert Recipe.from_dict(about["recipe"]) == RECIPE
    assert about["fold"] == 0
    assert about["fold_plan_hash"] == workspace.fold_plan.plan_hash
    patients = workspace.slices["patient_id"]
    assert about["learnt_from"] == sorted(patient_marks(patients[fold_rows(workspace, 0).train]))
    assert not [patient for patient in patients.unique() if patient in text]


def test_the_best_epoch_is_kept_and_does_not_predict(fake_workspace: FakeWorkspace) -> None:
    workspace = fake_workspace()
    recipe = replace(RECIPE, lr=0.3, epochs=6, lr_schedule="constant")
    epochs: list[EpochResult] = []
    train_fold(workspace, recipe, 0, CPU, epochs.append)
    losses = [epoch.val_weighted_log_loss for epoch in epochs]
    folder = fold_folder(workspace, recipe.recipe_id, 0)
    best = json.loads((folder / "best.json").read_text(encoding="utf-8"))
    assert best["val_weighted_log_loss"] == min(losses)
    assert best["epoch"] == losses.index(min(losses)) + 1 < recipe.epochs
    kept = finished_fold(workspace, recipe, 0)
    assert kept is not None
    assert kept.val_weighted_log_loss == losses[-1]


def test_a_fold_begun_on_another_plan_is_not_taken_up(fake_workspace: FakeWorkspace) -> None:
    workspace = fake_workspace()

    def interrupt(result: EpochResult) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train_fold(workspace, RECIPE, 0, CPU, interrupt)
    with pytest.raises(ConflictError, match=r"was trained on other slices or folds"):
        train_fold(change_folds(workspace), RECIPE, 0, CPU)


def test_a_fold_trained_on_another_plan_is_a_conflict(fake_workspace: FakeWorkspace) -> None:
    workspace = fake_workspace()
    train_all(workspace)
    other = change_folds(workspace)
    for judge in (lambda: train_fold(other, RECIPE, 0, CPU), lambda: assemble_run(other, RECIPE)):
        with pytest.raises(ConflictError, match=r"was trained with fold_plan_hash .* but the workspace now has"):
            judge()


def test_a_fold_trained_on_other_labels_is_a_conflict(fake_workspace: FakeWorkspace) -> None:
    workspace = fake_workspace()
    train_fold(workspace, RECIPE, 0, CPU)
    about = {**workspace.about, "labels_csv": {"name": "labels.csv", "sha256": "1" * 64}}
    write_json(about, workspace.layout.workspace_json)
    with pytest.raises(ConflictError, match=r"was trained with labels_sha256 000"):
        train_fold(Workspace(workspace.layout.root), RECIPE, 0, CPU)


def test_a_run_is_put_together_from_all_folds_or_not_at_all(fake_workspace: FakeWorkspace) -> None:
    workspace = fake_workspace()
    train_fold(workspace, RECIPE, 0, CPU)
    with pytest.raises(DataError, match=r"folds \[1, 2\] of recipe .* are not trained yet: run `ichtune train`"):
        assemble_run(workspace, RECIPE)
    train_all(workspace)
    path = fold_folder(workspace, RECIPE.recipe_id, 2) / "oof.parquet"
    write_table(read_table(path, PREDICTIONS).iloc[1:], path, PREDICTIONS)
    with pytest.raises(DataError, match=r"must cover each of the 50 labelled slices once, got 49 rows of 49 slices"):
        assemble_run(workspace, RECIPE)
    assert workspace.run_ids() == []


def test_a_fold_whose_record_is_damaged_says_so(fake_workspace: FakeWorkspace) -> None:
    workspace = fake_workspace()
    train_fold(workspace, RECIPE, 0, CPU)
    folder = fold_folder(workspace, RECIPE.recipe_id, 0)
    (folder / "run.json").write_text("{}", encoding="utf-8")
    with pytest.raises(DataError, match=r"run.json is no record of a run"):
        finished_fold(workspace, RECIPE, 0)
    (folder / "oof.parquet").unlink()
    assert finished_fold(workspace, RECIPE, 0) is None


def test_a_recipe_that_diverges_ends_with_its_name(
    fake_workspace: FakeWorkspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    workspace = fake_workspace()
    diverged = EpochResult(1, float("nan"), float("nan"), 1e-2, 1.0, 1.0)
    monkeypatch.setattr(TrainingRun, "run_epoch", lambda run, after_step: diverged)
    with pytest.raises(NothingUsableError, match=r"diverged in epoch 1 of fold 0.*lower its lr"):
        train_fold(workspace, RECIPE, 0, CPU)
    assert finished_fold(workspace, RECIPE, 0) is None


def test_without_unlabelled_slices_there_is_no_test_prediction(fake_workspace: FakeWorkspace) -> None:
    workspace = fake_workspace(n_test_patients=0)
    train_all(workspace)
    assert 0 < assemble_run(workspace, RECIPE) < 2
    assert workspace.predictions("test").empty


def test_a_recipe_reads_the_cache_with_its_crop(fake_workspace: FakeWorkspace) -> None:
    workspace = with_crop(fake_workspace())
    recipe = replace(RECIPE, crop="head")
    assert open_batches(workspace, recipe).cache.cache_id == "cropped"
    assert open_batches(workspace, RECIPE).cache.cache_id == workspace.about["cache_id"]
    train_fold(workspace, recipe, 0, CPU)
    kept = json.loads((fold_folder(workspace, recipe.recipe_id, 0) / "run.json").read_text(encoding="utf-8"))
    assert kept["read_cache_id"] == "cropped"
    assert kept["cache_id"] == workspace.about["cache_id"]


def test_a_cache_that_is_added_later_leaves_a_trained_fold_as_it_is(fake_workspace: FakeWorkspace) -> None:
    workspace = fake_workspace()
    trained = train_fold(workspace, RECIPE, 0, CPU)
    assert finished_fold(with_crop(workspace), RECIPE, 0) == trained


def test_plans_of_this_test_differ(fake_workspace: FakeWorkspace) -> None:
    workspace = fake_workspace()
    assert make_folds(workspace.slices, 3, 7).plan_hash == workspace.fold_plan.plan_hash
    assert change_folds(workspace).fold_plan.plan_hash != workspace.fold_plan.plan_hash
