"""The command around a search that is complete, which needs no Ray; tests/cluster has those that do."""

import json
from contextlib import nullcontext

import pytest

from ichtune.cli.main import main
from ichtune.search import study
from ichtune.search.cluster import Cluster
from ichtune.search.ledger import FAILED, FINISHED, Ledger
from ichtune.search.searchers import propose_trial
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
    assert "6h, 30m" in capsys.readouterr().err


def test_a_search_whose_time_is_up_is_no_error_and_says_how_to_go_on(complete, monkeypatch, capsys):
    _, command = complete
    monkeypatch.setattr(study, "ray_session", lambda *a, **o: nullcontext(Cluster("", "", 1, 0, joined=False)))
    monkeypatch.setattr(study, "run_legs", lambda *a: None)
    monkeypatch.setattr(study, "create_watchers", lambda folder, shown, note, **o: Watchers(shown, note))

    assert main([*command, "--trials", "3", "--time", "0.000001s"]) == 0
    assert "its time is up: 2 of 3 trials have ended" in capsys.readouterr().err

    assert main([*command, "--trials", "3"]) == 130
    assert "interrupted: 2 of 3 trials have ended" in capsys.readouterr().err
