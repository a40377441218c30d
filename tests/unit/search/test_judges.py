"""Judges: each trains the epoch at whose end the rung lies, says what it saw, and leaves the run to go on."""

import numpy as np
import pytest
import torch

from ichtune.errors import ConfigError
from ichtune.metrics import weighted_log_loss
from ichtune.recipe import Recipe
from ichtune.search.judges import JUDGES, find_judge
from ichtune.space import settings
from ichtune.training.fold_run import open_fold
from ichtune.training.loop import TrainingRun

RECIPE = Recipe(architecture="tiny_convnet", windows="brain", image_px=32, epochs=3, batch_size=16, lr=1e-2)


@pytest.fixture
def run(session_workspace) -> TrainingRun:
    return open_fold(session_workspace, RECIPE, 0, torch.device("cpu")).run


def test_every_judge_that_a_space_may_name_is_one_or_has_runs_of_its_own():
    assert {*JUDGES, "short"} == set(settings.JUDGES)


@pytest.mark.parametrize("name", JUDGES)
def test_a_judge_trains_one_epoch_and_the_run_goes_on_as_if_it_had_not_judged(session_workspace, run, name):
    straight = open_fold(session_workspace, RECIPE, 0, torch.device("cpu")).run

    judged = find_judge(name)(run, 0.5)

    assert run.epoch == 1
    assert judged.keys() == {"loss", "epochs", "seconds"}
    straight.run_epoch()
    for one in (run, straight):
        one.run_epoch()
    np.testing.assert_array_equal(run.predict(run.valid_rows), straight.predict(run.valid_rows))


def test_the_last_judge_says_nothing_of_its_own(run):
    assert find_judge("last")(run, 0.5) == {"loss": None, "epochs": 0.0, "seconds": 0.0}


def test_the_cooldown_costs_its_length_and_sees_another_loss(run):
    judged = find_judge("cooldown")(run, 0.5)

    assert judged["epochs"] == pytest.approx(0.5, abs=0.5 / run.steps_an_epoch)
    assert judged["seconds"] > 0
    assert np.isfinite(judged["loss"])
    own = weighted_log_loss(run.data.labels(run.valid_rows), run.predict_plain(run.valid_rows))
    assert judged["loss"] != own


def test_the_average_costs_no_epochs(run):
    judged = find_judge("average")(run, 0.5)

    assert judged["epochs"] == 0.0
    assert np.isfinite(judged["loss"])
    assert judged["loss"] != run.history[-1].val_weighted_log_loss


def test_an_unknown_judge_names_the_nearest():
    with pytest.raises(ConfigError, match="Did you mean 'cooldown'"):
        find_judge("cooldwn")
