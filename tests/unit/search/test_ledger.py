import json

import pytest

from ichtune.errors import ConfigError, DataError
from ichtune.search.ledger import FAILED, FINISHED, INTERRUPTED, Ledger

ABOUT = {"space_id": "s", "fold_plan_hash": "f", "cache_id": "c", "folds": [0]}


@pytest.fixture
def ledger(tmp_path):
    made = Ledger(tmp_path / "searches" / "x" / "ledger.jsonl")
    made.open(ABOUT, {"note": 1})
    return made


def test_a_trial_comes_back_as_it_was_told(ledger, record, epoch):
    told = record(0, [])
    ledger.start(told)
    ledger.epoch(0, epoch(1, 0.3))
    ledger.epoch(0, epoch(2, 0.2))
    ledger.end(0, FINISHED)

    (back,) = ledger.records()

    assert back.recipe == told.recipe
    assert back.parameters == {"lr": 1e-3}
    assert back.optuna == told.optuna
    assert back.losses == [0.3, 0.2]
    assert (back.best_loss, back.last_loss, back.seconds, back.status) == (0.2, 0.2, 4.0, FINISHED)


def test_a_trial_without_an_end_is_interrupted(ledger, record, epoch):
    ledger.start(record(0, []))
    ledger.epoch(0, epoch(1, 0.3))

    (back,) = ledger.records()

    assert back.status == INTERRUPTED
    assert not back.ended


def test_an_epoch_told_twice_counts_as_told_first(ledger, record, epoch):
    ledger.start(record(0, []))
    ledger.epoch(0, epoch(1, 0.3))
    ledger.epoch(0, epoch(1, 0.9))
    ledger.epoch(0, epoch(2, 0.2))

    assert ledger.records()[0].losses == [0.3, 0.2]


@pytest.mark.parametrize("cut", [1, 7, 60])
def test_a_line_torn_by_a_kill_is_dropped_and_the_next_event_stands_on_its_own(ledger, record, epoch, cut):
    ledger.start(record(0, []))
    ledger.epoch(0, epoch(1, 0.3))
    ledger.epoch(0, epoch(2, 0.2))
    whole = ledger.path.read_bytes()
    ledger.path.write_bytes(whole[:-cut])

    assert ledger.records()[0].losses in ([0.3], [0.3, 0.2])  # the newline alone may be what is missing
    ledger.open(ABOUT)
    ledger.epoch(0, epoch(2, 0.25))

    assert ledger.records()[0].losses == [0.3, 0.25]


def test_damage_in_the_middle_is_an_error_that_names_the_line(ledger, record, epoch):
    ledger.start(record(0, []))
    ledger.epoch(0, epoch(1, 0.3))
    lines = ledger.path.read_text().splitlines()
    lines[1] = lines[1][:-5]
    ledger.path.write_text("\n".join(lines) + "\n")

    with pytest.raises(DataError, match=r"ledger.jsonl:2 is damaged"):
        ledger.records()


def test_another_space_under_the_same_name_is_refused(ledger):
    with pytest.raises(ConfigError, match=r"another space_id: space_id 's' then, space_id 't' now.*--name"):
        ledger.open({**ABOUT, "space_id": "t"})


def test_what_may_change_is_not_compared(ledger):
    ledger.open(ABOUT, {"note": 2})

    assert ledger.about()["note"] == 1


def test_every_line_carries_its_versions(ledger, record):
    ledger.start(record(0, []))
    ledger.end(0, FAILED, "why")

    lines = [json.loads(line) for line in ledger.path.read_text().splitlines()]

    assert len(lines) == 3
    assert all(line["schema_version"] == 2 and line["ichtune_version"] for line in lines)
    assert ledger.records()[0].reason == "why"


def test_a_missing_ledger_names_the_command(tmp_path):
    with pytest.raises(DataError, match="run `ichtune search` first"):
        Ledger(tmp_path / "none.jsonl").records()


def test_a_ledger_that_was_killed_before_its_first_line_is_started_anew(tmp_path):
    ledger = Ledger(tmp_path / "ledger.jsonl")
    ledger.path.write_text('{"event": "sea')

    ledger.open(ABOUT)

    assert ledger.about()["space_id"] == "s"
