import json

import pytest

from ichtune.cli.main import main
from ichtune.recipe import Recipe
from ichtune.search.ledger import FAILED, FINISHED, Ledger, TrialRecord
from ichtune.search.trial_table import ledger_path


@pytest.fixture
def work(fake_workspace):
    workspace = fake_workspace()
    for name, losses in (("one", [0.3, 0.1]), ("two", [0.2])):
        ledger = Ledger(ledger_path(workspace.layout, name))
        ledger.open({})
        for number, loss in enumerate(losses):
            recipe = Recipe(lr=10.0 ** -(2 + number))
            ledger.start(TrialRecord(number, {"lr": recipe.lr}, {"params": {}, "distributions": {}}, recipe))
            ledger.epoch(number, {"epoch": 1, "val_weighted_log_loss": loss, "seconds": 1.0})
            ledger.end(number, FINISHED)
    ledger.start(TrialRecord(1, {"lr": 1.0}, {"params": {}, "distributions": {}}, Recipe(lr=1.0)))
    ledger.end(1, FAILED, "diverged")
    return str(workspace.layout.root)


def test_it_ranks_the_trials_of_every_search(work, capsys):
    assert main(["leaderboard", "--work", work, "--json"]) == 0

    rows = json.loads(capsys.readouterr().out)

    assert [(row["search"], row["trial"]) for row in rows] == [("one", 1), ("two", 0), ("one", 0), ("two", 1)]
    assert rows[0]["best_loss"] == 0.1
    assert rows[-1]["best_loss"] is None


def test_it_takes_one_search_or_the_best_few(work, capsys):
    main(["leaderboard", "--work", work, "--search", "two", "--json"])
    assert {row["search"] for row in json.loads(capsys.readouterr().out)} == {"two"}

    main(["leaderboard", "--work", work, "--top", "1", "--json"])
    assert len(json.loads(capsys.readouterr().out)) == 1


def test_the_table_says_why_a_trial_failed_and_what_comes_next(work, capsys):
    assert main(["leaderboard", "--work", work]) == 0

    said = capsys.readouterr()
    assert "0.1000" in said.out
    assert "trial 1 failed: diverged" in said.err
    assert said.err.splitlines()[-1] == f"next: ichtune train --work {work}"


def test_without_a_search_it_names_the_command(fake_workspace, capsys):
    assert main(["leaderboard", "--work", str(fake_workspace("bare").layout.root)]) == 3

    assert "run `ichtune search --space windows.yaml` first" in capsys.readouterr().err
