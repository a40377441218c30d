import json

import pandas as pd
import pytest

from ichtune.errors import DataError
from ichtune.report.search_facts import by_window_set, collect_search, spent_and_best, value_text
from ichtune.tables import TRIALS, read_table, write_table


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


def test_trials_are_ranked_and_counted(search):
    assert [row.trial for row in search.rows] == [2, 0, 1, 3, 4]
    assert search.best.best_loss == 0.12
    assert search.by_status == {"failed": 1, "finished": 2, "interrupted": 1, "stopped": 1}
    assert (search.n_epochs, search.seconds) == (9, 13.5)
    assert [row.trial for row in search.failures] == [3]


def test_parameters_that_all_trials_share_are_told_apart(search):
    assert search.keys == ("windows", "lr")
    assert search.constant == {"epochs": "4"}


def test_epochs_spent_add_up_in_the_order_of_proposals(search):
    assert spent_and_best(search.rows) == {"windows": [(3, 0.20), (5, 0.30), (8, 0.12), (9, 9.0)]}


def test_window_sets_are_ordered_by_their_best_trial(search):
    groups = by_window_set(search.rows)
    assert list(groups) == ["brain_subdural_bone", "brain", "bone"]
    assert groups["brain"] == [("finished", 0.20), ("failed", 9.0)]


def test_a_loss_that_is_no_number_is_left_out_of_the_curve(full_workspace):
    curve = [{"epoch": 1, "val_weighted_log_loss": 0.3}, {"epoch": 2, "val_weighted_log_loss": float("nan")}]
    change(full_workspace, curve=json.dumps(curve))
    assert all(row.curve == ((1, 0.3),) for row in collect_search(full_workspace.open()).rows)


def test_a_damaged_column_names_the_trial(full_workspace):
    change(full_workspace, parameters="{")
    with pytest.raises(DataError, match="trial 0 of search 'windows': column 'parameters'"):
        collect_search(full_workspace.open())


def test_a_recipe_of_another_version_keeps_its_row(full_workspace):
    change(full_workspace, recipe=json.dumps({"windows": "brain", "from_the_future": 1}))
    assert {row.windows for row in collect_search(full_workspace.open()).rows} == {"brain"}


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
