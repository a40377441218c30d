"""One fold made ready: patients never split, and nothing comes from a model that has seen what is scored."""

import json
import re
from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

from ichtune.errors import ConfigError, ConflictError, DataError
from ichtune.recipe import Recipe
from ichtune.recipe_file import read_recipe
from ichtune.tables import P_COLUMNS, PREDICTIONS, SLICES, read_table, write_json, write_table
from ichtune.training.crossval import assemble_run, train_fold
from ichtune.training.fold_run import (
    cache_to_read,
    check_sources,
    enlargement,
    fold_folder,
    fold_rows,
    in_share,
    open_batches,
    open_fold,
    pseudo_table,
)
from ichtune.training.predict import load_model
from ichtune.training.provenance import patient_marks
from ichtune.workspace import Workspace

CPU = torch.device("cpu")
FakeWorkspace = Callable[..., Workspace]
RECIPE = Recipe(architecture="tiny_convnet", windows="brain", image_px=32, lr=1e-2, epochs=2, batch_size=16)  # type: ignore[arg-type]


def with_patients_in_both(workspace: Workspace) -> Workspace:
    """Give the first unlabelled patient's slices to a labelled patient of fold 0, as some test sets do."""
    table = workspace.slices.copy()
    labelled = workspace.labelled
    in_fold = labelled["patient_id"][workspace.fold_plan.folds_for(labelled["patient_id"]) == 0].iloc[0]
    first = workspace.unlabelled["patient_id"].iloc[0]
    table.loc[table["patient_id"] == first, "patient_id"] = in_fold
    write_table(table, workspace.layout.slices, SLICES, {"cache_id": workspace.about["cache_id"]})
    return Workspace(workspace.layout.root)


def n_teachable(workspace: Workspace, fold: int) -> int:
    """Unlabelled slices of patients outside the fold: patients of one fold may share pixels."""
    return int((workspace.fold_plan.folds_for(workspace.unlabelled["patient_id"]) != fold).sum())


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


def test_a_crop_that_was_not_prepared_names_the_command(fake_workspace: FakeWorkspace) -> None:
    with pytest.raises(DataError, match=r"no cache with crop 'tight', only none; build it with `ichtune prepare"):
        open_batches(fake_workspace(), replace(RECIPE, crop="tight"))


def test_a_warm_start_takes_the_weights_of_the_same_fold(fake_workspace: FakeWorkspace) -> None:
    workspace = fake_workspace()
    for fold in range(3):
        train_fold(workspace, RECIPE, fold, CPU)
    warm = replace(RECIPE, warm_start=RECIPE.recipe_id)
    for fold in range(3):
        opened = open_fold(workspace, warm, fold, CPU)
        weights = fold_folder(workspace, RECIPE.recipe_id, fold) / "weights.safetensors"
        model, _ = load_model(weights, CPU)
        for name, tensor in opened.run.network.state_dict().items():
            assert torch.equal(tensor, model.networks[0].state_dict()[name]), name
        oof = read_table(weights.with_name("oof.parquet"), PREDICTIONS)
        np.testing.assert_allclose(opened.run.predict(opened.rows.valid), oof[list(P_COLUMNS)], rtol=1e-6)


@pytest.mark.slow  # trains twice for each
@pytest.mark.parametrize(
    "changes",
    [
        {"windows": "brain_subdural_bone"},
        {"neighbours": 1},
        {"neighbours": 1, "neighbour_targets": 0.3},
        {"windows": [[50, 175]], "window_shape": "sigmoid"},
    ],
)
def test_a_warm_start_from_other_windows_or_neighbours_is_nearer_than_none(
    fake_workspace: FakeWorkspace, changes: dict[str, Any]
) -> None:
    workspace = fake_workspace(n_patients=24, n_slices=8)
    base = replace(RECIPE, epochs=8)
    train_fold(workspace, base, 0, CPU)
    cold = Recipe(**{**base.to_dict(), **changes, "epochs": 1, "lr": 1e-4})
    losses = []
    for recipe in (cold, replace(cold, warm_start=base.recipe_id)):
        run = open_fold(workspace, recipe, 0, CPU).run
        losses.append(run.run_epoch().val_weighted_log_loss)
    assert losses[1] < losses[0]


def test_a_warm_start_from_another_size_takes_every_weight(fake_workspace: FakeWorkspace) -> None:
    workspace = fake_workspace()
    train_fold(workspace, RECIPE, 0, CPU)
    run = open_fold(workspace, replace(RECIPE, image_px=48, warm_start=RECIPE.recipe_id), 0, CPU).run
    model, _ = load_model(fold_folder(workspace, RECIPE.recipe_id, 0) / "weights.safetensors", CPU)
    for name, tensor in run.network.state_dict().items():
        assert torch.equal(tensor, model.networks[0].state_dict()[name]), name
    assert run.notes == [enlargement(workspace, replace(RECIPE, image_px=48))]


def test_a_warm_start_from_a_run_that_has_seen_the_scored_patients_is_refused(fake_workspace: FakeWorkspace) -> None:
    workspace = fake_workspace()
    train_fold(workspace, RECIPE, 0, CPU)
    weights = fold_folder(workspace, RECIPE.recipe_id, 0) / "weights.safetensors"
    warm = replace(RECIPE, warm_start=str(weights))
    assert open_fold(workspace, warm, 0, CPU).run.epoch == 0
    with pytest.raises(
        ConflictError, match=r"warm_start: .*weights.safetensors has learnt from \d+ of the \d+ patients"
    ):
        open_fold(workspace, warm, 1, CPU)
    with pytest.raises(ConflictError, match=r"has learnt from"):
        check_sources(workspace, warm, 1)


def test_what_was_learnt_is_remembered_through_a_chain(fake_workspace: FakeWorkspace) -> None:
    """Weights that start from weights of fold 0 and are trained on fold 1's rows know everybody."""
    workspace = fake_workspace()
    train_fold(workspace, RECIPE, 0, CPU)
    first = fold_folder(workspace, RECIPE.recipe_id, 0) / "weights.safetensors"
    second = replace(RECIPE, warm_start=str(first), seed=8)
    train_fold(workspace, second, 0, CPU)
    about = json.loads((fold_folder(workspace, second.recipe_id, 0) / "weights.json").read_text(encoding="utf-8"))
    assert set(about["learnt_from"]) >= set(json.loads(first.with_suffix(".json").read_text("utf-8"))["learnt_from"])
    chained = replace(RECIPE, warm_start=second.recipe_id)
    assert open_fold(workspace, chained, 0, CPU).learnt_from == set(about["learnt_from"])


def test_weights_without_a_record_of_what_they_have_seen_are_refused(fake_workspace: FakeWorkspace) -> None:
    workspace = fake_workspace()
    train_fold(workspace, RECIPE, 0, CPU)
    weights = fold_folder(workspace, RECIPE.recipe_id, 0) / "weights.safetensors"
    warm = replace(RECIPE, warm_start=str(weights))
    about = json.loads(weights.with_suffix(".json").read_text(encoding="utf-8"))
    write_json({**about, "learnt_from": []}, weights.with_suffix(".json"))
    with pytest.raises(ConflictError, match=r"does not say which patients it has learnt from"):
        open_fold(workspace, warm, 0, CPU)
    write_json({**about, "sha256": "0" * 64}, weights.with_suffix(".json"))
    with pytest.raises(DataError, match=r"describes another file than weights.safetensors"):
        open_fold(workspace, warm, 0, CPU)
    weights.with_suffix(".json").unlink()
    with pytest.raises(DataError, match=r"is no record of what weights.safetensors is"):
        open_fold(workspace, warm, 0, CPU)


@pytest.mark.parametrize("key", ["warm_start", "pseudo_labels"])
def test_a_run_that_is_not_trained_yet_names_the_command(fake_workspace: FakeWorkspace, key: str) -> None:
    workspace = fake_workspace()
    recipe = replace(RECIPE, **{key: read_recipe("exp_10").recipe_id})
    command = re.escape(f"`ichtune train --recipe exp_10 --work {workspace.layout.root}`")
    with pytest.raises(DataError, match=rf"{key}: recipe .* is not trained on fold 1 .*{command}"):
        open_fold(workspace, recipe, 1, CPU)
    with pytest.raises(DataError, match=r"ITS_FILE"):
        open_fold(workspace, replace(RECIPE, **{key: "0123456789ab"}), 1, CPU)
    with pytest.raises(ConfigError, match=rf"{key} must be a recipe_id of 12 digits or a .safetensors file"):
        open_fold(workspace, replace(RECIPE, **{key: "exp_10"}), 1, CPU)


def test_pseudo_labels_come_from_the_model_of_the_same_fold_and_spare_the_scored_patients(
    fake_workspace: FakeWorkspace,
) -> None:
    workspace = with_patients_in_both(fake_workspace(n_test_patients=3))
    for fold in range(3):
        train_fold(workspace, RECIPE, fold, CPU)
    student = replace(RECIPE, pseudo_labels=RECIPE.recipe_id)
    patients = workspace.slices.set_index("image_id")["patient_id"]
    n_left_out = 0
    for fold in range(3):
        opened = open_fold(workspace, student, fold, CPU)
        scored = set(workspace.slices["patient_id"].iloc[opened.rows.valid])
        table, taught = pseudo_table(workspace, student, fold, patient_marks(scored))
        assert set(table["fold"]) == {fold}
        assert not set(patients[table["image_id"]]) & scored
        assert not taught & patient_marks(scored)
        assert not opened.learnt_from & patient_marks(scored)
        extra = set(opened.run.train_rows) - set(opened.rows.train)
        assert extra == set(np.flatnonzero(workspace.slices["image_id"].isin(table["image_id"])))
        assert not extra & set(opened.rows.valid)
        n_left_out += len(workspace.unlabelled) - len(table)
    assert n_left_out > 0


def test_pseudo_labels_are_what_the_student_learns(fake_workspace: FakeWorkspace) -> None:
    workspace = fake_workspace()
    train_fold(workspace, RECIPE, 0, CPU)
    path = fold_folder(workspace, RECIPE.recipe_id, 0) / "test.parquet"
    told = read_table(path, PREDICTIONS).set_index("image_id")
    soft = open_fold(workspace, replace(RECIPE, pseudo_labels=RECIPE.recipe_id, pseudo_weight=0.5), 0, CPU)
    hard = open_fold(workspace, replace(RECIPE, pseudo_labels=RECIPE.recipe_id, pseudo_threshold=0.3), 0, CPU)
    rows = np.setdiff1d(soft.run.train_rows, soft.rows.train)
    p_NL = told.loc[workspace.slices["image_id"].iloc[rows], list(P_COLUMNS)].to_numpy()
    np.testing.assert_allclose(soft.run.data.targets.y_NK[rows], p_NL, rtol=1e-6)
    np.testing.assert_array_equal(hard.run.data.targets.y_NK[rows], p_NL > 0.3)
    np.testing.assert_allclose(soft.run.data.targets.weight_NK[rows].sum(axis=1), 0.5, rtol=1e-6)
    np.testing.assert_allclose(soft.run.data.targets.weight_NK[soft.rows.train].sum(axis=1), 1.0, rtol=1e-6)
    plain = open_fold(workspace, RECIPE, 0, CPU).run
    for run in (soft.run, plain):
        run.run_epoch()
    assert not np.array_equal(soft.run.predict(soft.rows.valid), plain.predict(soft.rows.valid))


@pytest.mark.slow  # takes seconds
def test_a_student_keeps_how_many_slices_taught_it(fake_workspace: FakeWorkspace) -> None:
    workspace = fake_workspace()
    student = replace(RECIPE, pseudo_labels=RECIPE.recipe_id)
    for recipe in (RECIPE, student):
        for fold in range(3):
            train_fold(workspace, recipe, fold, CPU)
        assemble_run(workspace, recipe)
    about = json.loads((fold_folder(workspace, student.recipe_id, 1) / "run.json").read_text(encoding="utf-8"))
    assert about["n_pseudo"] == n_teachable(workspace, 1) > 0


def test_pseudo_labelled_patients_are_known_to_the_student(fake_workspace: FakeWorkspace) -> None:
    workspace = fake_workspace()
    train_fold(workspace, RECIPE, 0, CPU)
    opened = open_fold(workspace, replace(RECIPE, pseudo_labels=RECIPE.recipe_id), 0, CPU)
    taught = np.setdiff1d(opened.run.train_rows, opened.rows.train)
    assert patient_marks(workspace.slices["patient_id"].iloc[taught]) <= opened.learnt_from


def test_a_table_that_a_fold_left_teaches_only_that_fold(fake_workspace: FakeWorkspace) -> None:
    workspace = fake_workspace()
    train_fold(workspace, RECIPE, 1, CPU)
    table = fold_folder(workspace, RECIPE.recipe_id, 1) / "test.parquet"
    recipe = replace(RECIPE, pseudo_labels=str(table))
    opened = open_fold(workspace, recipe, 1, CPU)
    assert len(opened.run.train_rows) == len(opened.rows.train) + n_teachable(workspace, 1)
    with pytest.raises(ConflictError, match=r"has learnt from"):
        open_fold(workspace, recipe, 0, CPU)


def test_a_table_of_another_fold_plan_or_of_nobody_knows_whom_is_refused(
    fake_workspace: FakeWorkspace, tmp_path: Path
) -> None:
    workspace = fake_workspace()
    train_fold(workspace, RECIPE, 1, CPU)
    table = fold_folder(workspace, RECIPE.recipe_id, 1) / "test.parquet"
    frame = read_table(table, PREDICTIONS)
    write_table(frame, table, PREDICTIONS, {"fold_plan_hash": "another"})
    recipe = replace(RECIPE, pseudo_labels=str(table))
    with pytest.raises(ConflictError, match=r"was predicted on fold plan another, but the workspace has"):
        open_fold(workspace, recipe, 1, CPU)
    write_table(frame, tmp_path / "p.parquet", PREDICTIONS, {"fold_plan_hash": workspace.fold_plan.plan_hash})
    with pytest.raises(ConflictError, match=r"there are no weights.safetensors that say whom they have learnt from"):
        open_fold(workspace, replace(RECIPE, pseudo_labels=str(tmp_path / "p.parquet")), 1, CPU)


@pytest.mark.parametrize("key", ["warm_start", "pseudo_labels"])
def test_a_folder_that_was_renamed_is_found_out(fake_workspace: FakeWorkspace, key: str) -> None:
    workspace = fake_workspace()
    train_fold(workspace, RECIPE, 0, CPU)
    workspace.layout.runs.joinpath(RECIPE.recipe_id).rename(workspace.layout.runs / "0123456789ab")
    with pytest.raises(ConflictError, match=rf"{key}: .* is of recipe {RECIPE.recipe_id}, not of 0123456789ab"):
        open_fold(workspace, replace(RECIPE, **{key: "0123456789ab"}), 0, CPU)


def test_the_best_epoch_was_chosen_by_the_scored_patients_and_starts_nothing_on_them(
    fake_workspace: FakeWorkspace,
) -> None:
    workspace = fake_workspace()
    train_fold(workspace, RECIPE, 0, CPU)
    best = fold_folder(workspace, RECIPE.recipe_id, 0) / "best.safetensors"
    with pytest.raises(ConflictError, match=r"warm_start: .*best.safetensors has learnt from"):
        open_fold(workspace, replace(RECIPE, warm_start=str(best)), 0, CPU)


def test_labels_of_the_scored_fold_steer_nothing(fake_workspace: FakeWorkspace) -> None:
    """A plateau schedule, snapshots and averages end with the same weights whatever the held-out labels are."""
    workspace = fake_workspace()
    recipe = replace(RECIPE, lr_schedule="plateau", lr=0.1, epochs=6, snapshots=2)
    weights = []
    for flipped in (False, True):
        opened = open_fold(workspace, recipe, 0, CPU)
        if flipped:
            opened.run.data._y_NL[opened.rows.valid] = 1 - opened.run.data._y_NL[opened.rows.valid]
        while not opened.run.finished:
            opened.run.run_epoch()
        weights.append(opened.run.states()[-1])
        losses = [result.val_weighted_log_loss for result in opened.run.history]
    assert losses != []
    for name, tensor in weights[0].items():
        assert torch.equal(tensor, weights[1][name]), name


def test_an_enlarged_cache_is_said_so(fake_workspace: FakeWorkspace) -> None:
    workspace = fake_workspace()
    assert enlargement(workspace, RECIPE) is None
    told = enlargement(workspace, replace(RECIPE, image_px=64))
    assert told is not None
    assert "slices of 32 px are enlarged to image_px 64" in told
    assert "--size 64" in told


def test_shares_of_the_patients_are_nested_and_depend_on_nothing_but_their_ids() -> None:
    patients = pd.Series([f"P{i % 40:03d}" for i in range(200)])
    shares = [in_share(patients, share) for share in (0.1, 0.25, 0.5, 1.0)]
    chosen = [set(patients[rows]) for rows in shares]
    assert [len(patients) for patients in chosen] == [4, 10, 20, 40]
    for smaller, larger in pairwise(chosen):
        assert smaller < larger
    for rows, patient_ids in zip(shares, chosen, strict=True):
        np.testing.assert_array_equal(rows, patients.isin(patient_ids))
    shuffled = patients.sample(frac=1.0, random_state=1)
    assert set(shuffled[in_share(shuffled, 0.25)]) == chosen[1]


def test_the_smallest_share_is_one_patient() -> None:
    assert in_share(pd.Series(["a", "b", "b"]), 0.001).sum() in (1, 2)


def test_a_fold_is_learnt_from_a_share_of_its_patients_and_judged_on_all(session_workspace: Workspace) -> None:
    patients = session_workspace.slices["patient_id"]
    whole = open_fold(session_workspace, RECIPE, 0, CPU)
    half = open_fold(session_workspace, RECIPE, 0, CPU, share=0.5)
    np.testing.assert_array_equal(half.run.valid_rows, whole.run.valid_rows)
    learnt, all_of_them = (set(patients[one.run.train_rows]) for one in (half, whole))
    assert len(learnt) == len(all_of_them) // 2
    assert learnt < all_of_them
    assert set(half.rows.train) == {row for row in whole.rows.train if patients[row] in learnt}
    assert half.learnt_from == patient_marks(patients[half.rows.train])
    np.testing.assert_array_equal(half.rows.test, whole.rows.test)


def test_a_checkpoint_of_a_share_is_none_of_the_whole(session_workspace: Workspace, tmp_path: Path) -> None:
    half = open_fold(session_workspace, RECIPE, 0, CPU, share=0.5).run
    half.save(tmp_path / "half.safetensors")
    with pytest.raises(ConflictError, match="trained on other slices"):
        open_fold(session_workspace, RECIPE, 0, CPU).run.load(tmp_path / "half.safetensors")
