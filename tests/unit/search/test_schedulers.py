"""Who goes on after a rung: a function of the records, whoever asks and however often."""

import random
from dataclasses import replace

import pytest

from ichtune.errors import ConfigError
from ichtune.search.ledger import FAILED, FINISHED, INTERRUPTED, STOPPED, Ledger, TrialRecord
from ichtune.search.schedulers import (
    N_BEFORE_MEDIAN,
    SCHEDULERS,
    HyperBand,
    at_rung,
    create_scheduler,
    find_scheduler,
    geometric_rungs,
    last_rung,
    n_failed_in_a_row,
    to_finish,
)
from ichtune.search.stages import FOLD_RUNG
from ichtune.space import EarlyStop

ASHA = EarlyStop(type="asha", grace=1, max=27, factor=3)


@pytest.fixture
def at(record):
    """A trial that stands at its last rung; ``rungs`` are the losses at rungs 1, 3, 9."""

    def make(number: int, *rungs: float, status: str = STOPPED) -> TrialRecord:
        epochs = [1, 3, 9][: len(rungs)]
        losses = [1.0] * (epochs[-1] if epochs else 0)
        return record(number, losses, status, rungs=dict(zip(epochs, rungs, strict=True)))

    return make


def judged(scheduler, trials: list[TrialRecord]) -> list[int]:
    """Let trials arrive one by one; each is stopped unless it goes on; returns those that do as they arrive."""
    arrived = []
    passed = []
    for trial in trials:
        arrived.append(replace(trial, status=INTERRUPTED))
        if scheduler.goes_on(arrived[-1], arrived):
            passed.append(trial.trial)
        else:
            arrived[-1].status = STOPPED
    return passed


@pytest.mark.parametrize(("n", "n_promoted"), [(1, 0), (2, 0), (3, 1), (5, 1), (6, 2), (10, 3)])
def test_asha_promotes_the_best_third_rounded_down(at, n, n_promoted):
    losses = random.Random(n).sample(range(100), n)
    records = [at(number, loss / 100) for number, loss in enumerate(losses)]

    promoted = create_scheduler(ASHA).promoted(records, 1)

    assert promoted == set(sorted(range(n), key=losses.__getitem__)[:n_promoted])


def test_of_two_equal_trials_the_earlier_one_is_promoted(at):
    assert create_scheduler(ASHA).promoted([at(2, 0.1), at(0, 0.1), at(1, 0.1)], 1) == {0}


def test_the_first_trials_are_stopped_and_a_later_one_lets_the_best_of_them_pass(at):
    scheduler = create_scheduler(ASHA)
    three = [at(0, 0.2), at(1, 0.1), at(2, 0.3)]

    assert judged(scheduler, three) == []
    assert scheduler.promotable(three[:2]) == []
    assert scheduler.promotable(three) == [1]
    assert judged(scheduler, [*three, at(3, 0.4), at(4, 0.5), at(5, 0.05)]) == [5]


def test_whoever_passed_and_went_on_leaves_its_place_to_nobody(at):
    records = [at(0, 0.1, 0.2, status=INTERRUPTED), at(1, 0.2), at(2, 0.3)]

    assert create_scheduler(ASHA).promotable(records) == []


def test_each_rung_has_its_own_best_and_the_highest_goes_first(at):
    high = [at(n, 0.1, 0.2 + n / 100) for n in range(3)]
    low = [at(n, n / 100) for n in range(3, 12)]

    assert create_scheduler(ASHA).promotable([*high, *low]) == [0, 3, 4, 5, 6]


def test_a_trial_that_failed_later_still_counts_where_it_was_judged(at):
    records = [at(0, 0.1, status=FAILED), at(1, 0.2), at(2, 0.3)]

    assert create_scheduler(ASHA).promoted(records, 1) == {0}
    assert create_scheduler(ASHA).promotable(records) == []


def test_what_another_search_answered_was_judged_by_other_rungs(at):
    answered = at(0, 0.01, status=FINISHED)
    answered.duplicate_of, answered.from_search = 7, "earlier"

    assert at_rung([answered, at(1, 0.2)], 1) == {1: 0.2}


@pytest.mark.parametrize("name", [name for name in SCHEDULERS if name != "none"])
def test_a_decision_depends_on_nothing_but_the_records(at, record, tmp_path, name):
    early_stop = replace(ASHA, type=name)
    draw = random.Random(3)
    records = [at(n, *(draw.random() for _ in range(1 + (n % 4 == 0)))) for n in range(13)]
    ledger = Ledger(tmp_path / "ledger.jsonl")
    ledger.open({})
    for one in records:
        ledger.start(one)
        for epoch in one.curve:
            ledger.epoch(one.trial, epoch)
        ledger.end(one.trial, one.status)
    scheduler = create_scheduler(early_stop)
    expected = {rung: scheduler.promoted(records, rung) for rung in (1, 3, 9)}
    waiting = scheduler.promotable(records)

    for _ in range(5):
        rungs = draw.sample([1, 3, 9], 3)
        again = create_scheduler(early_stop)
        shuffled = draw.sample(records, len(records))
        assert {rung: again.promoted(shuffled, rung) for rung in rungs} == expected
    assert create_scheduler(early_stop).promotable(Ledger(ledger.path).records()) == waiting
    assert scheduler.promotable(records) == waiting


def test_hyperband_gives_trials_in_turn_a_bracket_with_a_later_first_rung():
    scheduler = create_scheduler(replace(ASHA, type="hyperband"))

    assert isinstance(scheduler, HyperBand)
    assert [scheduler.rungs(trial) for trial in range(5)] == [(1, 3, 9), (3, 9), (9,), (), (1, 3, 9)]


def test_hyperband_compares_within_a_bracket_only(at, record):
    scheduler = create_scheduler(replace(ASHA, type="hyperband"))
    first = [at(number, 0.5 + number / 100) for number in (0, 4, 8)]
    second = [record(number, [1.0] * 3, STOPPED, rungs={3: 0.1 + number / 100}) for number in (1, 5, 9)]

    assert scheduler.promoted([*first, *second], 1) == {0}
    assert scheduler.promoted([*first, *second], 3) == {1}
    assert scheduler.promotable([*first, *second[:2]]) == [0]


def test_median_stopping_waits_for_some_trials_and_then_stops_the_worse_half(at):
    scheduler = create_scheduler(replace(ASHA, type="median"))
    few = [at(number, number / 10) for number in range(N_BEFORE_MEDIAN)]

    assert scheduler.promoted(few, 1) == {0, 1, 2}
    assert judged(scheduler, [*few, at(3, 0.05), at(4, 0.5), at(5, 0.1)]) == [0, 1, 2, 3, 5]
    assert scheduler.promoted([at(number, 0.1) for number in range(6)], 1) == set(range(6))


def test_none_never_stops(at):
    scheduler = create_scheduler(EarlyStop(type="none"))

    assert scheduler.rungs(0) == ()
    assert scheduler.goes_on(at(1, 9.9), [at(0, 0.1), at(1, 9.9)])


@pytest.mark.parametrize("name", SCHEDULERS)
def test_between_folds_every_scheduler_decides_among_all_that_came_so_far(record, name):
    scheduler = create_scheduler(replace(ASHA, type=name))
    records = [record(number, [1.0] * 9, STOPPED, rungs={9: 0.1 * (number + 1)}) for number in range(6)]
    for one in records:
        one.curve[-1]["rung"] = FOLD_RUNG

    promoted = scheduler.promoted(records, FOLD_RUNG)

    assert promoted == {"asha": {0, 1}, "hyperband": {0, 1}, "median": {0, 1, 2}, "none": set(range(6))}[name]
    assert scheduler.promotable(records) == sorted(promoted)


def test_a_trial_that_was_promoted_for_good_goes_on_whatever_the_others_did(at):
    bad = at(2, 0.9)
    bad.to_end = True

    assert create_scheduler(ASHA).goes_on(bad, [at(0, 0.1), at(1, 0.2), bad])


def test_the_first_to_be_finished_are_the_furthest_and_among_these_the_best(at):
    records = [at(0, 0.3), at(1, 0.1), at(2, 0.2, 0.5), at(3, 0.2, 0.4), at(4, 0.01, status=FINISHED), at(5)]

    assert to_finish(records, 3) == [3, 2, 1]
    assert to_finish(records, 0) == to_finish(records, -2) == []
    assert to_finish(records, 99) == [3, 2, 1, 0]


def test_failures_are_counted_back_from_the_latest_trial(record):
    def trials(*statuses: str) -> list[TrialRecord]:
        return [record(number, [0.1], status) for number, status in enumerate(statuses)]

    assert n_failed_in_a_row([]) == 0
    assert n_failed_in_a_row(trials(FINISHED, FAILED, FAILED)) == 2
    assert n_failed_in_a_row(trials(FAILED, STOPPED)) == 0
    assert n_failed_in_a_row(trials(FAILED, INTERRUPTED, FAILED)) == 2
    repeated = trials(FAILED, FAILED, FINISHED)
    repeated[2].duplicate_of = 0
    assert n_failed_in_a_row(repeated) == 2


def test_rungs_rise_by_the_factor_and_end_before_the_longest_trial():
    assert geometric_rungs(EarlyStop(type="asha", grace=2, max=18, factor=3), 0) == (2, 6)
    assert geometric_rungs(EarlyStop(type="asha", grace=2, max=18, factor=3), 1) == (6,)
    assert geometric_rungs(EarlyStop(type="asha", grace=5, max=5, factor=2), 0) == ()
    with pytest.raises(ConfigError, match="needs max"):
        geometric_rungs(EarlyStop(type="asha", grace=2), 0)


def test_before_the_first_rung_there_is_none(at):
    assert last_rung(at(0)) == 0
    assert last_rung(at(0, 0.2, 0.1)) == 3


def test_an_unknown_scheduler_names_the_nearest():
    with pytest.raises(ConfigError, match="Did you mean 'asha'"):
        find_scheduler("ash")
