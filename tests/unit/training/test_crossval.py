"""Cross-validation: each labelled slice once, by a model that saw none of its patient; nothing trained twice."""

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from ichtune.data.cache.hu_cache import CACHE_JSON
from ichtune.data.folds import FoldPlan, make_folds, write_folds
from ichtune.errors import ConfigError, ConflictError, DataError, NothingUsableError
from ichtune.labels import LABELS
from ichtune.metrics import weighted_log_loss
from ichtune.recipe import Recipe
from ichtune.tables import P_COLUMNS, PREDICTIONS, SLICES, read_table, table_about, write_json, write_table
from ichtune.training import crossval
from ichtune.training.crossval import (
    assemble_run,
    cache_to_read,
    finished_fold,
    fold_folder,
    fold_rows,
    open_batches,
    train_fold,
)
from ichtune.training.loop import EpochResult, TrainingRun
from ichtune.workspace import Workspace

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


def test_folds_split_patients_never_rows(session_workspace: Workspace) -> None:
    patients = session_workspace.slices["patient_id"].to_numpy(str)
    labelled = session_workspace.labelled.index
    judged: list[int] = []
    for fold in range(3):
        rows = fold_rows(session_workspace, fold)
        assert not set(patients[rows.train]) & set(patients[rows.valid])
        assert sorted([*rows.train, *rows.valid]) == labelled.tolist()
        assert rows.test.tolist() == session_workspace.unlabelled.index.tolist()
        judged.extend(rows.valid)
    assert sorted(judged) == labelled.tolist()


@pytest.mark.parametrize("fold", [-1, 3])
def test_a_fold_that_the_plan_has_not_is_refused(session_workspace: Workspace, fold: int) -> None:
    with pytest.raises(ConfigError, match=rf"between 0 and 2, got {fold}; the workspace has 3 folds"):
        fold_rows(session_workspace, fold)


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
    oof = read_table(fold_folder(workspace, RECIPE, 1) / "oof.parquet", PREDICTIONS)
    y_NL = oof[["image_id"]].merge(workspace.slices, on="image_id")[list(LABELS)].to_numpy()
    assert result.val_weighted_log_loss == pytest.approx(weighted_log_loss(y_NL, oof[list(P_COLUMNS)].to_numpy()))
    assert sorted(files_of(fold_folder(workspace, RECIPE, 1))) == [
        "curve.json",
        "oof.parquet",
        "run.json",
        "test.parquet",
        "weights.safetensors",
    ]


def test_a_finished_fold_is_not_trained_again(fake_workspace: FakeWorkspace, monkeypatch: pytest.MonkeyPatch) -> None:
    workspace = fake_workspace()
    first = train_fold(workspace, RECIPE, 0, CPU)
    before = files_of(fold_folder(workspace, RECIPE, 0))
    monkeypatch.setattr(crossval, "TrainingRun", None)
    assert train_fold(workspace, RECIPE, 0, CPU) == first == finished_fold(workspace, RECIPE, 0)
    assert files_of(fold_folder(workspace, RECIPE, 0)) == before
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
        one, other = (read_table(fold_folder(w, RECIPE, 0) / name, PREDICTIONS) for w in (whole, cut))
        pd.testing.assert_frame_equal(one, other)
    assert not (fold_folder(cut, RECIPE, 0) / "resume.safetensors").exists()


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
    path = fold_folder(workspace, RECIPE, 2) / "oof.parquet"
    write_table(read_table(path, PREDICTIONS).iloc[1:], path, PREDICTIONS)
    with pytest.raises(DataError, match=r"must cover each of the 50 labelled slices once, got 49 rows of 49 slices"):
        assemble_run(workspace, RECIPE)
    assert workspace.run_ids() == []


def test_a_fold_whose_record_is_damaged_says_so(fake_workspace: FakeWorkspace) -> None:
    workspace = fake_workspace()
    train_fold(workspace, RECIPE, 0, CPU)
    folder = fold_folder(workspace, RECIPE, 0)
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
    monkeypatch.setattr(TrainingRun, "run_epoch", lambda run: diverged)
    with pytest.raises(NothingUsableError, match=r"diverged in epoch 1 of fold 0.*lower its lr"):
        train_fold(workspace, RECIPE, 0, CPU)
    assert finished_fold(workspace, RECIPE, 0) is None


def test_without_unlabelled_slices_there_is_no_test_prediction(fake_workspace: FakeWorkspace) -> None:
    workspace = fake_workspace(n_test_patients=0)
    train_all(workspace)
    assert 0 < assemble_run(workspace, RECIPE) < 2
    assert workspace.predictions("test").empty


def test_native_slices_of_several_sizes_name_the_option_that_mends_it(fake_workspace: FakeWorkspace) -> None:
    workspace = fake_workspace()
    sizes = np.where(np.arange(len(workspace.slices)) % 2, 32, 64)
    slices = workspace.slices.assign(rows_px=sizes, columns_px=sizes)
    write_table(slices, workspace.layout.slices, SLICES)
    cache_to_read(workspace, 32, "none")
    native = Workspace(workspace.layout.root)
    native.hu_cache.size_px = None
    with pytest.raises(
        DataError, match=r"got 2 sizes in a native cache; run `ichtune prepare .* --size 32 --crop none"
    ):
        open_batches(native, RECIPE)


def test_a_recipe_reads_the_cache_with_its_crop(fake_workspace: FakeWorkspace) -> None:
    workspace = with_crop(fake_workspace())
    recipe = replace(RECIPE, crop="head")
    assert open_batches(workspace, recipe).cache.cache_id == "cropped"
    assert open_batches(workspace, RECIPE).cache.cache_id == workspace.about["cache_id"]
    train_fold(workspace, recipe, 0, CPU)
    kept = json.loads((fold_folder(workspace, recipe, 0) / "run.json").read_text(encoding="utf-8"))
    assert kept["read_cache_id"] == "cropped"
    assert kept["cache_id"] == workspace.about["cache_id"]


def test_a_cache_that_is_added_later_leaves_a_trained_fold_as_it_is(fake_workspace: FakeWorkspace) -> None:
    workspace = fake_workspace()
    trained = train_fold(workspace, RECIPE, 0, CPU)
    assert finished_fold(with_crop(workspace), RECIPE, 0) == trained


def test_a_crop_that_was_not_prepared_names_the_command(fake_workspace: FakeWorkspace) -> None:
    with pytest.raises(DataError, match=r"no cache with crop 'tight', only none; build it with `ichtune prepare"):
        open_batches(fake_workspace(), replace(RECIPE, crop="tight"))


def test_plans_of_this_test_differ(fake_workspace: FakeWorkspace) -> None:
    workspace = fake_workspace()
    assert make_folds(workspace.slices, 3, 7).plan_hash == workspace.fold_plan.plan_hash
    assert change_folds(workspace).fold_plan.plan_hash != workspace.fold_plan.plan_hash
