"""A search that is killed goes on with the same command, repeats nothing, and ends as if it had not been killed."""

import json
import signal
import subprocess
import sys
import time

import pytest
import ray  # noqa: F401 - it brings psutil along

from ichtune.search.deaths import MAX_FAILURES

import psutil  # isort: skip

pytestmark = pytest.mark.slow


def events_of(search):
    """The ledger's lines, without what a clock says."""
    events = [json.loads(line) for line in search.ledger.read_text().splitlines()]
    return [{k: v for k, v in event.items() if k not in ("seconds", "images_per_second")} for event in events]


def what_was_found(result):
    keys = ("trial", "status", "recipe_id", "epochs", "best_loss", "last_loss", "lr", "windows")
    return sorted(([row[key] for key in keys] for row in result["leaderboard"]), key=lambda row: row[0])


def test_killed_twice_it_ends_with_the_table_of_the_undisturbed_search(fake_workspace, start_search, nothing_lost):
    whole = start_search(fake_workspace("one").layout.root, "--concurrent", "1")
    undisturbed = whole.result()

    work = fake_workspace("two").layout.root
    first = start_search(work, "--concurrent", "1")
    first.wait_for("epoch", 2)
    first.signal(signal.SIGKILL)
    second = start_search(work, "--concurrent", "1")
    second.wait_for("end", 2)
    before = second.ledger.read_text().splitlines()
    second.signal(signal.SIGKILL)
    third = start_search(work, "--concurrent", "1")
    continued = third.result()

    assert what_was_found(continued) == what_was_found(undisturbed)
    assert {row["status"] for row in continued["leaderboard"]} >= {"finished", "stopped"}  # ASHA judged in both
    kept = third.ledger.read_text().splitlines()
    assert kept[: len(before) - 1] == before[:-1]  # what was written stays as it was
    nothing_lost(third, 5)
    assert events_of(third) == events_of(whole)
    events = events_of(whole)
    late = [e["trial"] for i, e in enumerate(events) if e["event"] == "go_on" and _ended_before(events[:i], e["trial"])]
    assert late, "no trial was promoted after it had been stopped; the test proves too little"


def _ended_before(events, trial):
    return any(event["event"] == "end" and event["trial"] == trial for event in events)


def test_a_winner_is_not_trained_again_on_the_fold_that_it_was_found_on(fake_workspace, start_search):
    work = fake_workspace().layout.root
    search = start_search(work, "--trials", "1", "--concurrent", "1")
    row = search.result()["leaderboard"][0]
    command = [sys.executable, "-m", "ichtune", "train", "--work", str(work), "--top", "1", "--json"]

    done = subprocess.run(command, capture_output=True, text=True, timeout=400, check=False)

    assert done.returncode == 0, done.stderr
    told = [json.loads(line) for line in search.ledger.read_text().splitlines()]
    curves, notes = [], []
    for fold in range(3):
        folder = work / "runs" / row["recipe_id"] / f"fold_{fold}"
        curves.append(json.loads((folder / "curve.json").read_text()))
        notes.append(json.loads((folder / "run.json").read_text())["notes"])
    losses = [event["val_weighted_log_loss"] for event in told if event["event"] == "epoch"]
    assert [epoch["val_weighted_log_loss"] for epoch in curves[0]] == losses
    assert len({len(curve) for curve in curves}) == 1
    assert [note.split(":")[0] for note in notes[0]] == ["epochs 1 to 6 are those of a trial of a search"]
    assert notes[1] == notes[2] == []
    # the seconds are those of the trial, which nobody measures twice
    spent = [e["seconds"] for e in told if e["event"] == "epoch" and "rung" not in e]
    assert set(spent) <= {epoch["seconds"] for epoch in curves[0]}


def test_ctrl_c_ends_cleanly_and_says_how_to_continue(fake_workspace, start_search):
    work = fake_workspace().layout.root
    search = start_search(work, "--concurrent", "1")
    search.wait_for("epoch", 1)

    code, errors = search.signal(signal.SIGINT)

    assert code == 130, errors
    assert "the same command continues the search" in errors
    assert "Traceback" not in errors
    assert search.summary["complete"] is False


def test_sigterm_is_as_clean_as_ctrl_c(fake_workspace, start_search):
    search = start_search(fake_workspace().layout.root, "--concurrent", "1")
    search.wait_for("epoch", 1)

    code, errors = search.signal(signal.SIGTERM)

    assert code == 130, errors
    assert "the same command continues the search" in errors


def test_a_worker_that_is_lost_again_and_again_costs_an_epoch_each_time_and_never_the_trial(
    fake_workspace, start_search, space_file, nothing_lost
):
    """As on machines that are taken away; what counts is that the trial has come further in between."""
    longer = (
        space_file.read_text().replace("epochs: 6", "epochs: 100").replace("grace: 1, max: 6", "grace: 90, max: 100")
    )
    space_file.write_text(longer)
    search = start_search(fake_workspace().layout.root, "--trials", "1", "--concurrent", "1")
    for _ in range(MAX_FAILURES + 1):
        search.wait_for("epoch", search.events("epoch") + 1)
        kill_worker(search)
    found = search.result()

    assert found["trials"]["finished"] == 1
    nothing_lost(search, 1)


def kill_worker(search):
    """Kill the process of the trial that runs, and wait until it is gone."""
    deadline = time.monotonic() + 60
    while not (workers := [child for child in children(search) if "trial_0000" in " ".join(child.cmdline())]):
        assert time.monotonic() < deadline, "no process carries the trial's name"
    for worker in workers:
        worker.kill()
        worker.wait(timeout=30)


def children(search):
    return psutil.Process(search.process.pid).children(recursive=True)


def test_sigterm_to_the_whole_group_is_as_clean(fake_workspace, start_search):
    """What ``timeout``, a batch system or the end of a session does; Ray itself would be gone before the search is."""
    search = start_search(fake_workspace().layout.root, "--concurrent", "1")
    search.wait_for("epoch", 1)
    begun_s = time.monotonic()

    code, errors = search.signal(signal.SIGTERM, group=True)

    assert code == 130, errors
    assert "the same command continues the search" in errors
    assert search.summary["complete"] is False
    assert time.monotonic() - begun_s < 45  # Ray waits 60 s for one that is gone


def test_a_complete_search_starts_nothing_again_and_more_trials_extend_it(fake_workspace, start_search):
    work = fake_workspace().layout.root
    first = start_search(work, "--trials", "2", "--concurrent", "2").result()
    alone = start_search(fake_workspace("alone").layout.root, "--trials", "1", "--concurrent", "1").result()
    again = start_search(work, "--trials", "2").result()
    extended = start_search(work, "--trials", "3").result()

    assert what_was_found(alone) == what_was_found(first)[:1], "two at a time changed the curve of a recipe"
    assert what_was_found(again) == what_was_found(first)
    assert what_was_found(extended)[:2] == what_was_found(first)
    assert len(extended["leaderboard"]) == 3
