import math
import pickle
from types import SimpleNamespace

import pytest

from ichtune.search.ledger import FAILED, FINISHED, STOPPED, Ledger
from ichtune.search.telemetry import LedgerCallback


@pytest.fixture
def ledger(tmp_path, record):
    made = Ledger(tmp_path / "ledger.jsonl")
    made.open({})
    made.start(record(0, []))
    return made


def trial(last=None):
    config = {"trial": 0, "recipe": {"epochs": 3}, "summary": "net"}
    return SimpleNamespace(config=config, last_result=last, error_file="error.txt")


def test_epochs_reach_the_ledger_once_even_when_a_trial_tells_them_again(ledger, epoch):
    callback = LedgerCallback(ledger)
    for number, loss in [(1, 0.3), (2, 0.2), (1, 0.3), (2, 0.2), (3, 0.1)]:
        callback.on_trial_result(0, [], trial(), epoch(number, loss))

    assert ledger.records()[0].losses == [0.3, 0.2, 0.1]
    assert ledger.path.read_text().count('"event": "epoch"') == 3


def test_a_callback_of_a_continued_search_knows_what_was_told_before(ledger, epoch):
    LedgerCallback(ledger).on_trial_result(0, [], trial(), epoch(1, 0.3))
    LedgerCallback(ledger).on_trial_result(0, [], trial(), epoch(1, 0.3))

    assert ledger.path.read_text().count('"event": "epoch"') == 1


@pytest.mark.parametrize(
    ("last", "status", "reason"),
    [
        ({"epoch": 3, "failure": "", "val_weighted_log_loss": 0.1}, FINISHED, ""),
        ({"epoch": 1, "failure": "", "val_weighted_log_loss": 0.1}, STOPPED, ""),
        ({"epoch": 2, "failure": "diverged", "val_weighted_log_loss": math.nan}, FAILED, "diverged"),
    ],
)
def test_the_end_of_a_trial_is_named_for_what_it_was(ledger, last, status, reason):
    events = []

    LedgerCallback(ledger, events.append).on_trial_complete(0, [], trial(last))

    (back,) = ledger.records()
    assert (back.status, back.reason) == (status, reason)
    assert [event.kind for event in events] == [status]


def test_a_dead_worker_is_a_failure_with_the_path_of_its_traceback(ledger):
    LedgerCallback(ledger).on_trial_error(0, [], trial())

    assert ledger.records()[0].status == FAILED
    assert "error.txt" in ledger.records()[0].reason


def test_not_a_number_is_not_written_as_an_epoch(ledger, epoch):
    LedgerCallback(ledger).on_trial_result(0, [], trial(), epoch(1, math.nan))

    assert ledger.records()[0].curve == []


def test_ray_can_copy_the_callback_whatever_the_display_holds(ledger):
    copy = pickle.loads(pickle.dumps(LedgerCallback(ledger, lambda event: None)))

    copy.on_trial_complete(0, [], trial({"epoch": 3}))

    assert ledger.records()[0].status == FINISHED
