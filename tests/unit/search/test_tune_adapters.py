"""Between legs and Ray Tune: each thing that happens is written once, before anything is decided on it."""

import json
import math
import pickle
from types import SimpleNamespace
from typing import Any

import pytest

from ichtune.errors import StorageError
from ichtune.search.deaths import MAX_FAILURES
from ichtune.search.ledger import FAILED, FINISHED, INTERRUPTED, STOPPED, Ledger
from ichtune.search.legs import Budget, Legs, Nothing
from ichtune.search.names import METRIC, TIME_ATTR
from ichtune.search.schedulers import create_scheduler
from ichtune.search.stages import FOLD_RUNG
from ichtune.search.tune_adapters import Bookkeeper, LedgerCallback, LegSearcher, RungScheduler, event_of
from ichtune.space import EarlyStop

CONFIG: dict[str, Any] = {
    "trial": 0,
    "summary": "net",
    "epochs": 3,
    "told": 0,
    "parameters": {"lr": 1e-3},
    "resources": {"cpu": 1.0},
    "rung_epochs": {"1": 1, "2": 2, str(FOLD_RUNG): 3},
}


@pytest.fixture
def ledger(tmp_path, record) -> Ledger:
    made = Ledger(tmp_path / "ledger.jsonl")
    made.open({"space_id": "s"})
    made.start(record(0, []))
    return made


@pytest.fixture
def legs(space, ledger) -> Legs:
    return Legs(space, ledger, create_scheduler(EarlyStop(type="asha", grace=1, max=9, factor=2)), Budget(1))


@pytest.fixture
def result(epoch):
    def make(number: int, loss: float, rung_loss: float | None = None, **more: Any) -> dict[str, Any]:
        told = {**epoch(number, loss), "fold": 0, "cost": 1.0, "failure": "", "done": False, "time_total_s": 3.0}
        return {**told, **({} if rung_loss is None else {"rung": number, "rung_loss": rung_loss}), **more}

    return make


def trial(last: dict[str, Any] | None = None, **config: Any) -> SimpleNamespace:
    return SimpleNamespace(
        config={**CONFIG, **config}, last_result=last, error_file="error.txt", num_failures=0, max_failures=MAX_FAILURES
    )


def given_up(**config: Any) -> SimpleNamespace:
    """A trial whose worker died more often than Tune starts it again."""
    one = trial(**config)
    one.num_failures = one.max_failures + 1
    return one


def events_in(ledger: Ledger, kind: str) -> list[dict[str, Any]]:
    return [event for event in map(json.loads, ledger.path.read_text().splitlines()) if event["event"] == kind]


def test_epochs_reach_the_ledger_once_even_when_a_trial_tells_them_again(ledger, result):
    keeper = Bookkeeper(ledger)
    for number, loss in [(1, 0.3), (2, 0.2), (1, 0.3), (2, 0.2), (3, 0.1)]:
        keeper.record(CONFIG, result(number, loss))
    Bookkeeper(ledger).record(CONFIG, result(3, 0.1))

    assert ledger.records()[0].losses == [0.3, 0.2, 0.1]
    assert len(events_in(ledger, "epoch")) == 3


def test_what_is_written_of_an_epoch_is_what_is_known_of_it_and_nothing_of_tune_s(ledger, result):
    record = Bookkeeper(ledger).record(CONFIG, result(1, 0.3, 0.25, gpu=0.5))

    assert record is ledger.records()[0]
    (epoch,) = record.curve
    assert epoch == {
        "epoch": 1,
        "val_weighted_log_loss": 0.3,
        "train_loss": 0.31,
        "lr": 1e-3,
        "seconds": 2.0,
        "images_per_second": 100.0,
        "fold": 0,
        "cost": 1.0,
        "rung": 1,
        "rung_loss": 0.25,
        "gpu": 0.5,
    }


@pytest.mark.parametrize("more", [{METRIC: math.nan}, {METRIC: math.nan, "halt": "full"}, {"failure": "diverged"}])
def test_what_is_no_number_or_a_failure_is_not_written_as_an_epoch(ledger, result, more):
    assert Bookkeeper(ledger).record(CONFIG, {**result(1, 0.3), **more}) is None
    assert ledger.records()[0].curve == []


def test_a_failure_without_an_epoch_s_figures_is_no_epoch(ledger):
    told = {TIME_ATTR: 0, METRIC: math.nan, "failure": "broken", "done": True}
    LedgerCallback(ledger, Bookkeeper(ledger)).on_trial_result(0, [], trial(), told)

    assert ledger.records()[0].curve == []


def test_a_trial_at_a_rung_is_judged_by_a_ledger_that_knows_its_epoch(ledger, legs, result, record):
    scheduler = RungScheduler(legs, Bookkeeper(ledger))

    assert scheduler.on_trial_result(None, trial(), result(1, 0.3, 0.2)) == "STOP"
    LedgerCallback(ledger, Bookkeeper(ledger)).on_trial_complete(0, [], trial({"epoch": 1, "failure": ""}))
    ledger.start(record(1, []))
    assert scheduler.on_trial_result(None, trial(trial=1), result(1, 0.3, 0.1)) == "CONTINUE"
    assert [event["trial"] for event in events_in(ledger, "go_on")] == [1]
    assert scheduler.on_trial_result(None, trial(trial=1), result(1, 0.3, 0.1)) == "CONTINUE", "told again"
    assert len(events_in(ledger, "go_on")) == 1


def test_between_rungs_a_trial_goes_on(ledger, legs, result):
    assert RungScheduler(legs, Bookkeeper(ledger)).on_trial_result(None, trial(), result(1, 0.3)) == "CONTINUE"


def test_when_the_gpu_hours_are_spent_every_trial_stops_and_stays_interrupted(ledger, legs, result):
    legs.budget = Budget(5, gpu_hours=0.0005)
    keeper = Bookkeeper(ledger)
    spent = result(1, 0.3, gpu=1.0)

    assert RungScheduler(legs, keeper).on_trial_result(None, trial(), spent) == "STOP"
    LedgerCallback(ledger, keeper).on_trial_complete(0, [], trial(spent))

    assert ledger.records()[0].status == INTERRUPTED
    assert events_in(ledger, "end") == []
    assert legs.next() is Nothing.LEFT


@pytest.mark.parametrize(
    ("told", "last", "status", "reason"),
    [
        ([(1, 0.3), (2, 0.2), (3, 0.1)], {"epoch": 3, "failure": ""}, FINISHED, ""),
        ([(1, 0.3, 0.2)], {"epoch": 1, "failure": ""}, STOPPED, ""),
        ([(1, 0.3)], {"epoch": 2, "failure": "diverged"}, FAILED, "diverged"),
    ],
)
def test_the_end_of_a_leg_is_named_for_what_it_was(ledger, result, told, last, status, reason):
    events = []
    keeper = Bookkeeper(ledger)
    for epoch in told:
        keeper.record(CONFIG, result(*epoch))

    LedgerCallback(ledger, keeper, events.append).on_trial_complete(0, [], trial(last))

    (back,) = ledger.records()
    assert (back.status, back.reason) == (status, reason)
    assert [(event.kind, event.reason) for event in events] == [(status, reason)]


def test_a_leg_that_was_cut_off_or_never_began_has_no_end(ledger, result):
    keeper = Bookkeeper(ledger)
    callback = LedgerCallback(ledger, keeper)
    callback.on_trial_complete(0, [], trial(None))
    keeper.record(CONFIG, result(1, 0.3))
    callback.on_trial_complete(0, [], trial({"epoch": 1, "failure": ""}))
    callback.on_trial_complete(0, [], trial({"epoch": 1, "failure": "", "halt": "the disk is full"}))

    assert events_in(ledger, "end") == []


def test_a_dead_worker_is_a_failure_with_the_path_of_its_traceback(ledger):
    events = []
    LedgerCallback(ledger, Bookkeeper(ledger), events.append).on_trial_error(0, [], given_up())

    assert ledger.records()[0].status == FAILED
    assert "error.txt" in ledger.records()[0].reason
    assert [event.kind for event in events] == [FAILED]


def test_what_ray_said_of_a_death_is_kept_with_the_trial(ledger, tmp_path):
    (tmp_path / "error.txt").write_text("Failure # 3 (now)\nThe actor is dead because its node has died.\n")
    one, kept = given_up(), []
    one.error_file = str(tmp_path / "error.txt")

    def keep(config: dict[str, Any], text: str) -> str:
        kept.append((config["trial"], text))
        return "s3://bucket/work/worker_died.txt"

    LedgerCallback(ledger, Bookkeeper(ledger), keep=keep).on_trial_error(0, [], one)

    reason = ledger.records()[0].reason
    assert "no epoch in between, the last time: The actor is dead because its node has died." in reason
    assert reason.endswith("(traceback in s3://bucket/work/worker_died.txt)")
    assert kept == [(0, (tmp_path / "error.txt").read_text())]


def test_where_it_cannot_be_kept_ray_s_own_file_is_named(ledger, tmp_path):
    (tmp_path / "error.txt").write_text("Failure # 3 (now)\nThe actor died.\n")
    one = given_up()
    one.error_file = str(tmp_path / "error.txt")

    def keep(config: dict[str, Any], text: str) -> str:
        raise StorageError("the disk is full")

    LedgerCallback(ledger, Bookkeeper(ledger), keep=keep).on_trial_error(0, [], one)

    assert f"traceback in {one.error_file}" in ledger.records()[0].reason


def test_a_death_that_reaches_tune_twice_leaves_the_trial_to_go_on(ledger, legs, result):
    """The second message finds a trial that Tune has put into its queue again, and ends it there."""
    callback, one = LedgerCallback(ledger, Bookkeeper(ledger)), trial()
    searcher = LegSearcher(legs, lambda record: {**CONFIG, "trial": record.trial})
    assert searcher.suggest("a")["trial"] == 0

    for n_deaths in range(1, MAX_FAILURES + 1):
        one.num_failures = n_deaths
        callback.on_trial_recover(0, [], one)
        one.num_failures = min(n_deaths + 1, MAX_FAILURES)
        searcher.on_trial_complete("a", error=True)
        callback.on_trial_error(0, [], one)
        assert ledger.records()[0].status == INTERRUPTED
        assert searcher.suggest("a")["trial"] == 0, "it is not taken up again"

    callback.on_trial_recover(0, [], one)
    callback.on_trial_error(0, [], one)
    assert ledger.records()[0].status == FAILED, "a recipe that always kills its worker goes on for ever"


def test_a_death_that_reaches_tune_twice_counts_once_however_often_tune_counts_it(ledger):
    """A worker dies, and its trial is handed on to one that died with the same node and was idle until now."""
    callback, one = LedgerCallback(ledger, Bookkeeper(ledger)), trial()
    one.num_failures = 1
    callback.on_trial_recover(4, [], one)
    one.num_failures = 2
    callback.on_trial_recover(5, [], one)
    one.num_failures = MAX_FAILURES + 1
    callback.on_trial_error(5, [], one)
    assert ledger.records()[0].status == INTERRUPTED

    callback.on_trial_error(6, [], one)
    assert ledger.records()[0].status == FAILED, "the third death was another one"


def test_only_deaths_without_a_new_epoch_in_between_use_up_a_trial_s_tries(ledger, result):
    callback, one = LedgerCallback(ledger, Bookkeeper(ledger)), trial()
    for number in range(1, 4):
        one.num_failures += 1  # it died, and tells again what was told
        assert one.num_failures <= one.max_failures, "Tune would give it up"
        callback.on_trial_result(0, [], one, result(max(1, number - 1), 0.3))
        callback.on_trial_result(0, [], one, result(number, 0.3))
    before = one.max_failures
    assert before == 3 + MAX_FAILURES

    one.num_failures += MAX_FAILURES + 1
    callback.on_trial_result(0, [], one, result(3, 0.3))  # nothing new
    assert one.max_failures == before < one.num_failures


def test_every_epoch_is_told_once_however_often_its_trial_tells_it(ledger, result):
    events = []
    callback = LedgerCallback(ledger, Bookkeeper(ledger), events.append)
    for number in (1, 2, 1, 2, 3):
        callback.on_trial_result(0, [], trial(told=1), result(number, 0.3))

    assert [event.epoch for event in events] == [2, 3]  # the first was told in an earlier run


def test_a_ledger_that_cannot_be_written_is_the_trial_s_fault_by_no_means(ledger, monkeypatch):
    """Tune takes an error in a callback for the trial's, and would try it again."""
    events = []
    callback = LedgerCallback(ledger, Bookkeeper(ledger), events.append)

    def full(*arguments: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("ichtune.search.ledger.os.fsync", full)

    callback.on_trial_complete(0, [], trial({"epoch": 1, "failure": "broken"}))
    callback.on_trial_error(0, [], given_up())

    assert isinstance(ledger.failure, StorageError)
    assert events == []


def test_ray_can_copy_all_three_whatever_the_watchers_hold(ledger, legs):
    keeper = Bookkeeper(ledger)
    for adapter in (
        LedgerCallback(ledger, keeper, lambda event: None),
        RungScheduler(legs, keeper),
        LegSearcher(legs, lambda record: {}, lambda event: None),
    ):
        assert type(pickle.loads(pickle.dumps(adapter))) is type(adapter)


def test_the_searcher_hands_out_legs_and_remembers_which_run(space, ledger, legs, record):
    ledger.start(record(1, [], lr=2e-3))
    searcher = LegSearcher(legs, lambda one: {**CONFIG, "trial": one.trial})

    first, second, third = (searcher.suggest(name) for name in "abc")
    assert (first["trial"], second["trial"], third) == (0, 1, None)
    ledger.end(0, FAILED, "why")
    searcher.on_trial_complete("a")
    assert searcher.suggest("d") is None
    ledger.end(1, FAILED, "why")
    searcher.on_trial_complete("b", error=True)
    assert searcher.suggest("e") == "FINISHED"


def test_no_more_legs_are_handed_out_than_there_is_room_for(ledger, legs, record):
    ledger.start(record(1, [], lr=2e-3))
    room = [1]
    searcher = LegSearcher(legs, lambda one: {**CONFIG, "trial": one.trial}, room=lambda: room[0])

    assert searcher.suggest("a")["trial"] == 0
    assert searcher.suggest("b") is None
    room[0] = 2  # the cluster has grown
    assert searcher.suggest("b")["trial"] == 1


def test_a_leg_that_begins_is_told_with_where_it_stands(ledger, legs, result):
    Bookkeeper(ledger).record(CONFIG, result(1, 0.3))
    events = []

    LegSearcher(legs, lambda record: {**CONFIG, "told": 1}, events.append).suggest("a")

    (event,) = events
    assert (event.kind, event.trial, event.epoch, event.loss, event.epochs) == ("start", 0, 1, 0.3, 3)


def test_neither_searcher_nor_disk_keeps_a_second_state(legs, tmp_path):
    searcher = LegSearcher(legs, lambda record: CONFIG)

    searcher.save(str(tmp_path / "state"))
    searcher.restore(str(tmp_path / "state"))

    assert not (tmp_path / "state").exists()


def test_an_event_says_all_that_is_known(result):
    event = event_of("epoch", CONFIG, result(2, 0.3, 0.2, gpu_memory_mb=512.0, hostname="node-3"), "why")

    assert (event.kind, event.trial, event.summary, event.reason) == ("epoch", 0, "net", "why")
    assert (event.epoch, event.epochs, event.loss, event.rung, event.rung_loss) == (2, 3, 0.3, 1, 0.2)
    assert (event.train_loss, event.lr, event.cost, event.seconds) == (0.31, 1e-3, 1.0, 2.0)
    assert (event.images_per_second, event.gpu_memory_mb, event.node) == (100.0, 512.0, "node-3")
    assert (event.parameters, event.resources) == ({"lr": 1e-3}, {"cpu": 1.0})


def test_rungs_are_counted_in_the_order_in_which_they_come(result):
    assert event_of("epoch", CONFIG, result(3, 0.3, 0.2, rung=FOLD_RUNG)).rung == 2
    assert event_of("epoch", CONFIG, result(3, 0.3, 0.2, rung=7)).rung is None
    assert event_of("start", CONFIG, {}).rung is None
    assert [event_of("start", CONFIG | {"to_end": to_end}, {}).to_end for to_end in (False, True)] == [False, True]
