"""One number a trial: what was stopped is told on the scale of what was finished."""

import random

import pytest

from ichtune.search.comparable import comparable_losses, is_repeated
from ichtune.search.ledger import DUPLICATE, FAILED, FINISHED, INTERRUPTED, STOPPED
from ichtune.search.stages import FOLD_RUNG


def test_finished_trials_are_themselves_and_the_unjudged_are_left_out(record):
    records = [
        record(0, [0.5, 0.4, 0.3], FINISHED, rungs={1: 0.45}),
        record(1, [0.5], INTERRUPTED),
        record(2, [0.5], FAILED, rungs={1: 0.2}),
        record(3, [0.9, 0.2], FINISHED),
    ]

    assert comparable_losses(records) == {0: 0.3, 3: 0.2}


def test_the_order_within_a_rung_is_kept(record):
    draw = random.Random(1)
    finished = [record(n, [0.5, 0.4, 0.1 + draw.random()], FINISHED, rungs={1: 0.4 + draw.random()}) for n in range(5)]
    stopped = [record(n, [0.5], STOPPED, rungs={1: draw.random()}) for n in range(5, 25)]

    losses = comparable_losses([*finished, *stopped])

    by_rung = sorted(stopped, key=lambda r: r.rung_losses[1])
    told = [losses[r.trial] for r in by_rung]
    assert told == sorted(told)
    assert len(set(told)) == len(told)


def test_early_losses_lie_higher_and_a_good_stopped_trial_is_told_better_than_a_bad_finished_one(record):
    """Losses halve from the rung to the end: 0.5 at the rung is worth 0.25, less than a finished trial's 0.4."""
    records = [
        record(0, [1.0, 0.6, 0.4], FINISHED, rungs={1: 0.8}),
        record(1, [1.0, 0.7, 0.5], FINISHED, rungs={1: 1.0}),
        record(2, [0.9], STOPPED, rungs={1: 0.5}),
        record(3, [0.9], STOPPED, rungs={1: 1.2}),
    ]

    losses = comparable_losses(records)

    assert losses[2] == pytest.approx(0.25)
    assert losses[3] == pytest.approx(0.6)
    assert losses[2] < losses[0] < losses[1] < losses[3]
    assert records[2].last_loss > records[1].last_loss, "told as they are they would compare the other way round"


def test_gains_of_several_rungs_are_chained_by_their_medians(record):
    far = [record(n, [1.0] * 9, FINISHED, rungs={1: 1.0, 3: g, 9: g / 2}) for n, g in enumerate((0.7, 0.8, 0.9))]
    for one in far:
        one.curve.append({**one.curve[-1], "epoch": 10, "val_weighted_log_loss": one.rung_losses[9] / 4})
        del one.curve[-1]["rung"], one.curve[-1]["rung_loss"]
    stopped = [record(3, [1.0], STOPPED, rungs={1: 2.0}), record(4, [1.0] * 3, STOPPED, rungs={1: 1.0, 3: 0.8})]

    losses = comparable_losses([*far, *stopped])

    assert losses[3] == pytest.approx(2.0 * 0.8 * 0.5 * 0.25)
    assert losses[4] == pytest.approx(0.8 * 0.5 * 0.25)


def test_a_step_that_nobody_took_yet_is_no_gain(record):
    records = [record(0, [1.0], STOPPED, rungs={1: 0.7}), record(1, [1.0], INTERRUPTED, rungs={1: 0.3})]

    assert comparable_losses(records) == {0: 0.7, 1: 0.3}


def test_a_trial_that_leapt_to_its_end_tells_of_no_single_step(record):
    stepwise = record(0, [1.0] * 4, FINISHED, rungs={1: 1.0, 3: 0.8})
    stepwise.curve[-1]["val_weighted_log_loss"] = 0.4
    leapt = record(1, [1.0] * 4, FINISHED, rungs={1: 1.0})
    leapt.curve[-1]["val_weighted_log_loss"], leapt.to_end = 0.1, True
    stopped = record(2, [1.0], STOPPED, rungs={1: 1.0})

    assert comparable_losses([stepwise, leapt, stopped])[2] == pytest.approx(0.4)


def test_rungs_between_folds_are_one_more_step(record):
    two = record(0, [0.5, 0.4, 0.3], FINISHED, rungs={2: 0.4})
    two.curve[1]["rung"] = FOLD_RUNG
    one = record(1, [0.5, 0.2], STOPPED, rungs={2: 0.2})
    one.curve[1]["rung"] = FOLD_RUNG

    assert comparable_losses([two, one])[1] == pytest.approx(0.2 * 0.3 / 0.4)


def test_what_repeats_a_trial_is_left_out_and_what_another_search_answered_is_told(record):
    original = record(0, [0.3], FINISHED)
    repeated = record(1, [], DUPLICATE)
    repeated.duplicate_of = 0
    answered = record(2, [0.9, 0.2], FINISHED, rungs={1: 0.05})
    answered.duplicate_of, answered.from_search = 0, "earlier"

    assert comparable_losses([original, repeated, answered]) == {0: 0.3, 2: 0.2}
    assert [is_repeated(r) for r in (original, repeated, answered)] == [False, True, False]


def test_rungs_of_another_search_say_nothing_of_gains_here(record):
    answered = record(0, [0.9, 0.1], FINISHED, rungs={1: 0.9})
    answered.duplicate_of, answered.from_search = 0, "earlier"

    assert comparable_losses([answered, record(1, [0.5], STOPPED, rungs={1: 0.5})])[1] == 0.5


def test_of_nothing_nothing_is_told():
    assert comparable_losses([]) == {}
