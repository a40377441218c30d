"""The command around a search that is complete, which needs no Ray; tests/cluster has those that do."""

import json
from contextlib import nullcontext
from dataclasses import replace

import pytest

from ichtune.cli import search
from ichtune.cli.main import main
from ichtune.search import study
from ichtune.search.cluster import Cluster
from ichtune.search.ledger import FAILED, FINISHED, STOPPED, Ledger
from ichtune.search.running import Running
from ichtune.search.searchers import propose_trial
from ichtune.search.telemetry import TrialEvent
from ichtune.search.trial_table import ledger_path
from ichtune.search.watchers import Watchers
from ichtune.space import read_space
from ichtune.tables import TRIALS, read_table

SPACE = "version: 1\nsearch: {trials: 2}\nparameters:\n  epochs: 1\n  lr: {low: 1e-4, high: 1e-2, log: true}\n"


@pytest.fixture
def complete(fake_workspace, tmp_path, monkeypatch):
    """A workspace with a search of two trials, one of which failed, and the search's space."""
    workspace = fake_workspace()
    path = tmp_path / "mine.yaml"
    path.write_text(SPACE)
    space = read_space(path)
    ledger = Ledger(ledger_path(workspace.layout, "mine"))
    ledger.open(study.identity_of(workspace, space), {"space": space.resolved()})
    for number in range(2):
        ledger.start(propose_trial(space, ledger.records(), number))
    ledger.epoch(0, {"epoch": 1, "val_weighted_log_loss": 0.2, "seconds": 1.0})
    ledger.end(0, FINISHED)
    ledger.end(1, FAILED, "diverged")
    monkeypatch.setattr(study, "ray_session", lambda *a, **o: pytest.fail("Ray was started for a complete search"))
    return workspace, ["search", "--space", str(path), "--work", str(workspace.layout.root)]


def test_a_complete_search_is_answered_from_its_ledger(complete, capsys):
    workspace, command = complete

    assert main([*command, "--json"]) == 0

    (line,) = capsys.readouterr().out.splitlines()
    told = json.loads(line)
    assert told["event"] == "summary"
    assert told["complete"]
    assert told["trials"] == {"finished": 1, "stopped": 0, "failed": 1, "interrupted": 0, "duplicate": 0}
    assert told["best"] == {"trial": 0, "best_loss": 0.2}
    assert len(read_table(workspace.layout.trials, TRIALS)) == 2


def test_failed_trials_are_an_error_only_when_asked_for(complete, capsys):
    assert main([*complete[1], "--strict"]) == 6

    said = capsys.readouterr().err
    assert "1 of 2 trials failed" in said
    assert f"next: ichtune train --work {complete[0].layout.root}" in said


def test_a_changed_space_is_refused_under_the_same_name(complete, tmp_path, capsys):
    (tmp_path / "mine.yaml").write_text(SPACE.replace("1e-2", "1e-1"))

    assert main(complete[1]) == 2
    assert "started with another space_id" in capsys.readouterr().err


def test_a_time_that_is_none_is_a_usage_error(complete, capsys):
    assert main([*complete[1], "--time", "soon"]) == 2
    assert "--time must be a length of time such as 6h, 30m" in capsys.readouterr().err


def test_a_name_that_no_folder_should_have_is_a_usage_error(complete, capsys):
    workspace, command = complete

    assert main([*command, "--name", "a/b"]) == 2
    assert "--name must be a name of up to 100 letters" in capsys.readouterr().err
    assert [path.name for path in workspace.layout.searches.iterdir()] == ["mine"]


def test_a_dry_run_knows_the_budget_that_is_set_beside_the_space(complete, tmp_path, monkeypatch, capsys):
    budget = ["--trials", "7", "--time", "1s", "--gpu-hours", "3", "--until-no-gain", "2", "--concurrent", "1"]

    assert main([*complete[1], "--dry-run", *budget]) == 0
    said = capsys.readouterr().out

    assert "7 trials, 1 at a time" in said
    for part in ("a run ends after 0.00028 h", "after 2 trials in a row", "the 3 GPU hours end nothing here"):
        assert part in said
    assert main([*complete[1], "--dry-run", *budget, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["limits"] == {"time_s": 1.0, "gpu_hours": 3.0, "until_no_gain": 2}


def test_the_time_left_knows_the_end_and_is_no_longer_than_the_time(complete, tmp_path):
    workspace, _ = complete
    (tmp_path / "long.yaml").write_text(SPACE.replace("epochs: 1", "epochs: 9"))
    space = read_space(tmp_path / "long.yaml")
    ledger = Ledger(ledger_path(workspace.layout, "long"))
    options = study.SearchOptions(n_trials=1, concurrent=1)
    assert search._seconds_left(workspace, space, options, Running())() is None, "nothing is there yet"
    ledger.open({})
    ledger.start(propose_trial(space, [], 0))
    ledger.epoch(0, {"epoch": 1, "val_weighted_log_loss": 0.2, "seconds": 100.0, "rung": 1, "rung_loss": 0.2})
    ledger.end(0, STOPPED)

    assert search._seconds_left(workspace, space, options, Running())() == 800.0
    capped = replace(options, time_s=60.0)
    assert 50.0 < search._seconds_left(workspace, space, capped, Running())() <= 60.0


def test_a_search_whose_time_is_up_is_no_error_and_says_how_to_go_on(complete, monkeypatch, capsys):
    _, command = complete
    monkeypatch.setattr(study, "ray_session", lambda *a, **o: nullcontext(Cluster("", "", 1, 0, joined=False)))
    monkeypatch.setattr(study, "run_legs", lambda *a: None)
    monkeypatch.setattr(study, "create_watchers", lambda folder, shown, note, **o: Watchers(shown, note))

    assert main([*command, "--trials", "3", "--time", "0.000001s"]) == 0
    assert "its time is up: 2 of 3 trials have ended" in capsys.readouterr().err

    assert main([*command, "--trials", "3"]) == 130
    assert "interrupted: 2 of 3 trials have ended" in capsys.readouterr().err


def test_a_search_for_a_cluster_is_not_measured_by_the_machine_that_the_command_is_typed_on(complete, tmp_path, capsys):
    workspace, command = complete
    (tmp_path / "large.yaml").write_text(SPACE + "resources: {gpu: 0, cpu: 4096}\n")
    space = read_space(tmp_path / "large.yaml")
    ledger = Ledger(ledger_path(workspace.layout, "large"))
    ledger.open(study.identity_of(workspace, space), {"space": space.resolved()})
    for number in range(2):
        ledger.start(propose_trial(space, ledger.records(), number))
        ledger.end(number, FINISHED)
    command = [*command, "--space", str(tmp_path / "large.yaml")]

    assert main([*command, "--quiet"]) == 0
    capsys.readouterr()

    assert main([*command, "--dry-run"]) == 0
    assert "4096 CPU, which this machine does not have: a cluster may (--address)" in capsys.readouterr().out


def test_the_time_left_is_shared_by_the_trials_that_run_wherever_they_do(complete, tmp_path, monkeypatch):
    workspace, _ = complete
    options, running = study.SearchOptions(name="mine"), Running()
    asked = []
    monkeypatch.setattr("ichtune.search.cost_model.time_left_s", lambda *told, **more: asked.append(told[2]))
    left = search._seconds_left(workspace, read_space(tmp_path / "mine.yaml"), options, running)

    left()
    for trial in range(3):
        running.event(TrialEvent("start", trial, "net", 0, 1, None))
    left()

    assert asked == [1, 3]
