import io

import pytest
from rich.console import Console

from ichtune.cli.leaderboard_view import LeaderboardTable, importance_table, savings_line
from ichtune.search.cost_model import Savings
from ichtune.search.importance import Importances


def row(trial, **values):
    figures = {"status": "finished", "epochs": 3, "rung": None, "best_loss": 0.1, "last_loss": 0.2, "rung_loss": None}
    rest = {"seconds": 61.7, "duplicate_of": None, "reason": "", "recipe_id": f"abc{trial}", "search": "windows"}
    return {"trial": trial, **figures, **rest, **values}


def printed(renderable, width=160):
    console = Console(file=io.StringIO(), width=width, highlight=False, markup=False)
    console.print(renderable)
    return console.file.getvalue()


def test_only_parameters_that_vary_have_a_column():
    text = printed(LeaderboardTable([row(0, lr=1e-3, epochs_=4), row(1, lr=2.5e-3, epochs_=4)]))
    assert "0.0025" in text
    assert "lr" in text
    assert "epochs_" not in text
    assert "62" in text
    assert "0.2000" in text


def test_rungs_and_the_search_are_shown_where_there_are_any():
    plain = printed(LeaderboardTable([row(0), row(1)]))
    assert "rung" not in plain
    assert "windows" not in plain
    told = printed(LeaderboardTable([row(0, rung=3, rung_loss=0.15), row(1, search="other")]))
    assert "0.1500" in told
    assert "other" in told


def test_a_duplicate_says_of_which_trial():
    assert "as trial 3" in printed(LeaderboardTable([row(4, status="duplicate", duplicate_of=3, last_loss=None)]))


def test_a_narrow_terminal_gives_the_parameters_one_column_and_loses_none():
    rows = [row(n, **{f"parameter_{i}": n + i / 10 for i in range(12)}) for n in range(2)]
    assert "parameter_3=0.3" not in printed(LeaderboardTable(rows), 250)
    narrow = printed(LeaderboardTable(rows), 80)
    assert "parameter_3=0.3" in narrow
    assert "0.2000" in narrow
    assert max(len(line) for line in narrow.splitlines()) <= 80


def test_no_rows_are_an_empty_table():
    assert "trial" in printed(LeaderboardTable([]))


@pytest.mark.parametrize(
    ("saved", "error", "line"),
    [
        (Savings(0, 0.0, 0.0, 0.0, 0.0), None, ""),
        (Savings(3, 12.5, 250.0, 0.0, 0.0), None, "3 of 9 trials were stopped early, which spared 12.5 epochs and "),
        (Savings(3, 1.0, None, 0.0, 0.0), None, "3 of 9 trials were stopped early, which spared 1 epoch"),
        (Savings(3, 12.0, 250.0, 0.0, 0.0), 0.125, "12 epochs and about 4 min 10 s (an epoch's cost is predicted to "),
        (Savings(3, 12.0, 250.0, 4.0, 9.0), None, "; judging the others on the way cost 4 epochs"),
    ],
)
def test_what_stopping_saved_is_one_sentence(saved, error, line):
    told = savings_line(saved, error, 9)
    assert line in told
    assert bool(told) == bool(line)


def test_shares_stand_beside_what_chance_gives():
    found = [
        Importances("fanova", {"lr": 0.8, "epochs": 0.2}, {"lr": 0.3, "epochs": 0.4}, 40, "loss at the end"),
        Importances("ped_anova", {"lr": 0.6, "momentum": 0.4}, {"lr": 0.7, "momentum": 0.1}, 40, "loss at the end"),
    ]
    lines = printed(importance_table(found)).splitlines()
    cells = {line.split()[0]: line.split()[1:] for line in lines if line.split()}
    assert cells["lr"] == ["80%", "*", "30%", "60%", "70%"]
    assert cells["epochs"] == ["20%", "40%", "-", "-"]
    assert cells["momentum"] == ["-", "-", "40%", "*", "10%"]
