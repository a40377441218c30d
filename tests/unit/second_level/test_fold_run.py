"""One fold of the second level: it never sees its own labels, and what is interrupted goes on to the same bits."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from ichtune.ensemble.blenders.logits import from_logits, to_logits
from ichtune.errors import ConfigError, ConflictError, DataError
from ichtune.metrics import weighted_log_loss
from ichtune.second_level.fold_run import SecondLevelRun, load_series_model, open_second_level_fold
from ichtune.second_level.inputs import LevelInputs, load_inputs
from ichtune.second_level.models import create_series_model
from ichtune.second_level.state_file import load_state
from ichtune.second_level_recipe import SecondLevelRecipe

ONE, TWO = "aaaaaaaaaaaa", "bbbbbbbbbbbb"
GAUSSIAN = SecondLevelRecipe(model="gaussian")
GRU = SecondLevelRecipe(model="gru", hidden=4, layers=1, epochs=2, batch_size=8)
TREES = SecondLevelRecipe(model="hist_gradient_boosting", rounds=2, neighbours=1, aggregates=False, min_slices=10)


@pytest.fixture
def made(make_blend_workspace):
    made = make_blend_workspace(n_patients=12, n_test_patients=3, noises=(), in_runs=True)
    made.add_run(ONE, 1.0)
    made.add_run(TWO, 1.5)
    return made


def run_of(inputs: LevelInputs, fold: int = 0) -> SecondLevelRun:
    run = SecondLevelRun(inputs, fold)
    while not run.finished:
        run.run_epoch()
    return run


def inputs_of(made, recipe: SecondLevelRecipe) -> LevelInputs:
    return load_inputs(made.open(), recipe)


def test_it_is_judged_on_the_slices_of_its_fold(made) -> None:
    run = open_second_level_fold(made.open(), GAUSSIAN, 1)
    assert (run.epoch, run.n_epochs, run.finished) == (0, 1, False)
    result = run.run_epoch()
    assert (run.epoch, run.finished, run.history) == (1, True, [result])
    inputs = run.inputs
    held_out = inputs.fold_R == 1
    np.testing.assert_array_equal(run.held_out_rows, np.flatnonzero(held_out))
    p_RL = run.predict_held_out()
    assert result.val_weighted_log_loss == weighted_log_loss(inputs.y_RL[held_out], p_RL)
    view = inputs.labelled.take(~held_out)
    model = create_series_model(run.recipe)
    model.begin(view, inputs.y_RL[~held_out]).run_epoch()
    np.testing.assert_array_equal(p_RL, model.predict(inputs.labelled.take(held_out)))
    assert result.train_loss == pytest.approx(weighted_log_loss(inputs.y_RL[~held_out], model.predict(view)))


@pytest.mark.slow  # takes seconds
@pytest.mark.parametrize("recipe", [GAUSSIAN, GRU, TREES], ids=lambda recipe: recipe.model)
def test_labels_of_the_held_out_fold_change_no_prediction_of_its_model(made, recipe: SecondLevelRecipe) -> None:
    inputs = inputs_of(made, recipe)
    own, others = inputs.fold_R == 1, inputs.fold_R != 1
    before = run_of(inputs, 1)
    lied_about_own = run_of(replace(inputs, y_RL=np.where(own[:, None], 1.0 - inputs.y_RL, inputs.y_RL)), 1)
    np.testing.assert_array_equal(lied_about_own.predict_held_out(), before.predict_held_out())
    np.testing.assert_array_equal(lied_about_own.predict_test(), before.predict_test())
    lied_about_others = run_of(replace(inputs, y_RL=np.where(others[:, None], 1.0 - inputs.y_RL, inputs.y_RL)), 1)
    assert (lied_about_others.predict_held_out() != before.predict_held_out()).any(), "the test would see no leak"


@pytest.mark.parametrize("recipe", [GAUSSIAN, GRU, TREES], ids=lambda recipe: recipe.model)
def test_predictions_of_held_out_slices_change_only_what_is_predicted_of_them(made, recipe: SecondLevelRecipe) -> None:
    inputs = inputs_of(made, recipe)
    p_MRL = inputs.labelled.p_MRL.copy()
    p_MRL[:, inputs.fold_R == 1] = 0.5
    changed = run_of(replace(inputs, labelled=inputs.labelled.with_predictions(p_MRL)), 1)
    np.testing.assert_array_equal(changed.predict_test(), run_of(inputs, 1).predict_test())


def test_unlabelled_slices_are_predicted_from_each_fold_model_and_averaged_in_log_odds(made) -> None:
    run = run_of(inputs_of(made, GAUSSIAN))
    p_FTL = np.stack([run._model.predict(run.inputs.test_view(fold)) for fold in range(3)])
    np.testing.assert_allclose(run.predict_test(), from_logits(to_logits(p_FTL).mean(axis=0)), atol=1e-12)
    assert np.ptp(p_FTL, axis=0).max() > 0.01


def test_a_run_that_is_taken_up_ends_with_the_same_bits(made, tmp_path: Path) -> None:
    inputs = inputs_of(made, GRU)
    whole, begun, taken_up = (SecondLevelRun(inputs, 2) for _ in range(3))
    whole.run_epoch()
    begun.run_epoch()
    begun.notes.append("said before")
    begun.save(tmp_path / "resume.safetensors")
    taken_up.load(tmp_path / "resume.safetensors")
    assert (taken_up.epoch, taken_up.notes) == (1, ["said before"])
    for run in (whole, taken_up):
        while not run.finished:
            run.run_epoch()
    assert [r.train_loss for r in taken_up.history] == [r.train_loss for r in whole.history]
    np.testing.assert_array_equal(taken_up.predict_held_out(), whole.predict_held_out())
    np.testing.assert_array_equal(taken_up.predict_test(), whole.predict_test())


@pytest.mark.parametrize("recipe", [GAUSSIAN, GRU, TREES], ids=lambda recipe: recipe.model)
def test_its_weights_predict_the_same(made, recipe: SecondLevelRecipe, tmp_path: Path) -> None:
    run = run_of(inputs_of(made, recipe))
    run.save_weights(tmp_path / "weights.safetensors")
    arrays, about = load_state(tmp_path / "weights.safetensors", "weights")
    assert (about["members"], about["embedded"]) == ([ONE, TWO], [])
    assert SecondLevelRecipe.from_dict(about["recipe"]) == run.recipe
    assert {name.split(".")[0] for name in arrays} <= {"model"}
    model = load_series_model(tmp_path / "weights.safetensors")
    view = run.inputs.labelled.take(run.held_out_rows)
    np.testing.assert_array_equal(model.predict(view), run.predict_held_out())


def test_a_checkpoint_of_something_else_is_refused(made, tmp_path: Path) -> None:
    path = tmp_path / "resume.safetensors"
    run = run_of(inputs_of(made, GAUSSIAN), 0)
    run.save(path)
    with pytest.raises(DataError, match="is of another recipe"):
        SecondLevelRun(inputs_of(made, replace(GAUSSIAN, members=(ONE,))), 0).load(path)
    with pytest.raises(ConflictError, match="may have seen those"):
        SecondLevelRun(run.inputs, 1).load(path)
    made.add_run(TWO, 1.5)
    with pytest.raises(ConflictError, match="trained on other predictions"):
        SecondLevelRun(inputs_of(made, GAUSSIAN), 0).load(path)
    run.save_weights(path)
    with pytest.raises(DataError, match="must be of kind 'resume'"):
        SecondLevelRun(run.inputs, 0).load(path)


def test_what_follows_a_step_is_told_before_the_epoch_is_judged(made) -> None:
    run = SecondLevelRun(inputs_of(made, GAUSSIAN), 0)
    told: list[int] = []
    run.run_epoch(lambda going: told.append(going.epoch))
    assert told == [0]


def test_a_fold_without_labels_or_alone_is_refused(made) -> None:
    inputs = inputs_of(made, GAUSSIAN)
    with pytest.raises(ConfigError, match="folds 0, 1, 2"):
        SecondLevelRun(inputs, 3)
    alone = replace(inputs, fold_R=np.zeros_like(inputs.fold_R))
    with pytest.raises(DataError, match="and in others, got those of folds 0"):
        SecondLevelRun(alone, 0)
