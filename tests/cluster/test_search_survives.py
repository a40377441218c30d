"""A search that is killed goes on with the same command, repeats nothing, and ends as if it had not been killed."""

import json
import signal

import pytest

pytestmark = pytest.mark.slow


def what_was_found(result):
    keys = ("trial", "status", "recipe_id", "epochs", "best_loss", "last_loss", "lr", "windows")
    return sorted(([row[key] for key in keys] for row in result["leaderboard"]), key=lambda row: row[0])


def test_killed_twice_it_ends_with_the_table_of_the_undisturbed_search(fake_workspace, start_search):
    undisturbed = start_search(fake_workspace("one").layout.root, "--concurrent", "1").result()

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
    ended = [json.loads(line)["trial"] for line in kept if '"event": "end"' in line]
    assert sorted(ended) == sorted(set(ended)), "a trial ended twice"
    epochs = [(e["trial"], e["epoch"]) for e in map(json.loads, kept) if e["event"] == "epoch"]
    assert len(epochs) == len(set(epochs)), "an epoch was paid for twice"


def test_ctrl_c_ends_cleanly_and_says_how_to_continue(fake_workspace, start_search):
    work = fake_workspace().layout.root
    search = start_search(work, "--concurrent", "1")
    search.wait_for("epoch", 1)

    code, errors = search.signal(signal.SIGINT)

    assert code == 130, errors
    assert "the same command continues the search" in errors
    assert "Traceback" not in errors
    assert json.loads(search.output)["complete"] is False


def test_sigterm_is_as_clean_as_ctrl_c(fake_workspace, start_search):
    search = start_search(fake_workspace().layout.root, "--concurrent", "1")
    search.wait_for("epoch", 1)

    code, errors = search.signal(signal.SIGTERM)

    assert code == 130, errors
    assert "the same command continues the search" in errors


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
