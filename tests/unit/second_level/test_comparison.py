"""What a second level is worth: paired with what it learnt from, which is chosen without the fold that is predicted."""

from dataclasses import replace

import numpy as np
import pytest

from ichtune.metrics import weighted_log_loss
from ichtune.second_level.comparison import compare
from ichtune.second_level.inputs import load_inputs
from ichtune.second_level_recipe import SecondLevelRecipe

ONE, TWO = "aaaaaaaaaaaa", "bbbbbbbbbbbb"


@pytest.fixture
def inputs(make_blend_workspace):
    made = make_blend_workspace(n_patients=15, n_test_patients=0, noises=(), in_runs=True)
    for recipe_id, noise in ((ONE, 1.0), (TWO, 1.5)):
        made.write_run(recipe_id, made.predictions(recipe_id, noise)[0], None)
    return load_inputs(made.open(), SecondLevelRecipe())


def test_the_mean_of_the_members_gains_nothing_on_itself(inputs) -> None:
    p_RL = inputs.labelled.p_MRL.mean(axis=0)
    found = compare(inputs, p_RL)
    assert found.loss == found.equal_mean_loss == weighted_log_loss(inputs.y_RL, p_RL)
    assert (found.to_equal_mean.estimate, found.to_equal_mean.low, found.to_equal_mean.high) == (0.0, 0.0, 0.0)


def test_the_truth_gains_clearly_and_a_lie_loses(inputs) -> None:
    truth, lie = (compare(inputs, np.abs(inputs.y_RL - wrong)) for wrong in (0.01, 0.99))
    assert truth.to_equal_mean.high < 0 < lie.to_equal_mean.low
    assert truth.to_best_single.high < 0 < lie.to_best_single.low
    assert truth.to_best_single.estimate == pytest.approx(truth.loss - truth.best_single_loss)


def test_the_best_member_is_chosen_without_the_fold_that_it_predicts(inputs) -> None:
    """Each member is perfect on one fold and useless on the others: chosen in sample, one of them would look good."""
    p_MRL = np.full((3, *inputs.y_RL.shape), 0.5)
    for m in range(3):
        p_MRL[m, inputs.fold_R == m] = np.abs(inputs.y_RL[inputs.fold_R == m] - 0.01)
    found = compare(replace(inputs, labelled=inputs.labelled.with_predictions(p_MRL)), inputs.y_RL)
    assert found.best_single_loss == pytest.approx(np.log(2))
