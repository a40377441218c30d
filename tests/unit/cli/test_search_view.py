from io import StringIO

import pytest
from rich.console import Console

from ichtune.cli.search_view import SearchView, leaderboard_table
from ichtune.search.cluster import Cluster
from ichtune.search.ledger import FINISHED, TrialRecord
from ichtune.search.telemetry import TrialEvent

ROW = {
    "search": "s",
    "trial": 0,
    "recipe_id": "abc",
    "status": "finished",
    "epochs": 2,
    "best_loss": 0.1,
    "seconds": 9.0,
}


def text(rows):
    console = Console(file=StringIO(), width=200)
    console.print(leaderboard_table(rows))
    return console.file.getvalue()


def test_only_parameters_that_vary_get_a_column():
    rows = [{**ROW, "lr": 0.1, "windows": "brain"}, {**ROW, "trial": 1, "lr": 0.2, "windows": "brain"}]

    shown = text(rows)

    assert "lr" in shown
    assert "windows" not in shown
    assert "search" not in shown


def test_searches_are_told_apart_where_there_are_several():
    assert "search" in text([ROW, {**ROW, "search": "other"}])


def test_a_trial_without_a_loss_or_without_a_parameter_shows_a_dash():
    rows = [{**ROW, "momentum": 0.9}, {**ROW, "trial": 1, "best_loss": None}]

    assert text(rows).count("│ -") == 2


def test_piped_it_writes_a_line_for_each_end_and_none_for_an_epoch(capsys):
    with SearchView(4, quiet=False) as view:
        view.event(TrialEvent("epoch", 0, "net", 1, 2, 0.3))
        view.event(TrialEvent("finished", 0, "net", 2, 2, 0.25))
        view.event(TrialEvent("failed", 1, "net", 0, 2, None, "diverged"))

    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 3  # "starting Ray ..." and two ends
    assert "[1/4] trial   0 finished epoch 2/2 loss 0.2500 best 0.2500" in lines[1]
    assert lines[2].endswith("net diverged")


def test_quiet_is_silent(capsys):
    with SearchView(4, quiet=True) as view:
        view.started(Cluster("http://x", "token", 2, 0, joined=False), [])
        view.event(TrialEvent("finished", 0, "net", 2, 2, 0.25))

    assert capsys.readouterr().err == ""


def test_a_continued_search_counts_what_ended_before(capsys, record_of):
    with SearchView(3, quiet=False) as view:
        view.started(Cluster("http://127.0.0.1:8265", "tokenfile", 2, 1, joined=False), [record_of(0)])
        view.event(TrialEvent("stopped", 1, "net", 1, 2, 0.4))

    said = capsys.readouterr().err
    assert "Ray dashboard: http://127.0.0.1:8265" in said
    assert "cat tokenfile" in said
    assert "2 CPUs, 1 GPUs" in said
    assert "continuing: 1 trials have ended before" in said
    assert "[2/3] trial   1 stopped" in said
    assert "best 0.2000" in said


@pytest.fixture
def record_of():
    from ichtune.recipe import Recipe

    def make(number):
        curve = [{"epoch": 1, "val_weighted_log_loss": 0.2, "seconds": 1.0}]
        return TrialRecord(number, {}, {}, Recipe(), FINISHED, "", curve)

    return make
