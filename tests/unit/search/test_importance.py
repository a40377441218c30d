import json
import math
import subprocess
import sys
import warnings
from functools import cache

import numpy as np
import pytest
from optuna.distributions import (
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
    distribution_to_json,
)

from ichtune.errors import ConfigError
from ichtune.recipe import Recipe
from ichtune.search.importance import (
    IMPORTANCES,
    LEAST_TRIALS,
    MOST_FANOVA_TRIALS,
    _ranks,
    _thinned,
    comparable_values,
    parameter_importances,
    rung_name,
)
from ichtune.search.ledger import DUPLICATE, FAILED, FINISHED, INTERRUPTED, STOPPED, TrialRecord
from ichtune.search.stages import FOLD_RUNG

DISTRIBUTIONS = {
    "lr": FloatDistribution(1e-5, 1e-2, log=True),
    "batch_size": IntDistribution(8, 128, log=True),
    "image_px": IntDistribution(64, 256, step=32),
    "optimizer": CategoricalDistribution(["sgd", "adamw"]),
    "momentum": FloatDistribution(0.5, 0.9, step=0.1),
    "lr_schedule": CategoricalDistribution(["step", "plateau"]),
    "rotate_deg": FloatDistribution(0.0, 30.0),
    "pooling": CategoricalDistribution(["max", "gem"]),
}
TEXTS = {name: distribution_to_json(one) for name, one in DISTRIBUTIONS.items()}


def params_of(rng):
    params = {
        "lr": float(10 ** rng.uniform(-5, -2)),
        "batch_size": int(2 ** rng.uniform(3, 7)),
        "image_px": int(rng.choice(range(64, 257, 32))),
        "optimizer": str(rng.choice(["sgd", "adamw"])),
        "rotate_deg": float(rng.uniform(0, 30)),
        "pooling": "max",
    }
    if params["optimizer"] == "sgd":
        params["momentum"] = round(float(rng.choice([0.5, 0.6, 0.7, 0.8, 0.9])), 1)
        params["lr_schedule"] = str(rng.choice(["step", "plateau"]))
    return params


def loss_of(params):
    """A made-up truth: the learning rate matters much, momentum where there is one some, nothing else."""
    return 0.1 + 0.1 * (math.log10(params["lr"]) + 3.5) ** 2 + 0.1 * params.get("momentum", 0.7)


def trial(number, params, final, n_epochs=9, rungs=(1, 3), status=None):
    curve = [{"epoch": e, "val_weighted_log_loss": final + 1.0 / e, "seconds": 1.0} for e in range(1, n_epochs + 1)]
    for epoch in curve:
        if epoch["epoch"] in rungs:
            epoch |= {"rung": epoch["epoch"], "rung_loss": final + 0.3 / epoch["epoch"]}
    if n_epochs == 9:
        curve[-1]["val_weighted_log_loss"] = final
    told = {"params": params, "distributions": {name: TEXTS[name] for name in params}}
    ended = FINISHED if n_epochs == 9 else STOPPED
    return TrialRecord(number, dict(params), told, Recipe(epochs=9), status or ended, "", curve)


def search(n, rungs=(1, 3), lengths=(1, 3, 9), seed=0):
    rng = np.random.default_rng(seed)
    trials = []
    for number in range(n):
        params = params_of(rng)
        final = loss_of(params) + 0.01 * rng.standard_normal()
        trials.append(trial(number, params, final, int(rng.choice(lengths)), rungs))
    return trials


@cache
def of_a_search(method, n=50):
    return parameter_importances(search(n), method)


@pytest.mark.parametrize("method", IMPORTANCES)
def test_what_matters_comes_first_and_is_told_from_chance(method):
    found = of_a_search(method)

    assert next(iter(found.shares)) == "lr"
    assert found.is_told("lr")
    assert not found.is_told("rotate_deg")
    assert sum(found.shares.values()) == pytest.approx(1.0)
    assert list(found.shares.values()) == sorted(found.shares.values(), reverse=True)
    assert (found.n_trials, found.what, found.note) == (50, "score at the rung of epoch 1", "")


@pytest.mark.parametrize("method", IMPORTANCES)
def test_the_same_records_give_the_same_figures_and_no_warning(method):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        again = parameter_importances(search(50), method)
    assert again == of_a_search(method)


@pytest.mark.parametrize("method", IMPORTANCES)
def test_where_nothing_matters_little_is_told_from_chance(method):
    rng = np.random.default_rng(3)
    trials = [trial(n, params_of(rng), float(rng.uniform())) for n in range(24)]
    found = parameter_importances(trials, method)
    assert sum(found.is_told(name) for name in found.shares) <= 2  # of seven, each one time in ten


@pytest.mark.parametrize("method", IMPORTANCES)
def test_a_parameter_of_a_condition_is_assessed_and_a_constant_is_not(method):
    shares = of_a_search(method).shares
    assert "momentum" in shares
    assert "pooling" not in shares
    assert ("lr_schedule" in shares) == (method == "ped_anova")  # a choice has no middle to put it in


@pytest.mark.parametrize("method", IMPORTANCES)
def test_too_few_trials_say_how_many_are_needed(method):
    found = parameter_importances(search(LEAST_TRIALS - 1), method)
    assert found.shares == {}
    assert (
        found.note
        == f"{LEAST_TRIALS - 1} trials have a score at the rung of epoch 1; importances need at least {LEAST_TRIALS}"
    )
    assert parameter_importances([], method).n_trials == 0


@pytest.mark.parametrize("method", IMPORTANCES)
def test_trials_that_are_all_alike_tell_nothing(method):
    alike = [trial(n, {"pooling": "max"}, 0.1) for n in range(LEAST_TRIALS)]
    assert parameter_importances(alike, method).shares == {}
    assert "more than one value" in parameter_importances(alike, method).note


def test_a_scale_is_taken_as_it_was_searched():
    """On the plain scale nine tenths of the range are the last decade, and what lies below it would not count."""
    rng = np.random.default_rng(1)
    trials = []
    for number in range(30):
        params = params_of(rng)
        trials.append(trial(number, params, float(params["lr"] < 1e-4) + 0.3 * params["rotate_deg"] / 30))
    shares = parameter_importances(trials, "fanova").shares
    assert shares["lr"] > shares["rotate_deg"]


def test_one_diverged_trial_changes_little():
    trials = search(50)
    trials[7].curve[0]["rung_loss"] = 1e6
    after = parameter_importances(trials, "ped_anova")
    assert after.shares["lr"] == pytest.approx(of_a_search("ped_anova").shares["lr"], abs=0.1)
    assert _ranks(np.array([0.3, 1e6, 0.1, 0.3])).tolist() == [1, 3, 0, 1]


def test_of_many_trials_fanova_takes_some_from_all_over_the_search():
    places = _thinned(1000, MOST_FANOVA_TRIALS)
    assert len(set(places)) == MOST_FANOVA_TRIALS
    assert (places[0], places[-1]) == (0, 999)
    assert np.ptp(np.diff(places)) <= 1
    assert _thinned(5, MOST_FANOVA_TRIALS) == [0, 1, 2, 3, 4]


def test_an_unknown_method_names_the_nearest():
    with pytest.raises(ConfigError, match="Did you mean 'ped_anova'"):
        parameter_importances([], "pedanova")


def test_scores_of_the_rung_that_most_trials_have_are_compared():
    found = comparable_values(search(30))
    assert (found.what, len(found.trials), found.n_without) == ("score at the rung of epoch 1", 30, 0)
    assert found.values[0] == found.trials[0].rung_losses[1]


def test_the_later_of_two_rungs_that_as_many_trials_have_is_the_truer():
    trials = search(20, lengths=(3, 9))
    assert comparable_values(trials).what == "score at the rung of epoch 3"


def test_final_losses_are_compared_where_almost_every_trial_has_one():
    trials = [*search(19, lengths=(9,)), trial(19, params_of(np.random.default_rng(0)), 0.2, 1)]
    found = comparable_values(trials)
    assert (found.what, len(found.trials), found.n_without) == ("loss at the end", 19, 1)
    assert found.values == tuple(t.last_loss for t in trials[:19])


def test_where_no_rung_was_judged_it_says_what_is_understated():
    found = parameter_importances(search(80, rungs=()), "ped_anova")
    assert found.what == "loss at the end"
    assert f"left out: {80 - found.n_trials} without a loss at the end" in found.note
    assert "understated" in found.note


def test_trials_without_a_value_and_repeated_ones_are_left_out():
    params = params_of(np.random.default_rng(0))
    trials = search(10)
    failed = trial(10, params, math.nan, 1, status=FAILED)
    unborn = trial(11, params, 0.1, 0, status=INTERRUPTED)
    repeated = trial(12, params, 0.1, 1, status=DUPLICATE)
    found = comparable_values([*trials, failed, unborn, repeated])
    assert [t.trial for t in found.trials] == list(range(10))
    assert found.n_without == 1


def test_a_rung_is_called_by_its_epoch_or_by_its_fold():
    assert rung_name(3) == "the rung of epoch 3"
    assert rung_name(FOLD_RUNG) == "the end of fold 1"


def test_neither_ray_nor_torch_is_needed():
    code = (
        "import sys, json, ichtune.search.importance, ichtune.search.cost_model;"
        "print(json.dumps([m for m in ('ray', 'torch', 'sklearn') if m in sys.modules]))"
    )
    assert json.loads(subprocess.check_output([sys.executable, "-c", code])) == []
