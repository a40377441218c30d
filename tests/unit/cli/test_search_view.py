import json
import sys
from io import StringIO

import pytest
from rich.console import Console

from ichtune.cli import search_view
from ichtune.cli.search_view import JsonLines, SearchView
from ichtune.recipe import Recipe
from ichtune.search.cluster import Cluster
from ichtune.search.ledger import FINISHED, INTERRUPTED, TrialRecord
from ichtune.search.telemetry import TrialEvent

CLUSTER = Cluster("http://127.0.0.1:8265", "tokenfile", 2, 1, joined=False)


@pytest.fixture
def record_of():
    def make(number, status=FINISHED, loss=0.2):
        curve = [{"epoch": 1, "val_weighted_log_loss": loss, "seconds": 1.0}]
        return TrialRecord(number, {"lr": 0.1}, {}, Recipe(), status, "", curve)

    return make


def drawn(view, width=80):
    console = Console(file=StringIO(), width=width)
    console.print(view.picture())
    return console.file.getvalue()


def test_piped_it_writes_a_line_for_each_end_and_none_for_an_epoch(capsys):
    with SearchView(4, quiet=False) as view:
        view.event(TrialEvent("start", 0, "net", 0, 2, None))
        view.event(TrialEvent("epoch", 0, "net", 1, 2, 0.3))
        view.event(TrialEvent("finished", 0, "net", 2, 2, 0.25))
        view.event(TrialEvent("failed", 1, "net", 0, 2, float("nan"), "diverged"))

    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 3  # "starting Ray ..." and two ends
    assert "[1/4] trial   0 finished epoch 2/2 loss 0.2500 best 0.2500" in lines[1]
    assert lines[2].endswith("loss      - best 0.2500  net diverged")


def test_that_stopped_trials_are_trained_on_in_the_end_is_said_once(capsys):
    with SearchView(4, quiet=False) as view:
        view.event(TrialEvent("stopped", 0, "net", 1, 9, 0.3))
        view.event(TrialEvent("start", 0, "net", 1, 9, 0.3, to_end=True))
        view.event(TrialEvent("epoch", 0, "net", 2, 9, 0.3, to_end=True))
        view.event(TrialEvent("start", 1, "net", 1, 9, 0.3, to_end=True))

    lines = capsys.readouterr().err.splitlines()
    assert lines[2:] == ["no more trials are proposed; the best of the stopped ones are now trained to their end"]


def test_quiet_is_silent(capsys):
    with SearchView(4, quiet=True) as view:
        view.started("s", CLUSTER, [])
        view.event(TrialEvent("start", 1, "net", 1, 2, 0.3, to_end=True))
        view.event(TrialEvent("finished", 0, "net", 2, 2, 0.25))

    assert capsys.readouterr() == ("", "")


def test_a_continued_search_counts_what_ended_before(capsys, record_of):
    with SearchView(3, quiet=False) as view:
        view.started("windows", CLUSTER, [record_of(0), record_of(1, INTERRUPTED, 0.5)])
        view.event(TrialEvent("stopped", 1, "net", 1, 2, 0.4))

    said = capsys.readouterr().err
    assert "Ray dashboard: http://127.0.0.1:8265, job windows" in said
    assert "cat tokenfile" in said
    assert "2 CPUs, 1 GPUs" in said
    assert "continuing: 1 trials have ended before, 1 go on" in said
    assert "[2/3] trial   1 stopped" in said
    assert "best 0.2000" in said


def test_a_stopped_trial_that_is_promoted_has_not_ended(record_of):
    view = SearchView(3, quiet=True)
    view.event(TrialEvent("stopped", 0, "net", 1, 2, 0.4))
    view.event(TrialEvent("start", 0, "net", 1, 2, None))

    assert drawn(view).startswith("0 of 3 trials ended")


def test_the_table_shows_running_and_earlier_trials_and_the_best_loss(record_of):
    view = SearchView(9, quiet=True)
    view.started("s", CLUSTER, [record_of(3, loss=0.123)])
    view.event(TrialEvent("epoch", 4, "net", 1, 2, 0.3, parameters={"lr": 0.01}))

    shown = drawn(view)

    assert "best loss 0.1230 (trial 3), 1 running" in shown
    assert "lr" in shown
    lines = [line.split() for line in shown.splitlines()]
    rows = [cells[:2] for cells in lines[lines.index(next(c for c in lines if c[0] == "trial")) + 1 :]]
    assert rows == [["4", "running"], ["3", "finished"]]


def test_time_left_is_what_the_cost_model_says(record_of):
    view = SearchView(9, quiet=True, seconds_left=lambda: 125.0)

    assert "about 2 min 5 s left" in drawn(view)
    assert "left" not in drawn(SearchView(9, quiet=True, seconds_left=lambda: None))


def test_time_left_is_worked_out_now_and_then_and_runs_down_in_between(monkeypatch):
    now, answers = [1000.0], iter([100.0, 50.0])
    monkeypatch.setattr(search_view.time, "monotonic", lambda: now[0])
    view = SearchView(9, quiet=True, seconds_left=lambda: next(answers))

    seen = []
    for _ in range(3):
        seen.append(drawn(view).splitlines()[2].split("about ")[1])
        now[0] += 3

    assert seen == ["1 min 40 s left", "1 min 37 s left", "50 s left"]


def test_a_cost_model_that_fails_is_said_once_and_guessed_for(capsys):
    view = SearchView(9, quiet=False, seconds_left=lambda: 1 // 0)

    assert "left" not in drawn(view)
    view._left = None
    assert "left" not in drawn(view)
    assert capsys.readouterr().err.count("the time left is not known") == 1


def test_without_a_cost_model_time_left_is_guessed_from_this_run_s_trials(monkeypatch, record_of):
    now = [1000.0]
    monkeypatch.setattr(search_view.time, "monotonic", lambda: now[0])
    view = SearchView(5, quiet=True)
    view.started("s", CLUSTER, [record_of(0)])
    assert "left" not in drawn(view)

    now[0] += 30
    view.event(TrialEvent("finished", 1, "net", 2, 2, 0.25))

    assert "30 s so far, about 1 min 30 s left" in drawn(view)


def test_on_a_terminal_the_table_is_drawn_and_taken_away(monkeypatch):
    class Terminal(StringIO):
        def isatty(self):
            return True

    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "80")
    with SearchView(4, quiet=False) as view:
        view.started("s", CLUSTER, [])
        view.event(TrialEvent("epoch", 0, "net", 1, 2, 0.3))
        view._live.refresh()
        view.event(TrialEvent("finished", 0, "net", 2, 2, 0.25))
        view.ended()

    assert "best loss 0.3000 (trial 0)" in terminal.getvalue()
    assert "[1/4]" not in terminal.getvalue()


def test_json_lines_are_objects_a_line_with_the_summary_last(capsys, record_of):
    lines = JsonLines()
    lines.started("s", CLUSTER, [record_of(0), record_of(1, INTERRUPTED)])
    lines.event(TrialEvent("epoch", 1, "net", 1, 2, 0.3, parameters={"lr": 0.01, "windows": [[40, 80]]}))
    lines.event(TrialEvent("failed", 1, "net", 1, 2, float("nan"), "diverged"))
    lines.ended()
    lines.summary({"search": "s", "complete": True})

    out, err = capsys.readouterr()
    told = [json.loads(line, parse_constant=pytest.fail) for line in out.splitlines()]
    assert err == ""
    assert [line["event"] for line in told] == ["search", "epoch", "failed", "summary"]
    assert told[0]["earlier"] == {"trials": 2, "ended": 1}
    assert told[0]["dashboard_url"] == "http://127.0.0.1:8265"
    assert told[1]["parameters"] == {"lr": 0.01, "windows": [[40, 80]]}
    assert told[1]["loss"] == 0.3
    assert told[2]["loss"] is None
    assert told[3] == {"event": "summary", "search": "s", "complete": True}


def test_json_lines_are_written_as_things_happen():
    class Pipe(StringIO):
        n_flushes = 0

        def flush(self):
            self.n_flushes += 1

    pipe = Pipe()
    lines = JsonLines(pipe)
    lines.event(TrialEvent("epoch", 1, "net", 1, 2, 0.3))
    assert pipe.n_flushes == 1
    assert pipe.getvalue().endswith("}\n")
