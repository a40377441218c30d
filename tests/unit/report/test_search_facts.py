import json
import math

import pandas as pd
import pytest

from ichtune.errors import DataError
from ichtune.report.search_facts import by_window_set, collect_search, spent_and_best, value_text
from ichtune.report.search_plots import Rung
from ichtune.search.importance import LEAST_TRIALS
from ichtune.tables import TRIALS, read_table, write_table

pytestmark = pytest.mark.slow  # whole workspaces are searched, trained, blended or drawn


@pytest.fixture
def search(full_workspace):
    return collect_search(full_workspace.open())


def change(made, **columns):
    path = made.open().layout.trials
    write_table(read_table(path, TRIALS).assign(**columns), path, TRIALS)


def test_no_trials_are_none(make_blend_workspace):
    made = make_blend_workspace()
    assert collect_search(made.open()) is None
    write_table(pd.DataFrame({column: [] for column in TRIALS.columns}), made.open().layout.trials, TRIALS)
    assert collect_search(made.open()) is None


def write_rows(made, rows):
    write_table(pd.DataFrame(rows), made.open().layout.trials, TRIALS)
    return collect_search(made.open())


def test_trials_are_ranked_as_the_leaderboard_ranks_them_and_counted(search):
    assert [row.trial for row in search.rows] == [2, 0, 1, 4, 3]
    assert search.best.last_loss == 0.12
    assert search.by_status == {"failed": 1, "finished": 2, "interrupted": 1, "stopped": 1}
    assert (search.n_epochs, search.seconds) == (10.0, 15.0)
    assert [row.trial for row in search.failures] == [3]


def test_scores_at_rungs_and_their_branches_are_kept(search):
    rows = {row.trial: row for row in search.rows}
    assert search.was_judged
    assert (rows[1].rung_epoch, rows[1].rung_loss) == (2, 0.29)
    assert rows[1].curve.rungs == (Rung(epoch=2, loss=0.29, branch=0.5, is_end=True),)
    assert rows[2].curve.rungs == (Rung(epoch=2, loss=0.14, branch=0.5, is_end=False),)
    assert rows[0].rung_epoch is None


def test_trials_of_the_second_level_are_told_and_read_no_windows(full_workspace):
    path = full_workspace.open().layout.trials
    rows = read_table(path, TRIALS)
    second = rows.assign(search="second", recipe='{"level": 2, "model": "gru"}', parameters='{"hidden": 16}')
    found = write_rows(full_workspace, pd.concat([rows, second]))

    assert {row.search for row in found.rows if row.record is not None} == {*rows["search"], "second"}
    assert {row.windows for row in found.rows if row.search == "second"} == {""}
    assert by_window_set(found.rows) == by_window_set([row for row in found.rows if row.search != "second"])


def test_a_stopped_trial_says_what_it_would_have_cost(search):
    rows = {row.trial: row for row in search.rows}
    assert rows[1].spared_epochs == 4 - 2.5
    assert rows[1].spared_seconds == pytest.approx(1.5 * 1.5)
    assert rows[2].spared_epochs is None
    (detail,) = search.details
    assert (detail.savings.n_trials, detail.savings.n_epochs) == (1, 1.5)


def test_a_duplicate_costs_nothing_and_is_no_trial_to_compare(full_workspace, trial_row):
    rows = [
        trial_row(0, "brain", [0.3, 0.2], "finished"),
        trial_row(1, "bone", [0.4, 0.3], "finished"),
        trial_row(2, "brain", [], "duplicate") | {"duplicate_of": "0"},
        trial_row(3, "brain", [0.3, 0.2], "finished") | {"duplicate_of": "earlier/7", "epochs_spent": 0.0},
    ]
    search = write_rows(full_workspace, rows)
    records = {row.trial: row.record for row in search.rows}
    assert (records[2].duplicate_of, records[2].from_search) == (0, "")
    assert (records[3].duplicate_of, records[3].from_search) == (7, "earlier")
    assert search.seconds == 6.0
    assert search.n_epochs == 4.0
    assert len(search.details[0].points) == 3


def test_points_carry_the_value_that_trials_are_compared_by_and_their_rank(search):
    (detail,) = search.details
    assert detail.what == "score at the rung of epoch 2"
    assert [(p.status, p.value, p.rank) for p in detail.points] == [("stopped", 0.29, 2), ("finished", 0.14, 0)]
    assert {axis.name for axis in detail.axes} == {"windows", "lr"}


def test_too_few_trials_have_no_importances_but_say_so(search):
    (detail,) = search.details
    assert detail.told == {}
    assert f"need at least {LEAST_TRIALS}" in detail.importances[0].note


def test_with_enough_trials_the_most_important_parameter_comes_first(full_workspace, trial_row):
    rates = [10 ** (-4 + 3 * n / 29) for n in range(30)]
    rows = [
        trial_row(n, ("brain", "bone")[n % 2], [0.3, 0.1 + 0.1 * abs(math.log10(lr) + 2)], "finished", lr=lr)
        for n, lr in enumerate(rates)
    ]
    (detail,) = write_rows(full_workspace, rows).details
    assert detail.axes[0].name == "lr"
    assert "lr" in detail.told
    assert detail.axes[0].log


def test_each_search_has_its_own_details(full_workspace, trial_row):
    rows = [trial_row(n, "brain", [0.3, 0.2], "finished") | {"search": name} for name in "ba" for n in range(2)]
    search = write_rows(full_workspace, rows)
    assert [detail.name for detail in search.details] == ["a", "b"]
    assert [len(detail.points) for detail in search.details] == [2, 2]


def test_parameters_that_all_trials_share_are_told_apart(search):
    assert search.keys == ("windows", "lr")
    assert search.constant == {"epochs": "4"}


def test_epochs_spent_add_up_in_the_order_of_proposals(search):
    assert spent_and_best(search.rows) == {"windows": [(3.0, 0.20), (5.5, 0.30), (9.0, 0.12), (10.0, 9.0)]}


def test_window_sets_are_ordered_by_their_best_trial(search):
    groups = by_window_set(search.rows)
    assert list(groups) == ["brain_subdural_bone", "brain", "bone"]
    assert groups["brain"] == [("finished", 0.20), ("failed", 9.0)]


def test_a_loss_that_is_no_number_is_left_out_of_the_curve(full_workspace):
    curve = [{"epoch": 1, "val_weighted_log_loss": 0.3}, {"epoch": 2, "val_weighted_log_loss": float("nan")}]
    change(full_workspace, curve=json.dumps(curve))
    assert all(row.curve.points == ((1, 0.3),) for row in collect_search(full_workspace.open()).rows)


def test_a_damaged_column_names_the_trial(full_workspace):
    change(full_workspace, parameters="{")
    with pytest.raises(DataError, match="trial 0 of search 'windows': column 'parameters'"):
        collect_search(full_workspace.open())


def test_a_recipe_of_another_version_keeps_its_row(full_workspace):
    change(full_workspace, recipe=json.dumps({"windows": "brain", "from_the_future": 1}), parameters="{}")
    search = collect_search(full_workspace.open())
    assert {(row.windows, row.record) for row in search.rows} == {("brain", None)}
    assert search.details[0].points == ()


def test_window_sets_with_searched_numbers_are_one(full_workspace):
    change(full_workspace, parameters=json.dumps({"windows": "30..60/80"}))
    assert {row.windows for row in collect_search(full_workspace.open()).rows} == {"30..60/80"}


@pytest.mark.parametrize(
    ("name", "value", "text"),
    [
        ("lr", 0.00123456, "0.00123"),
        ("windows", [[40, 80], [80, 200], [600, 2800]], "brain_subdural_bone"),
        ("windows", [[41, 80]], "41/80"),
        ("windows", "brain", "brain"),
        ("epochs", 4, "4"),
        ("pretrained", True, "True"),
        ("momentum", None, ""),
    ],
)
def test_values_are_short(name, value, text):
    assert value_text(name, value) == text
