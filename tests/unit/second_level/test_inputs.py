"""What the second level sees: predictions of runs of the first level, joined by image_id, in series order."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from ichtune.errors import ConfigError, ConflictError, DataError
from ichtune.labels import LABELS
from ichtune.second_level.inputs import first_level_ids, is_second_level, load_inputs, with_members
from ichtune.second_level_recipe import SecondLevelRecipe
from ichtune.tables import P_COLUMNS, SLICES, write_json, write_table
from ichtune.workspace import Workspace

ONE, TWO, SECOND = "aaaaaaaaaaaa", "bbbbbbbbbbbb", "cccccccccccc"
RECIPE = SecondLevelRecipe(model="gaussian")


@pytest.fixture
def made(make_blend_workspace):
    """Two runs of the first level over series whose labels come in runs."""
    made = make_blend_workspace(n_patients=12, n_test_patients=4, noises=(), in_runs=True)
    made.add_run(ONE, 1.0)
    made.add_run(TWO, 1.5)
    return made


def shuffle_slices(made) -> Workspace:
    """Write the same slices in another order, as another scan of the folder might."""
    write_table(made.slices.sample(frac=1.0, random_state=5), made.root / "slices.parquet", SLICES)
    return made.open()


def written(made, recipe_id: str, kind: str) -> pd.DataFrame:
    table = pd.read_parquet(made.root / "runs" / recipe_id / f"{kind}.parquet")
    return table.set_index("image_id")[list(P_COLUMNS)] if kind == "oof" else table


def test_slices_come_in_series_order_whatever_the_order_of_the_table(made) -> None:
    straight, shuffled = load_inputs(made.open(), RECIPE), load_inputs(shuffle_slices(made), RECIPE)
    rows = made.slices.set_index("image_id").loc[list(shuffled.labelled.image_ids)]
    assert (rows["slice_rank"].to_numpy() == shuffled.labelled.places).all()
    assert (rows["patient_id"].to_numpy() == shuffled.labelled.patient_R).all()
    np.testing.assert_array_equal(rows[list(LABELS)], shuffled.y_RL)
    np.testing.assert_array_equal(made.plan.folds_for(rows["patient_id"]), shuffled.fold_R)
    np.testing.assert_array_equal(shuffled.labelled.p_MRL, straight.labelled.p_MRL)
    assert shuffled.ids == straight.ids


def test_labelled_slices_have_out_of_fold_predictions_and_others_each_fold_model_s(made) -> None:
    inputs = load_inputs(shuffle_slices(made), RECIPE)
    assert [member.recipe_id for member in inputs.members] == [ONE, TWO]
    for m, recipe_id in enumerate((ONE, TWO)):
        expected = written(made, recipe_id, "oof").loc[list(inputs.labelled.image_ids)]
        np.testing.assert_array_equal(inputs.labelled.p_MRL[m], expected)
        test = written(made, recipe_id, "test")
        for fold in range(3):
            view = inputs.test_view(fold)
            of_fold = test[test["fold"] == fold].set_index("image_id").loc[list(view.image_ids)]
            np.testing.assert_array_equal(view.p_MRL[m], of_fold[list(P_COLUMNS)])
    assert sorted(inputs.test_view(0).image_ids) == sorted(made.slices["image_id"].iloc[made.test])


def test_all_means_the_complete_runs_of_the_first_level(made) -> None:
    oof, test = made.predictions(SECOND, 0.5)
    made.write_run(SECOND, oof, test)
    recipe = replace(RECIPE, members=(ONE,))
    write_json({"recipe": recipe.to_dict(), "summary": "x"}, made.root / "runs" / SECOND / "recipe.json")
    (made.root / "runs" / "dddddddddddd" / "fold_0").mkdir(parents=True)
    workspace = made.open()
    assert is_second_level(workspace, SECOND)
    assert not is_second_level(workspace, ONE)
    assert first_level_ids(workspace) == [ONE, TWO]
    assert with_members(workspace, RECIPE).members == (ONE, TWO)
    assert with_members(workspace, recipe) == recipe
    assert load_inputs(workspace, RECIPE).recipe.members == (ONE, TWO)
    with pytest.raises(ConfigError, match=f"'{SECOND}', which is of the second; name some of {ONE}, {TWO}"):
        load_inputs(workspace, replace(RECIPE, members=(ONE, SECOND)))


def test_without_a_run_the_command_that_makes_one_is_named(make_blend_workspace) -> None:
    made = make_blend_workspace(n_patients=12, noises=())
    with pytest.raises(DataError, match="run `ichtune train` first"):
        load_inputs(made.open(), RECIPE)
    with pytest.raises(DataError, match="`ichtune train`"):
        load_inputs(made.open(), replace(RECIPE, members=(ONE,)))


def test_a_foreign_member_s_one_table_stands_for_every_fold_model(made) -> None:
    table = pd.read_parquet(made.root / "runs" / TWO / "test.parquet")
    made.write_run(TWO, made.predictions(TWO, 1.5)[0], table[table["fold"] == 1].assign(fold=-1))
    views = load_inputs(made.open(), RECIPE).unlabelled
    np.testing.assert_array_equal(views[0].p_MRL[1], views[2].p_MRL[1])
    assert (views[0].p_MRL[0] != views[2].p_MRL[0]).any()


def test_the_ids_change_with_anything_that_is_learnt_from(made) -> None:
    before = load_inputs(made.open(), RECIPE).ids
    made.add_run(TWO, 1.5)  # trained again
    again = load_inputs(made.open(), RECIPE).ids
    assert again["members"][TWO] != before["members"][TWO]
    assert again["members"][ONE] == before["members"][ONE]
    assert again["rows_id"] == before["rows_id"]
    made.slices.loc[made.labelled[3], "subdural"] = 1 - made.slices.loc[made.labelled[3], "subdural"]
    write_table(made.slices, made.root / "slices.parquet", SLICES)
    assert load_inputs(made.open(), RECIPE).ids["rows_id"] != before["rows_id"]


def test_members_are_checked_as_those_of_a_blend(made) -> None:
    oof, test = made.predictions(TWO, 1.0)
    oof.loc[17, "fold"] = (oof.loc[17, "fold"] + 1) % 3
    made.write_run(TWO, oof, test)
    with pytest.raises(ConflictError, match="leaked rows"):
        load_inputs(made.open(), RECIPE)


def test_members_that_predict_the_same_are_seen_once(made) -> None:
    oof, test = (pd.read_parquet(made.root / "runs" / ONE / f"{kind}.parquet") for kind in ("oof", "test"))
    made.write_run(SECOND, oof.assign(recipe_id=SECOND), test.assign(recipe_id=SECOND))
    inputs = load_inputs(made.open(), RECIPE)
    assert [member.recipe_id for member in inputs.members] == [ONE, TWO]
    assert inputs.labelled.p_MRL.shape[0] == 2


def test_embeddings_that_were_not_kept_are_missed_by_name(made) -> None:
    with pytest.raises(DataError, match=r"test_embeddings.parquet does not exist; run `ichtune train --embeddings`"):
        load_inputs(made.open(), SecondLevelRecipe(model="gru", embeddings=4))


def test_without_unlabelled_slices_there_is_nothing_to_predict(make_blend_workspace) -> None:
    made = make_blend_workspace(n_patients=12, n_test_patients=0, noises=(), in_runs=True)
    made.write_run(ONE, made.predictions(ONE, 1.0)[0], None)
    inputs = load_inputs(made.open(), RECIPE)
    assert len(inputs.test_view(0)) == 0
    assert len(inputs.labelled) == 120


def test_a_recipe_file_that_is_damaged_is_named(made) -> None:
    path: Path = made.root / "runs" / ONE / "recipe.json"
    path.write_text(json.dumps([1]), encoding="utf-8")
    with pytest.raises(DataError, match="must hold a JSON object"):
        load_inputs(made.open(), RECIPE)
