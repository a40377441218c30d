import json
from dataclasses import replace

import pytest

from ichtune.errors import ConfigError, DataError, StorageError
from ichtune.search.ledger import DUPLICATE, FAILED, FINISHED, INTERRUPTED, STOPPED, Ledger

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


def judged(epoch, number, loss, rung_loss, cost=1.5):
    return {**epoch(number, loss), "fold": 0, "cost": cost, "rung": number, "rung_loss": rung_loss}


def test_a_trial_that_stands_at_a_rung_awaits_judgement_until_somebody_decides(ledger, record, epoch):
    ledger.start(record(0, []))
    (one,) = ledger.records()
    assert not one.awaits_judgement
    ledger.epoch(0, judged(epoch, 1, 0.3, 0.25))
    assert ledger.records()[0].awaits_judgement
    ledger.go_on(0)
    assert not ledger.records()[0].awaits_judgement
    ledger.epoch(0, epoch(2, 0.2))
    assert not ledger.records()[0].awaits_judgement
    ledger.epoch(0, judged(epoch, 3, 0.2, 0.15))
    assert ledger.records()[0].awaits_judgement
    ledger.end(0, STOPPED)
    assert not ledger.records()[0].awaits_judgement
    assert ledger.records()[0].rung_losses == {1: 0.25, 3: 0.15}


def test_a_stopped_trial_that_is_promoted_is_open_again(ledger, record, epoch):
    ledger.start(record(0, []))
    ledger.epoch(0, judged(epoch, 1, 0.3, 0.25))
    ledger.end(0, STOPPED)
    ledger.go_on(0)

    (one,) = ledger.records()

    assert (one.status, one.promoted_at, one.to_end, one.awaits_judgement) == (INTERRUPTED, 1, False, False)
    assert not one.ended


def test_promoted_for_good_it_awaits_no_judgement_ever_after(ledger, record, epoch):
    ledger.start(record(0, []))
    ledger.epoch(0, judged(epoch, 1, 0.3, 0.25))
    ledger.end(0, STOPPED)
    ledger.go_on(0, to_end=True)
    ledger.go_on(0)
    ledger.epoch(0, judged(epoch, 2, 0.3, 0.25))

    (one,) = ledger.records()
    assert one.to_end
    assert not one.awaits_judgement


def test_what_was_spent_counts_branches_and_nothing_of_what_was_answered(ledger, record, epoch):
    for number in range(3):
        ledger.start(record(number, []))
    ledger.epoch(0, judged(epoch, 1, 0.3, 0.25, cost=1.5))
    ledger.epoch(0, epoch(2, 0.2))
    ledger.duplicate(1, 0)
    ledger.duplicate(2, 7, "earlier", [epoch(1, 0.4), epoch(2, 0.1)])

    first, repeated, answered = ledger.records()

    assert first.n_epochs_spent == 2.5
    assert (repeated.status, repeated.duplicate_of, repeated.from_search, repeated.curve) == (DUPLICATE, 0, "", [])
    assert (answered.status, answered.duplicate_of, answered.from_search) == (FINISHED, 7, "earlier")
    assert (answered.last_loss, answered.n_epochs_spent, repeated.n_epochs_spent) == (0.1, 0.0, 0.0)


def test_what_a_ledger_keeps_of_a_curve_is_what_the_curve_comes_to(ledger, record, epoch):
    for number in range(3):
        ledger.start(record(number, []))
    for number in range(1, 8):
        ledger.epoch(0, {**judged(epoch, number, 0.3, 0.1 * number), "gpu": 0.3, "seconds": 0.1 * number})
    ledger.epoch(1, epoch(1, 0.2))
    ledger.duplicate(2, 7, "earlier", [judged(epoch, 1, 0.4, 0.35), {**epoch(2, 0.1), "gpu": 1.0}])

    for one in ledger.records():
        same = replace(one)
        assert one.tally is not None
        assert same.tally is None
        assert same.rung_losses == one.rung_losses
        assert same.gpu_seconds == pytest.approx(one.gpu_seconds)
    assert [len(one.rung_losses) for one in ledger.records()] == [7, 0, 1]
    assert [one.gpu_seconds for one in ledger.records()] == pytest.approx([0.84, 0.0, 0.0])


def test_the_lines_read_tell_whether_anything_is_new(ledger, record, epoch):
    ledger.start(record(0, []))
    ledger.records()
    n_lines = ledger.n_lines
    ledger.records()
    assert ledger.n_lines == n_lines
    ledger.epoch(0, epoch(1, 0.3))
    ledger.records()
    assert ledger.n_lines == n_lines + 1


def test_an_end_knows_how_many_trials_had_been_proposed(ledger, record, epoch):
    ledger.start(record(0, []))
    ledger.start(record(1, []))
    ledger.end(1, FAILED, "why")
    ledger.start(record(2, []))
    ledger.end(0, FINISHED)

    assert [one.n_before_end for one in ledger.records()] == [3, 2, 0]


def test_losses_that_are_no_numbers_are_not_the_best(record):
    one = record(0, [float("nan"), 0.3])

    assert one.best_loss == 0.3
    assert record(1, []).best_loss is None
    assert record(1, []).last_loss is None


def test_only_what_is_new_in_the_file_is_read_and_records_grow(ledger, record, epoch):
    ledger.start(record(0, []))
    (one,) = ledger.records()
    ledger.epoch(0, epoch(1, 0.3))
    writer = Ledger(ledger.path)
    writer.epoch(0, epoch(2, 0.2))

    assert ledger.records()[0] is one
    assert one.losses == [0.3, 0.2]


def test_a_line_that_is_being_written_is_read_when_it_is_whole(ledger, record, epoch):
    ledger.start(record(0, []))
    ledger.epoch(0, epoch(1, 0.3))
    whole = ledger.path.read_bytes()
    ledger.path.write_bytes(whole[:-5])
    reader = Ledger(ledger.path)
    assert reader.records()[0].losses == []
    ledger.path.write_bytes(whole)

    assert reader.records()[0].losses == [0.3]


def test_another_file_by_the_same_name_is_read_anew(ledger, record, epoch):
    for number in range(3):
        ledger.start(record(number, []))
    assert len(ledger.records()) == 3
    ledger.path.unlink()
    other = Ledger(ledger.path)
    other.open(ABOUT)
    other.start(record(0, []))

    assert len(ledger.records()) == 1


def test_a_file_that_is_no_ledger_says_so(tmp_path):
    path = tmp_path / "ledger.jsonl"
    path.write_text("")
    with pytest.raises(DataError, match="is no ledger of a search; move it away"):
        Ledger(path).about()
    path.write_text('{"event": "epoch", "trial": 3, "epoch": 1}\n')
    with pytest.raises(DataError, match=r"ledger.jsonl:1 is damaged"):
        Ledger(path).records()


def test_after_a_line_that_could_not_be_written_none_is(ledger, record, monkeypatch):
    """What was decided on the lost line is not known: nothing may follow it."""
    before = ledger.path.read_bytes()

    def full(*arguments):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr("ichtune.search.ledger.os.fsync", full)
        with pytest.raises(StorageError, match="No space left on device; free the disk and continue"):
            ledger.start(record(0, []))
    assert isinstance(ledger.failure, StorageError)
    kept = ledger.path.read_bytes()

    with pytest.raises(StorageError):
        ledger.end(0, FAILED, "why")
    assert ledger.path.read_bytes() == kept
    assert kept.startswith(before)


def test_a_line_is_kept_elsewhere_before_it_is_written_here(tmp_path, record):
    kept = []
    ledger = Ledger(tmp_path / "ledger.jsonl", lambda line: kept.append((line, _size(ledger))))

    ledger.open(ABOUT)
    ledger.start(record(0, []))

    assert "".join(f"{line}\n" for line, _ in kept) == ledger.path.read_text()
    assert [size for _, size in kept] == [0, len(kept[0][0]) + 1]


def test_what_cannot_be_kept_elsewhere_is_not_written_here(tmp_path, record):
    def refuse(line):
        raise StorageError("the bucket is gone")

    ledger = Ledger(tmp_path / "ledger.jsonl", refuse)
    with pytest.raises(StorageError, match="the bucket is gone"):
        ledger.open(ABOUT)

    assert not ledger.path.exists()


def _size(ledger):
    return ledger.path.stat().st_size if ledger.path.exists() else 0
