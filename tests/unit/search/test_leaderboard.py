import math
from dataclasses import replace

import pytest

from ichtune.errors import ConfigError, DataError
from ichtune.layout import Layout
from ichtune.locks import only_one
from ichtune.search.leaderboard import (
    COLUMNS,
    OPERATORS,
    RowFilter,
    chosen_records,
    filter_rows,
    in_vain,
    leaderboard_rows,
    parameter_names,
    sort_rows,
)
from ichtune.search.ledger import FAILED, INTERRUPTED, STOPPED, Ledger
from ichtune.search.trial_table import ledger_path, lock_path

ROWS = [
    {"trial": 0, "lr": 1e-3, "windows": "brain", "pretrained": True, "momentum": 0.9},
    {"trial": 1, "lr": 2e-3, "windows": "bone", "pretrained": False},
    {"trial": 2, "lr": 5e-4, "windows": "brain", "pretrained": True, "momentum": math.nan},
]


def trials(filters, rows=ROWS):
    return [row["trial"] for row in filter_rows(rows, [RowFilter.parse(text) for text in filters])]


def judged(record, rungs):
    """Give a record scores at rungs."""
    for epoch, loss in rungs.items():
        record.curve[epoch - 1] |= {"rung": epoch, "rung_loss": loss, "cost": 1.5}
    return record


def write(ledger, records):
    for record in records:
        ledger.start(record)
        for epoch in record.curve:
            ledger.epoch(record.trial, epoch)
        if record.status != INTERRUPTED:
            ledger.end(record.trial, record.status, "it broke" if record.status == FAILED else "")


@pytest.fixture
def layout(tmp_path, record):
    made = Layout(tmp_path)
    ledger = Ledger(ledger_path(made, "windows"))
    ledger.open({})
    write(
        ledger,
        [
            judged(record(0, [0.30, 0.25, 0.20] * 3, lr=1e-3), {1: 0.31}),
            judged(record(1, [0.10], STOPPED, lr=2e-3), {1: 0.32}),
            record(2, [0.01], FAILED, lr=3e-3),
            judged(record(3, [0.30, 0.20, 0.19] * 3, lr=4e-3), {1: 0.30}),
            record(4, [0.4], INTERRUPTED, lr=5e-3),
            judged(record(5, [0.5, 0.4, 0.4], STOPPED, lr=6e-3), {1: 0.50, 3: 0.60}),
            record(6, [], INTERRUPTED, lr=7e-3),
            judged(record(7, [0.9], STOPPED, lr=8e-3), {1: 0.31}),
            record(8, [], INTERRUPTED, lr=4e-3),
        ],
    )
    ledger.duplicate(8, 3)
    return made


def test_finished_trials_come_first_then_how_far_the_others_came(layout):
    ranked = [row["trial"] for row in leaderboard_rows(layout)]
    assert ranked == [
        *(3, 8, 0),  # finished, by the loss at the end, the duplicate after the trial that answered it
        *(5, 7, 1),  # judged: the highest rung first, then by the score there, whatever the last epoch's loss
        *(4, 6),  # never judged
        2,  # failed, whatever its loss
    ]


def test_a_row_says_how_far_a_trial_came_and_what_it_cost(layout):
    rows = {row["trial"]: row for row in leaderboard_rows(layout)}
    assert tuple(rows[5])[: len(COLUMNS)] == COLUMNS
    assert rows[5]["lr"] == 6e-3
    told = {key: rows[5][key] for key in ("epochs", "rung", "rung_loss", "best_loss", "last_loss", "seconds")}
    assert told == {"epochs": 3, "rung": 3, "rung_loss": 0.60, "best_loss": 0.4, "last_loss": 0.4, "seconds": 6.0}
    assert (rows[5]["epochs_spent"], rows[5]["spared_epochs"]) == (4.0, 9 - 4.0)
    assert rows[5]["spared_seconds"] == pytest.approx(5 * 2.0 / 1.5, rel=0.5)
    assert rows[5]["judged_epochs"] is None
    assert (rows[0]["spared_epochs"], rows[0]["spared_seconds"], rows[0]["judged_epochs"]) == (None, None, 0.5)
    assert [rows[number]["judged_epochs"] for number in (2, 4, 6, 8)] == [None] * 4
    assert (rows[8]["status"], rows[8]["duplicate_of"], rows[8]["seconds"]) == ("duplicate", 3, 0.0)
    assert (rows[2]["status"], rows[2]["reason"]) == ("failed", "it broke")
    assert (rows[6]["best_loss"], rows[6]["rung"]) == (None, None)


def test_a_trial_without_an_end_runs_while_its_search_does(layout):
    with only_one(lock_path(layout, "windows"), "busy"):
        running = {row["trial"]: row["status"] for row in leaderboard_rows(layout)}
    later = {row["trial"]: row["status"] for row in leaderboard_rows(layout)}
    assert (running[4], later[4]) == ("running", "interrupted")
    assert {n: s for n, s in running.items() if n not in (4, 6)} == {n: s for n, s in later.items() if n not in (4, 6)}


def test_searches_are_ranked_together_or_one_alone(layout, record):
    other = Ledger(ledger_path(layout, "other"))
    other.open({})
    write(other, [record(0, [0.195] * 9)])
    assert [(r["search"], r["trial"]) for r in leaderboard_rows(layout)][:3] == [
        ("windows", 3),
        ("windows", 8),
        ("other", 0),
    ]
    assert [row["search"] for row in leaderboard_rows(layout, "other")] == ["other"]
    assert list(chosen_records(layout)) == ["other", "windows"]


def test_an_answer_from_another_search_stands_for_itself(layout, record):
    other = Ledger(ledger_path(layout, "other"))
    other.open({})
    write(other, [record(0, [], INTERRUPTED, lr=4e-3)])
    other.duplicate(0, 3, "windows", [{"epoch": 1, "val_weighted_log_loss": 0.05, "seconds": 2.0}])
    first = leaderboard_rows(layout)[0]
    assert (first["search"], first["status"], first["last_loss"], first["seconds"]) == ("other", "finished", 0.05, 0.0)


def test_an_unknown_search_lists_those_that_are_there(layout, tmp_path):
    with pytest.raises(DataError, match=r"no search 'x'.*windows"):
        leaderboard_rows(layout, "x")
    with pytest.raises(DataError, match="run `ichtune search"):
        leaderboard_rows(Layout(tmp_path / "bare"))


def test_a_searched_parameter_never_hides_a_figure(tmp_path, record):
    made = Layout(tmp_path)
    ledger = Ledger(ledger_path(made, "windows"))
    ledger.open({})
    write(ledger, [replace(record(0, [0.3], STOPPED), parameters={"epochs": 9, "lr": 1e-3})])
    (row,) = leaderboard_rows(made)
    assert (row["epochs"], row["recipe.epochs"]) == (1, 9)
    assert parameter_names([row]) == ["recipe.epochs", "lr"]


@pytest.mark.parametrize(
    ("filters", "kept"),
    [
        (["windows=brain"], [0, 2]),
        (["windows==brain"], [0, 2]),
        (["windows != brain"], [1]),
        (["lr<1e-3"], [2]),
        (["lr<=1e-3"], [0, 2]),
        (["lr>0.001"], [1]),
        (["lr >= 0.0010"], [0, 1]),
        (["lr=1e-3"], [0]),
        (["lr!=1e-3"], [1, 2]),
        (["pretrained=true"], [0, 2]),
        (["pretrained=True", "lr<1e-3"], [2]),
        (["momentum=none"], [1, 2]),
        (["momentum>0"], [0]),
        (["trial=1"], [1]),
        ([], [0, 1, 2]),
    ],
)
def test_filters(filters, kept):
    assert trials(filters) == kept


def test_a_window_s_number_can_be_filtered_by_its_flat_name():
    rows = [{"trial": n, "windows[1][0].center": 40 + n} for n in range(3)]
    assert trials(["windows[1][0].center>40"], rows) == [1, 2]


@pytest.mark.parametrize("op", OPERATORS)
def test_every_operator_is_read_whole(op):
    assert RowFilter.parse(f"lr{op}0.5") == RowFilter("lr", op, "0.5")


@pytest.mark.parametrize("text", ["lr", "=3", "", "lr~3"])
def test_a_filter_without_a_column_or_an_operator_is_refused(text):
    with pytest.raises(ConfigError, match="must be a column, one of"):
        RowFilter.parse(text)


def test_names_have_no_order():
    with pytest.raises(ConfigError, match=r"windows<3 compares numbers, got 'brain'"):
        trials(["windows<3"])
    with pytest.raises(ConfigError, match=r"lr<brain compares numbers, got 'brain'"):
        trials(["lr<brain"])


@pytest.mark.parametrize(
    ("filters", "said"),
    [
        (["windows=brian"], ["no trial has windows = brian. Did you mean 'brain'? Known: bone, brain."]),
        (["trial=abc", "lr=1e-3"], ["no trial has trial = abc. Known: 0, 1, 2."]),
        (["pretrained=yes"], ["no trial has pretrained = yes. Known: false, true."]),
        (["windows=brain", "lr<1e-3"], []),
        (["windows=bone", "lr<1e-3"], []),  # some trials fulfil each
    ],
)
def test_a_filter_that_nothing_fulfils_says_what_there_is(filters, said):
    assert in_vain(ROWS, [RowFilter.parse(text) for text in filters]) == said


def test_of_many_numbers_the_range_is_named():
    rows = [{"trial": n, "lr": n / 10, "momentum": None} for n in range(1, 30)]

    assert in_vain(rows, [RowFilter.parse("lr>9")]) == ["no trial has lr > 9. It lies in 0.1 to 2.9"]
    assert in_vain(rows, [RowFilter.parse("momentum=0.9")]) == [
        "no trial has momentum = 0.9. It is none for all of them"
    ]
    assert in_vain([], [RowFilter.parse("lr>9")]) == []


def test_an_unknown_column_names_the_nearest():
    with pytest.raises(ConfigError, match=r"no column 'momentun'\. Did you mean 'momentum'"):
        trials(["momentun=3"])
    with pytest.raises(ConfigError, match=r"no column 'las_loss'\. Did you mean 'last_loss'"):
        sort_rows(ROWS, "-las_loss")


@pytest.mark.parametrize(
    ("key", "reverse", "order"),
    [
        ("lr", False, [2, 0, 1]),
        ("-lr", False, [1, 0, 2]),
        ("lr", True, [1, 0, 2]),
        ("-lr", True, [2, 0, 1]),
        ("windows", False, [1, 0, 2]),
        ("windows", True, [0, 2, 1]),
        ("momentum", False, [0, 1, 2]),
        ("momentum", True, [0, 1, 2]),
        ("pretrained", False, [1, 0, 2]),
    ],
)
def test_rows_are_sorted_and_those_without_a_value_come_last(key, reverse, order):
    assert [row["trial"] for row in sort_rows(ROWS, key, reverse)] == order


def test_numbers_and_names_in_one_column_can_be_sorted():
    rows = [{"trial": n, "x": x} for n, x in enumerate(("b", 2, None, "a", 1.5))]
    assert [row["trial"] for row in sort_rows(rows, "x")] == [4, 1, 3, 0, 2]


def test_no_rows_are_filtered_and_sorted_without_complaint():
    assert sort_rows(filter_rows([], [RowFilter.parse("lr=3")]), "lr") == []
