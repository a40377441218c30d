import numpy as np
import pytest

from ichtune.ensemble.blenders.logits import from_logits, to_logits
from ichtune.errors import DataError
from ichtune.labels import N_LABELS
from ichtune.report.stacked_models import StackedModels, load_stacked_fold
from ichtune.second_level.fold_run import load_series_model
from ichtune.second_level.inputs import load_inputs
from ichtune.second_level.stacking_runs import stack
from ichtune.second_level.state_file import load_state, save_state
from ichtune.second_level_recipe import SecondLevelRecipe
from ichtune.tables import P_COLUMNS, PREDICTIONS, read_table

pytestmark = pytest.mark.slow  # whole workspaces are searched, trained, blended or drawn

ONE, TWO = "aaaaaaaaaaaa", "bbbbbbbbbbbb"


@pytest.fixture
def made(make_blend_workspace):
    """A workspace, and the folders of a second level's folds."""
    made = make_blend_workspace(n_patients=18, n_test_patients=6, noises=(), in_runs=True)
    made.add_run(ONE, 2.0)
    made.add_run(TWO, 2.5)
    workspace = made.open()
    recipe_id = stack(workspace, SecondLevelRecipe(model="gaussian")).recipe.recipe_id
    return workspace, workspace.layout.runs / recipe_id


def weights_of(run):
    return [run / f"fold_{fold}" / "weights.safetensors" for fold in range(3)]


def fold_predictions(workspace):
    """What each fold model says of the test set (F, T, L), by run, in the order of the workspace."""
    found = {}
    for recipe_id in (ONE, TWO):
        table = read_table(workspace.layout.test(recipe_id), PREDICTIONS)
        ids = workspace.unlabelled["image_id"]
        found[recipe_id] = np.stack(
            [
                table[table["fold"] == fold].set_index("image_id").loc[ids, list(P_COLUMNS)].to_numpy()
                for fold in range(3)
            ]
        )
    return found


def kept_predictions(workspace, run):
    table = read_table(run / "test.parquet", PREDICTIONS)
    ids = workspace.unlabelled["image_id"]
    p = [table[table["fold"] == fold].set_index("image_id").loc[ids, list(P_COLUMNS)].to_numpy() for fold in range(3)]
    return from_logits(np.mean([to_logits(one) for one in p], axis=0))


def test_it_predicts_what_the_run_predicted(made):
    workspace, run = made
    models = StackedModels("gaussian", weights_of(run))
    assert (models.members, models.embedded) == ((ONE, TWO), ())
    p_TL = models.predict(workspace.unlabelled, fold_predictions(workspace))
    np.testing.assert_allclose(p_TL, kept_predictions(workspace, run), rtol=0, atol=1e-12)


def test_each_network_is_taken_by_itself(made):
    workspace, run = made
    p_of = fold_predictions(workspace)
    models = StackedModels("gaussian", weights_of(run))
    expected = models.predict(workspace.unlabelled, p_of)
    view = load_inputs(workspace, SecondLevelRecipe(model="gaussian")).unlabelled
    each = [load_series_model(path).predict(one) for path in weights_of(run) for one in view]
    order = [list(view[0].image_ids).index(one) for one in workspace.unlabelled["image_id"]]
    by_hand = from_logits(np.mean([to_logits(p) for p in each], axis=0))[order]
    np.testing.assert_allclose(expected, by_hand, rtol=0, atol=1e-12)


def test_rows_may_stand_in_any_order_and_other_series_do_not_matter(made):
    workspace, run = made
    slices, p_of = workspace.unlabelled, fold_predictions(workspace)
    models = StackedModels("gaussian", weights_of(run))
    whole = models.predict(slices, p_of)
    order = np.random.default_rng(0).permutation(len(slices))
    shuffled = models.predict(slices.iloc[order], {key: p[:, order] for key, p in p_of.items()})
    np.testing.assert_allclose(shuffled, whole[order], rtol=0, atol=1e-12)
    one = (slices["patient_id"] == slices["patient_id"].iloc[0]).to_numpy()
    alone = models.predict(slices[one], {key: p[:, one] for key, p in p_of.items()})
    np.testing.assert_allclose(alone, whole[one], rtol=0, atol=1e-12)
    assert whole.shape == (len(slices), N_LABELS)


def test_fold_models_of_different_runs_are_refused(made):
    _, run = made
    arrays, about = load_state(weights_of(run)[1], "weights")
    save_state(weights_of(run)[1], arrays, about | {"members": [TWO, ONE]})
    with pytest.raises(DataError, match="fold models of gaussian learnt from different runs"):
        StackedModels("gaussian", weights_of(run))


@pytest.mark.parametrize("change", [{"members": None}, {"embedded": 3}, {"recipe": {"level": 3}}, {"model": 1}])
def test_weights_that_do_not_say_what_they_learnt_from_are_refused(made, change):
    path = weights_of(made[1])[0]
    arrays, about = load_state(path, "weights")
    save_state(path, arrays, about | change)
    with pytest.raises(DataError, match=f"{path} does not say what it learnt from"):
        load_stacked_fold(path)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(DataError, match=r"none.safetensors does not exist; run `ichtune stack`"):
        load_stacked_fold(tmp_path / "none.safetensors")
