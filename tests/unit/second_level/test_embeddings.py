"""Embeddings of a view: each slice by the network of its fold, in one system that no label shaped."""

import numpy as np
import pytest

from ichtune.errors import ConfigError, DataError
from ichtune.second_level.embedding_space import EmbeddingSpace
from ichtune.second_level.embeddings import embedding_parts
from ichtune.second_level.inputs import load_inputs
from ichtune.second_level_recipe import SecondLevelRecipe
from ichtune.tables import write_json
from ichtune.training.embeddings import write_embeddings
from ichtune.training.run_folder import fold_folder

ONE, TWO = "aaaaaaaaaaaa", "bbbbbbbbbbbb"
RECIPE = SecondLevelRecipe(model="gru", embeddings=3)
N_DIMENSIONS = 8


@pytest.fixture
def made(make_blend_workspace):
    """Two runs; the networks of the first see three numbers of each slice, each network along axes of its own."""
    made = make_blend_workspace(n_patients=9, n_test_patients=24, noises=(), in_runs=True)
    made.add_run(ONE, 1.5)
    made.add_run(TWO, 2.0)
    write_networks(made, ONE)
    return made


def truth(made) -> np.ndarray:
    """What every network sees of each slice, as wide in each direction as the label of its axis is."""
    return np.random.default_rng(1).standard_normal((len(made.slices), 3)) * [3.0, 2.0, 1.0]


def write_networks(made, recipe_id: str) -> None:
    workspace, rng = made.open(), np.random.default_rng(2)
    folds = made.plan.folds_for(made.slices["patient_id"])
    ids = made.slices["image_id"].to_numpy(object)
    for fold in range(3):
        turn = np.linalg.qr(rng.standard_normal((N_DIMENSIONS, N_DIMENSIONS)))[0][:3]
        e_RD = truth(made) @ turn * (1.0 + fold) + rng.standard_normal(N_DIMENSIONS)
        own = made.labelled[folds[made.labelled] == fold]
        for kind, rows in (("oof", own), ("test", made.test)):
            shuffled = rng.permutation(rows)
            path = fold_folder(workspace, recipe_id, fold) / f"{kind}_embeddings.parquet"
            write_embeddings(path, ids[shuffled].tolist(), e_RD[None, shuffled].astype(np.float32), {})


def mark_foreign(made, recipe_id: str) -> None:
    write_json({"foreign": True, "summary": "elsewhere"}, made.root / "runs" / recipe_id / "recipe.json")


def test_every_fold_s_networks_come_into_one_system(made) -> None:
    mark_foreign(made, TWO)
    inputs = load_inputs(made.open(), RECIPE)
    assert inputs.labelled.e_RD is not None
    assert inputs.labelled.e_RD.shape == (90, 3)
    row_of = {image_id: row for row, image_id in enumerate(made.slices["image_id"])}
    seen = truth(made)
    of_first = None
    for view in (inputs.labelled, *(inputs.test_view(fold) for fold in range(3))):
        true = seen[[row_of[image_id] for image_id in view.image_ids]]
        solved = np.linalg.lstsq(np.c_[true, np.ones(len(true))], view.e_RD, rcond=None)[0]
        np.testing.assert_allclose(np.c_[true, np.ones(len(true))] @ solved, view.e_RD, atol=0.05)
        of_first = solved if of_first is None else of_first
        np.testing.assert_allclose(solved, of_first, atol=0.05)  # one map for all folds


def test_embeddings_are_part_of_what_is_learnt_from(made) -> None:
    mark_foreign(made, TWO)
    with_them, without = load_inputs(made.open(), RECIPE), load_inputs(made.open(), SecondLevelRecipe(model="gru"))
    assert with_them.ids["rows_id"] != without.ids["rows_id"]
    assert without.labelled.e_RD is None
    assert without.parts == ()
    (part,) = with_them.parts
    again = EmbeddingSpace.from_arrays(part.space.arrays())
    ids = with_them.test_view(0).image_ids
    e = np.random.default_rng(0).standard_normal((len(ids), N_DIMENSIONS))
    np.testing.assert_array_equal(again.project(2, e), part.space.project(2, e))


def test_a_run_without_embeddings_is_told_how_to_get_them(made) -> None:
    with pytest.raises(DataError, match=rf"{TWO}.*does not exist; run `ichtune train --embeddings`"):
        load_inputs(made.open(), RECIPE)


def test_foreign_members_alone_have_none(made) -> None:
    mark_foreign(made, ONE)
    mark_foreign(made, TWO)
    with pytest.raises(DataError, match="they are all foreign tables; write `embeddings: 0`"):
        load_inputs(made.open(), RECIPE)


def test_too_few_unlabelled_slices_are_refused(made) -> None:
    workspace = made.open()
    few = workspace.unlabelled["image_id"].to_numpy(object)[:50]
    with pytest.raises(DataError, match="embeddings: 0"):
        embedding_parts(workspace, [ONE], 3, few)
    with pytest.raises(ConfigError, match="between 1 and the 8 dimensions"):
        embedding_parts(workspace, [ONE], 9, workspace.unlabelled["image_id"].to_numpy(object))
    assert embedding_parts(workspace, [ONE], 0, few) == ()
