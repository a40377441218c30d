import numpy as np
import pytest

from ichtune.labels import LABELS
from ichtune.metrics import weighted_log_loss
from ichtune.report.run_facts import collect_runs, joined_predictions
from ichtune.second_level.stacking_runs import stack
from ichtune.second_level_recipe import SecondLevelRecipe
from ichtune.tables import P_COLUMNS, PREDICTIONS, read_table, write_json, write_table


def test_no_run_is_none(make_blend_workspace):
    assert collect_runs(make_blend_workspace(noises=()).open()) is None


def test_losses_are_those_of_the_predictions_joined_by_image_id(make_blend_workspace):
    made = make_blend_workspace(noises=(0.5,))
    workspace = made.open()
    table = read_table(workspace.layout.oof("r0"), PREDICTIONS)
    write_table(table.sample(frac=1, random_state=0), workspace.layout.oof("r0"), PREDICTIONS)  # another order
    by_id = table.set_index("image_id").loc[workspace.labelled["image_id"]]
    y = workspace.labelled[list(LABELS)].to_numpy(float)
    p = by_id[list(P_COLUMNS)].to_numpy()
    row = collect_runs(workspace).rows[0]
    assert row.oof_loss == pytest.approx(weighted_log_loss(y, p), rel=1e-12)
    fold_0 = (by_id["fold"] == 0).to_numpy()
    assert row.per_fold[0] == pytest.approx(weighted_log_loss(y[fold_0], p[fold_0]), rel=1e-12)
    assert sorted(row.per_fold) == [0, 1, 2]
    assert (2 * row.per_label[0] + sum(row.per_label[1:])) / 7 == pytest.approx(row.oof_loss, rel=1e-12)


def test_the_best_run_comes_first_and_unfinished_ones_are_named(full_workspace):
    runs = collect_runs(full_workspace.open())
    losses = [row.oof_loss for row in runs.rows]
    assert losses == sorted(losses)
    assert len(losses) == 3
    assert runs.unfinished == ("halfway",)


def test_a_run_that_does_not_cover_the_labels_says_so(make_blend_workspace):
    made = make_blend_workspace(noises=(0.5,))
    path = made.open().layout.oof("r0")
    write_table(read_table(path, PREDICTIONS).iloc[5:], path, PREDICTIONS)
    runs = collect_runs(made.open())
    assert runs.rows[0].n_slices == runs.n_labelled - 5
    rows, p_NL, fold_N = joined_predictions(made.open(), path)
    assert len(rows) == len(p_NL) == len(fold_N) == runs.n_labelled - 5
    assert np.isfinite(p_NL).all()


def test_the_title_is_the_recipe_in_one_line(make_blend_workspace):
    workspace = make_blend_workspace().open()
    write_json({"summary": "tiny_convnet|brain|64px|lr=1.0e-03"}, workspace.layout.runs / "r0" / "recipe.json")
    titles = {row.recipe_id: row.title for row in collect_runs(workspace).rows}
    assert titles["r0"] == "tiny_convnet|brain|64px|lr=1.0e-03"


def test_training_time_is_summed_over_the_folds(make_blend_workspace):
    workspace = make_blend_workspace().open()
    for fold in range(3):
        write_json({"seconds": 2.5}, workspace.layout.runs / "r1" / f"fold_{fold}" / "run.json")
    seconds = {row.recipe_id: row.seconds for row in collect_runs(workspace).rows}
    assert seconds == {"r0": None, "r1": 7.5, "r2": None}


def test_a_run_of_the_second_level_is_told_like_any(make_blend_workspace):
    made = make_blend_workspace(n_patients=12, noises=())
    made.add_run("aaaaaaaaaaaa", 1.0)
    done = stack(made.open(), SecondLevelRecipe(model="gaussian"))
    rows = {row.recipe_id: row for row in collect_runs(made.open()).rows}
    row = rows[done.recipe.recipe_id]
    assert row.title == "gaussian on 1 run|width per label"
    assert row.oof_loss == pytest.approx(done.oof_loss, rel=1e-12)
    assert row.seconds == pytest.approx(done.seconds)
    assert sorted(row.per_fold) == [0, 1, 2]
