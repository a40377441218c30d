"""Runs of the second level: laid out as any run's, never trained twice, and again where a member was."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from ichtune.ensemble.blend import run_blend
from ichtune.ensemble.members.panel import load_panel
from ichtune.ensemble.spec import BlendSpec
from ichtune.errors import DataError, NothingUsableError
from ichtune.metrics import weighted_log_loss
from ichtune.second_level.fold_run import SecondLevelRun
from ichtune.second_level.inputs import load_inputs
from ichtune.second_level.stacking_runs import assemble, finished_second_level_fold, stack, train_second_level_fold
from ichtune.second_level_recipe import SecondLevelRecipe, recipe_from_dict
from ichtune.tables import PREDICTIONS, read_table, table_about

pytestmark = pytest.mark.slow  # whole workspaces are searched, trained, blended or drawn

ONE, TWO = "aaaaaaaaaaaa", "bbbbbbbbbbbb"
RECIPE = SecondLevelRecipe(model="kernel")
GRU = SecondLevelRecipe(model="gru", hidden=4, layers=1, epochs=3, batch_size=8)


@pytest.fixture
def made(make_blend_workspace):
    made = make_blend_workspace(n_patients=15, n_test_patients=3, noises=(), in_runs=True)
    made.add_run(ONE, 2.0)
    made.add_run(TWO, 2.5)
    return made


@pytest.fixture
def epochs_trained(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The fold of every epoch that is trained."""
    folds: list[int] = []
    run_epoch = SecondLevelRun.run_epoch

    def noted(run: SecondLevelRun, *arguments: Any) -> Any:
        folds.append(run.fold)
        return run_epoch(run, *arguments)

    monkeypatch.setattr(SecondLevelRun, "run_epoch", noted)
    return folds


def test_a_run_is_laid_out_as_any_other(made) -> None:
    workspace = made.open()
    done = stack(workspace, RECIPE)
    recipe_id = done.recipe.recipe_id
    assert done.recipe.members == (ONE, TWO)
    oof = read_table(workspace.layout.oof(recipe_id), PREDICTIONS).set_index("image_id")
    p_RL = oof.loc[list(done.inputs.labelled.image_ids)].filter(like="p_").to_numpy()
    np.testing.assert_array_equal(p_RL, done.p_oof_RL)
    assert done.oof_loss == pytest.approx(weighted_log_loss(done.inputs.y_RL, p_RL), rel=1e-12)
    test = workspace.predictions("test")
    counted = test[test["recipe_id"] == recipe_id].groupby("fold")["image_id"].nunique()
    assert counted.tolist() == [29] * 3
    about = json.loads((workspace.layout.runs / recipe_id / "recipe.json").read_text(encoding="utf-8"))
    assert recipe_from_dict(about["recipe"]) == done.recipe
    assert about["summary"] == done.recipe.summary
    assert about["members"].keys() == {ONE, TWO}
    inputs = table_about(workspace.layout.oof(recipe_id))["inputs"]
    assert inputs["fold_plan_hash"] == workspace.fold_plan.plan_hash
    folder = workspace.layout.runs / recipe_id / "fold_1"
    assert sorted(path.name for path in folder.iterdir()) == [
        "curve.json",
        "oof.parquet",
        "run.json",
        "test.parquet",
        "weights.safetensors",
    ]


def test_neighbours_lower_the_loss_of_what_sees_single_slices(made) -> None:
    done = stack(made.open(), RECIPE)
    members = [weighted_log_loss(done.inputs.y_RL, p_RL) for p_RL in done.inputs.labelled.p_MRL]
    assert done.oof_loss < 0.9 * min(members)


def test_it_blends_like_any_run(made) -> None:
    workspace = made.open()
    done = stack(workspace, RECIPE)
    panel = load_panel(workspace)
    assert {member.recipe_id for member in panel.members} == {ONE, TWO, done.recipe.recipe_id}
    result = run_blend(workspace, BlendSpec(blender="convex"))
    names = [row["name"] for row in result.ladder]
    assert f"single:{done.recipe.summary}" in names
    best = next(row for row in result.ladder if row["name"] == "best_single")
    assert best["recipe_id"] == done.recipe.recipe_id


def test_runs_of_the_second_level_are_no_members_of_the_next(made) -> None:
    workspace = made.open()
    first = stack(workspace, RECIPE)
    assert stack(workspace, replace(RECIPE, kernel="1-2-1")).recipe.members == first.recipe.members == (ONE, TWO)


def test_a_finished_fold_is_not_trained_again(made, epochs_trained: list[int]) -> None:
    workspace, told = made.open(), []
    first = stack(workspace, RECIPE)
    assert epochs_trained == [0, 1, 2]
    again = stack(workspace, RECIPE, lambda fold, result: told.append((fold, result.val_weighted_log_loss)))
    assert epochs_trained == [0, 1, 2]
    assert again.folds == first.folds
    assert again.notes == ()
    assert told == [(fold.fold, fold.val_weighted_log_loss) for fold in first.folds]


def test_an_interrupted_fold_goes_on_after_its_last_epoch(
    made, epochs_trained: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    workspace = made.open()

    def leave(fold: int, result: object) -> None:
        if len(epochs_trained) == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        stack(workspace, GRU, leave)
    done = stack(workspace, GRU)
    assert epochs_trained == [0, 0, 0, 1, 1, 1, 2, 2, 2]
    whole = SecondLevelRun(load_inputs(workspace, GRU), 0)
    while not whole.finished:
        whole.run_epoch()
    np.testing.assert_array_equal(done.p_oof_RL[whole.held_out_rows], whole.predict_held_out())
    assert not list(workspace.layout.runs.glob("*/fold_*/resume.safetensors"))


def test_a_run_of_a_member_that_was_trained_again_is_trained_again_and_it_is_said(
    made, epochs_trained: list[int]
) -> None:
    first = stack(made.open(), RECIPE)
    made.add_run(TWO, 0.5)
    again = stack(made.open(), RECIPE)
    assert epochs_trained == [0, 1, 2, 0, 1, 2]
    assert again.recipe == first.recipe
    assert again.oof_loss < first.oof_loss
    assert again.notes == (f"{again.recipe.recipe_id}: trained again, since what {TWO} predicts has changed",)


def test_labels_that_changed_are_learnt_anew(made) -> None:
    workspace = made.open()
    stack(workspace, RECIPE)
    inputs = load_inputs(workspace, RECIPE)
    assert finished_second_level_fold(workspace, inputs, 0) is not None
    other = replace(inputs, ids={**inputs.ids, "labels_sha256": "x", "rows_id": "y"})
    assert finished_second_level_fold(workspace, other, 0) is None
    notes: list[str] = []
    train_second_level_fold(workspace, other, 0, say=notes.append)
    assert notes[0].endswith("trained again, since it was made from other labels and slices")


def test_a_checkpoint_of_other_inputs_is_not_gone_on_from(made) -> None:
    workspace = made.open()
    inputs = load_inputs(workspace, GRU)
    run = SecondLevelRun(replace(inputs, ids={**inputs.ids, "rows_id": "other"}), 0)
    run.run_epoch()
    folder = workspace.layout.runs / inputs.recipe.recipe_id / "fold_0"
    run.save(folder / "resume.safetensors")
    notes: list[str] = []
    done = train_second_level_fold(workspace, inputs, 0, say=notes.append)
    assert done.epochs == 3
    assert "begun anew" in notes[0]


def test_what_a_trial_has_trained_is_not_trained_again(made, epochs_trained: list[int], tmp_path) -> None:
    workspace, path = made.open(), tmp_path / "trial" / "checkpoint_fold_1.safetensors"
    trial = SecondLevelRun(load_inputs(workspace, GRU), 1)
    for _ in range(2):
        trial.run_epoch()
    trial.save(path)
    epochs_trained.clear()
    asked: list[tuple[str, int]] = []

    def begun(recipe_id: str, fold: int) -> Path | None:
        asked.append((recipe_id, fold))
        return path if fold == 1 else None

    done = stack(workspace, GRU, begun=begun)
    assert epochs_trained == [0, 0, 0, 1, 2, 2, 2]
    assert asked == [(done.recipe.recipe_id, fold) for fold in range(3)]
    assert done.notes == (
        f"{done.recipe.recipe_id}: 2 of 3 epochs are those of a trial of a search: {tmp_path / 'trial'}",
    )
    trial.run_epoch()
    np.testing.assert_array_equal(done.p_oof_RL[trial.held_out_rows], trial.predict_held_out())
    stack(workspace, GRU, begun=begun)
    assert len(asked) == 3


def test_a_trial_of_other_inputs_is_left_out_and_that_is_said(made, epochs_trained: list[int], tmp_path) -> None:
    inputs = load_inputs(made.open(), RECIPE)
    SecondLevelRun(replace(inputs, ids={**inputs.ids, "rows_id": "other"}), 0).save(tmp_path / "trial.safetensors")
    notes: list[str] = []
    train_second_level_fold(made.open(), inputs, 0, None, notes.append, lambda *_: tmp_path / "trial.safetensors")
    assert epochs_trained == [0]
    assert "trained anew, not from the trial's checkpoint" in notes[0]


def test_a_run_is_put_together_from_every_fold_only(made) -> None:
    workspace = made.open()
    inputs = load_inputs(workspace, RECIPE)
    train_second_level_fold(workspace, inputs, 1)
    with pytest.raises(DataError, match=r"folds \[0, 2\] .* run `ichtune stack`"):
        assemble(workspace, inputs)
    assert workspace.run_ids() == [ONE, TWO]


def test_a_record_that_is_damaged_is_named(made) -> None:
    workspace = made.open()
    stack(workspace, RECIPE)
    inputs = load_inputs(workspace, RECIPE)
    path = workspace.layout.runs / inputs.recipe.recipe_id / "fold_0" / "run.json"
    path.write_text("{}", encoding="utf-8")
    with pytest.raises(DataError, match="is no record of a run"):
        stack(workspace, RECIPE)


def test_divergence_is_an_error(made, monkeypatch: pytest.MonkeyPatch) -> None:
    def nothing(run: SecondLevelRun) -> np.ndarray:
        return np.full((len(run.held_out_rows), 6), np.nan)

    monkeypatch.setattr(SecondLevelRun, "predict_held_out", nothing)
    with pytest.raises(NothingUsableError, match=r"diverged in epoch 1 of fold 0: the loss is nan; lower its lr"):
        stack(made.open(), RECIPE)


def test_slices_without_labels_need_none_to_be_there(make_blend_workspace) -> None:
    made = make_blend_workspace(n_patients=12, n_test_patients=0, noises=(), in_runs=True)
    made.write_run(ONE, made.predictions(ONE, 1.0)[0], None)
    workspace = made.open()
    done = stack(workspace, RECIPE)
    assert pd.read_parquet(workspace.layout.test(done.recipe.recipe_id)).empty
    assert load_panel(workspace).p_MTL.shape[1] == 0
