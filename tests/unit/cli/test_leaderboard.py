import json
import math

import numpy as np
import pytest
from optuna.distributions import FloatDistribution, distribution_to_json

from ichtune.cli.main import main
from ichtune.recipe import Recipe
from ichtune.search.ledger import FAILED, FINISHED, STOPPED, Ledger, TrialRecord
from ichtune.search.trial_table import ledger_path
from ichtune.second_level_recipe import SecondLevelRecipe

pytestmark = pytest.mark.slow  # whole workspaces are searched, trained, blended or drawn

NOTHING = {"params": {}, "distributions": {}}


@pytest.fixture
def work(fake_workspace):
    workspace = fake_workspace()
    for name, losses in (("one", [0.3, 0.1]), ("two", [0.2])):
        ledger = Ledger(ledger_path(workspace.layout, name))
        ledger.open({})
        for number, loss in enumerate(losses):
            recipe = Recipe(lr=10.0 ** -(2 + number))
            ledger.start(TrialRecord(number, {"lr": recipe.lr}, NOTHING, recipe))
            ledger.epoch(number, {"epoch": 1, "val_weighted_log_loss": loss, "seconds": 1.0})
            ledger.end(number, FINISHED)
    ledger.start(TrialRecord(1, {"lr": 1.0}, NOTHING, Recipe(lr=1.0)))
    ledger.end(1, FAILED, "diverged")
    return str(workspace.layout.root)


@pytest.fixture
def searched(fake_workspace):
    """A search whose learning rate decides, half of it stopped at the first rung."""
    workspace = fake_workspace("rates")
    ledger = Ledger(ledger_path(workspace.layout, "rates"))
    ledger.open({})
    distributions = {
        "lr": distribution_to_json(FloatDistribution(1e-5, 1e-2, log=True)),
        "flip": distribution_to_json(FloatDistribution(0.0, 1.0)),
    }
    rng = np.random.default_rng(0)
    for number in range(24):
        params = {"lr": float(10 ** rng.uniform(-5, -2)), "flip": float(rng.uniform())}
        loss = 0.1 + 0.1 * abs(math.log10(params["lr"]) + 3)
        ledger.start(TrialRecord(number, params, {"params": params, "distributions": distributions}, Recipe(**params)))
        rung = {"rung": 1, "rung_loss": loss, "cost": 1.5}
        ledger.epoch(number, {"epoch": 1, "val_weighted_log_loss": loss + 0.1, "seconds": 3.0, **rung})
        for epoch in range(2, 5) if number % 2 else ():
            ledger.epoch(number, {"epoch": epoch, "val_weighted_log_loss": loss, "seconds": 2.0})
        ledger.end(number, FINISHED if number % 2 else STOPPED)
    return str(workspace.layout.root)


def rows_of(capsys, *arguments):
    assert main(["leaderboard", *arguments, "--json"]) == 0
    return json.loads(capsys.readouterr().out)


def test_it_ranks_the_trials_of_every_search(work, capsys):
    rows = rows_of(capsys, "--work", work)

    assert [(row["search"], row["trial"]) for row in rows] == [("one", 1), ("two", 0), ("one", 0), ("two", 1)]
    assert rows[0]["best_loss"] == 0.1
    assert rows[-1]["best_loss"] is None


def test_it_takes_one_search_or_the_best_few(work, capsys):
    assert {row["search"] for row in rows_of(capsys, "--work", work, "--search", "two")} == {"two"}
    assert len(rows_of(capsys, "--work", work, "--top", "1")) == 1


def test_it_sorts_by_any_column_or_parameter_either_way(work, capsys):
    rates = [row["lr"] for row in rows_of(capsys, "--work", work, "--sort", "lr")]
    assert rates == sorted(rates)
    for arguments in (("--sort", "-lr"), ("--sort", "lr", "--reverse"), ("--sort=-lr",)):
        assert [row["lr"] for row in rows_of(capsys, "--work", work, *arguments)] == sorted(rates, reverse=True)
    upside_down = [row["status"] for row in rows_of(capsys, "--work", work, "--reverse")]
    assert upside_down == ["failed", "finished", "finished", "finished"]


def test_it_keeps_the_rows_that_fulfil_every_filter(work, capsys):
    assert len(rows_of(capsys, "--work", work, "--filter", "lr<1")) == 3
    assert len(rows_of(capsys, "--work", work, "--filter", "lr<1", "--filter", "search = one")) == 2
    assert len(rows_of(capsys, "--work", work, "--status", "failed", "--status", "stopped")) == 1
    first = rows_of(capsys, "--work", work, "--filter", "search=two", "--top", "1")
    assert [(row["search"], row["trial"]) for row in first] == [("two", 0)]


def test_a_filter_that_nothing_fulfils_names_the_nearest(work, capsys):
    assert main(["leaderboard", "--work", work, "--filter", "search=tow", "--json"]) == 0

    said = capsys.readouterr()
    assert json.loads(said.out) == []
    assert "no trial has search = tow. Did you mean 'two'? Known: one, two." in said.err


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--sort", "lrate"], "no column 'lrate'. Did you mean 'lr'"),
        (["--filter", "epoch=3"], "no column 'epoch'. Did you mean 'epochs'"),
        (["--filter", "lr"], "--filter must be a column"),
        (["--status", "finish"], "Did you mean 'finished'"),
        (["--importance", "--top", "3"], "--importance looks at whole searches"),
    ],
)
def test_a_question_that_cannot_be_answered_is_an_error(work, capsys, arguments, said):
    assert main(["leaderboard", "--work", work, *arguments]) == 2
    assert said in capsys.readouterr().err


def test_the_table_says_why_a_trial_failed_and_what_comes_next(work, capsys):
    assert main(["leaderboard", "--work", work]) == 0

    said = capsys.readouterr()
    assert "0.1000" in said.out
    assert "trial 1 failed: diverged" in said.err
    assert "stopped early" not in said.err
    assert said.err.splitlines()[-1] == f"next: ichtune train --work {work}"


def test_winners_of_the_second_level_are_for_another_command(fake_workspace, capsys):
    layout = fake_workspace().layout
    ledger = Ledger(ledger_path(layout, "second"))
    ledger.open({"folds": [0], "space": {"level": 2}})
    ledger.start(TrialRecord(0, {"model": "gru"}, {}, SecondLevelRecipe()))
    ledger.epoch(0, {"epoch": 1, "val_weighted_log_loss": 0.3, "seconds": 2.0})
    ledger.end(0, "finished")

    assert main(["leaderboard", "--work", str(layout.root)]) == 0
    said = capsys.readouterr()
    assert SecondLevelRecipe().recipe_id in said.out
    assert said.err.splitlines()[-1] == f"next: ichtune stack --work {layout.root}"


def test_it_says_what_the_stopped_trials_would_have_cost(searched, capsys):
    assert main(["leaderboard", "--work", searched]) == 0

    said = capsys.readouterr().err
    assert "search rates: 12 of 24 trials were stopped early, which spared 30 epochs and about 1 min 0 s" in said
    assert "judging the others on the way cost 6 epochs" in said


def test_it_shows_which_parameters_decided(searched, capsys):
    assert main(["leaderboard", "--work", searched, "--importance"]) == 0

    said = capsys.readouterr()
    assert said.out.index("lr") < said.out.index("flip")
    assert "search rates, fanova: 24 trials by their score at the rung of epoch 1" in said.err


def test_importances_are_told_to_scripts_and_too_few_trials_say_so(work, searched, capsys):
    told = rows_of(capsys, "--work", searched, "--importance")
    assert [(one["search"], one["method"]) for one in told[-2:]] == [("rates", "fanova"), ("rates", "ped_anova")]
    assert set(told[-1]["shares"]) == set(told[-1]["chance"]) == {"lr", "flip"}

    assert main(["leaderboard", "--work", work, "--search", "one", "--importance"]) == 0
    said = capsys.readouterr()
    assert said.out == ""
    assert "importances need at least 20" in said.err


def test_without_a_search_it_names_the_command(fake_workspace, capsys):
    assert main(["leaderboard", "--work", str(fake_workspace("bare").layout.root)]) == 3

    assert "run `ichtune search --space windows.yaml` first" in capsys.readouterr().err
