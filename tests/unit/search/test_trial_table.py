import json

import pytest

from ichtune.errors import DataError
from ichtune.layout import Layout
from ichtune.locks import only_one
from ichtune.search.ledger import FAILED, FINISHED, INTERRUPTED, STOPPED, Ledger
from ichtune.search.trial_table import leaderboard, ledger_path, lock_path, winners, write_trials
from ichtune.tables import TRIALS, read_table


@pytest.fixture
def layout(tmp_path, record):
    made = Layout(tmp_path)
    ledger = Ledger(ledger_path(made, "windows"))
    ledger.open({})
    trials = [
        record(0, [0.3, 0.2], FINISHED, lr=1e-3),
        record(1, [0.1], STOPPED, lr=2e-3),
        record(2, [], FAILED, lr=3e-3),
        record(3, [0.25, 0.15], FINISHED, lr=4e-3),
        record(4, [0.4], INTERRUPTED, lr=5e-3),
        record(5, [0.5, 0.16], FINISHED, lr=4e-3),
    ]
    for trial in trials:
        ledger.start(trial)
        for epoch in trial.curve:
            ledger.epoch(trial.trial, epoch)
        if trial.status != INTERRUPTED:
            ledger.end(trial.trial, trial.status, "it broke" if trial.status == FAILED else "")
    return made


def test_the_leaderboard_ranks_by_best_loss_and_keeps_those_without_one(layout):
    rows = leaderboard(layout)

    assert [row["trial"] for row in rows] == [1, 3, 5, 0, 4, 2]
    assert rows[0]["lr"] == 2e-3
    assert rows[0]["best_loss"] == 0.1
    assert rows[-1]["best_loss"] is None
    assert rows[-1]["reason"] == "it broke"
    assert {"trial", "recipe_id", "status", "epochs", "best_loss", "seconds"} <= set(rows[0])


def test_winners_are_distinct_and_trained_to_the_end_first(layout):
    rates = [recipe.lr for recipe in winners(layout, 9)]

    assert rates == [4e-3, 1e-3, 2e-3]  # the repeated recipe once; the stopped one last, whatever its loss


def test_winners_are_no_more_than_asked_for(layout):
    assert [recipe.lr for recipe in winners(layout, 1)] == [4e-3]


def test_unlike_recipes_come_before_second_ones_of_a_kind(tmp_path, record):
    made = Layout(tmp_path)
    ledger = Ledger(ledger_path(made, "windows"))
    ledger.open({})
    kinds = [(0.10, "brain", 1), (0.11, "brain", 1), (0.12, "subdural", 1), (0.13, "brain", 0), (0.14, "subdural", 1)]
    for number, (loss, windows, neighbours) in enumerate(kinds):
        trial = record(number, [loss], FINISHED, lr=1e-3 * (number + 1), windows=windows, neighbours=neighbours)
        ledger.start(trial)
        ledger.epoch(number, trial.curve[0])
        ledger.end(number, FINISHED)

    assert [recipe.lr for recipe in winners(made, 9)] == pytest.approx([1e-3, 3e-3, 4e-3, 2e-3, 5e-3])


def test_the_table_holds_every_trial_and_its_curve(layout):
    write_trials(layout)

    table = read_table(layout.trials, TRIALS)

    assert table["trial"].tolist() == [0, 1, 2, 3, 4, 5]
    assert [epoch["val_weighted_log_loss"] for epoch in json.loads(table.loc[3, "curve"])] == [0.25, 0.15]
    assert json.loads(table.loc[1, "parameters"]) == {"lr": 2e-3}
    assert table.loc[3, "seconds"] == 4.0


def test_no_search_names_the_command(tmp_path):
    with pytest.raises(DataError, match=r"run `ichtune search --space windows\.yaml` first"):
        leaderboard(Layout(tmp_path))


def test_an_unknown_search_lists_those_that_are_there(layout):
    with pytest.raises(DataError, match=r"no search 'x'.*windows"):
        leaderboard(layout, "x")


def test_a_searched_parameter_never_hides_a_figure(tmp_path, record):
    made = Layout(tmp_path)
    ledger = Ledger(ledger_path(made, "windows"))
    ledger.open({})
    trial = record(0, [0.3], STOPPED)
    trial.parameters = {"epochs": 9, "lr": 1e-3}
    ledger.start(trial)
    ledger.epoch(0, trial.curve[0])
    ledger.end(0, STOPPED)

    assert leaderboard(made)[0]["epochs"] == 1


def test_a_trial_without_an_end_runs_while_its_search_does(layout):
    with only_one(lock_path(layout, "windows"), "busy"):
        running = {row["trial"]: row["status"] for row in leaderboard(layout)}
    later = {row["trial"]: row["status"] for row in leaderboard(layout)}

    assert (running[4], later[4]) == ("running", "interrupted")
    assert {n: s for n, s in running.items() if n != 4} == {n: s for n, s in later.items() if n != 4}
