"""A search of the second level on Ray: models of many epochs and of one side by side, continued on its runs only."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow

SPACE = """
version: 1
level: 2
search: {algorithm: tpe, trials: 5, seed: 7, early_stop: {type: asha, grace: 1, factor: 2}}
parameters:
  model: [gru, hist_gradient_boosting, gaussian]
  hidden: {choices: [4, 8], when: {model: gru}}
  layers: 1
  batch_size: {value: 4, when: {model: gru}}
  lr: {low: 1e-3, high: 3e-2, log: true, when: {model: gru}}
  epochs: {value: 4, when: {model: gru}}
  neighbours: {value: 1, when: {model: hist_gradient_boosting}}
  aggregates: {value: false, when: {model: hist_gradient_boosting}}
  rounds: {choices: [3, 6], when: {model: hist_gradient_boosting}}
start_with: [{model: gaussian}, {model: hist_gradient_boosting, rounds: 3}, {model: gru, lr: 1e-2}, {model: gru}]
"""


@pytest.fixture
def space_file(tmp_path: Path) -> Path:
    path = tmp_path / "tiny.yaml"
    path.write_text(SPACE)
    return path


def test_it_is_searched_continued_and_bound_to_its_runs(first_level_workspace, start_search, space_file):
    workspace = first_level_workspace("second", n_slices=8)
    work, members = workspace.layout.root, workspace.run_ids()

    first = start_search(work)
    rows = first.result()["leaderboard"]
    events = [json.loads(line) for line in first.ledger.read_text().splitlines()]
    recipes = {event["trial"]: event["recipe"] for event in events if event["event"] == "start"}

    assert {recipe["level"] for recipe in recipes.values()} == {2}
    assert all(recipe["members"] == members for recipe in recipes.values())
    assert [recipes[trial]["model"] for trial in range(4)] == ["gaussian", "hist_gradient_boosting", "gru", "gru"]
    assert {row["status"] for row in rows} <= {"finished", "stopped", "duplicate"}
    by_trial = {row["trial"]: row for row in rows}
    assert [(by_trial[t]["status"], by_trial[t]["epochs"], by_trial[t]["rung"]) for t in (0, 1)] == [
        ("finished", 1, None)
    ] * 2
    assert {by_trial[t]["epochs"] for t in (2, 3)} <= {1, 2, 4}
    assert any(by_trial[t]["rung"] is not None for t in (2, 3))
    assert all("gpu" not in event or event["gpu"] == 0 for event in events)

    again = start_search(work, "--trials", "7").result()["leaderboard"]

    assert len(again) == 7
    kept = {row["trial"]: (row["recipe_id"], row["best_loss"]) for row in again}
    for row in rows:
        assert kept[row["trial"]][0] == row["recipe_id"]
        assert kept[row["trial"]][1] <= row["best_loss"]  # one that was stopped may have gone on
    told = [json.loads(line) for line in first.ledger.read_text().splitlines()]
    assert told[: len(events)] == events
    epochs = [(event["trial"], event["epoch"]) for event in told if event["event"] == "epoch"]
    assert len(epochs) == len(set(epochs)), "an epoch was paid for twice"

    (workspace.layout.runs / members[0] / "oof.parquet").rename(work / "away.parquet")
    command = [sys.executable, "-m", "ichtune", "search", "--space", str(space_file), "--work", str(work)]
    refused = subprocess.run(command, capture_output=True, text=True, timeout=200, check=False)
    assert refused.returncode == 2, refused.stderr
    assert f"was started on other runs of the first level (left out now {members[0]})" in refused.stderr
