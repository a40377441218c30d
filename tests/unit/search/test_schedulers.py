from types import SimpleNamespace

import pytest

from ichtune.errors import ConfigError
from ichtune.search.ledger import FINISHED, STOPPED
from ichtune.search.schedulers import create_scheduler, find_scheduler
from ichtune.space import EarlyStop

ASHA = EarlyStop(type="asha", grace=1, max=9, factor=3)
GOOD = [[0.20, 0.15, 0.12, 0.11, 0.10, 0.10, 0.10, 0.10, 0.10], [0.22, 0.17, 0.14, 0.12, 0.11, 0.1, 0.1, 0.1, 0.1]]


def decide(scheduler, number, losses):
    """Tell a live trial's losses one by one; return the epoch after which it is stopped, or None."""
    trial = SimpleNamespace(trial_id=f"live_{number}")
    scheduler.on_trial_add(None, trial)
    for epoch, loss in enumerate(losses, start=1):
        result = {"epoch": epoch, "val_weighted_log_loss": loss}
        if scheduler.on_trial_result(None, trial, result) == "STOP":
            scheduler.on_trial_complete(None, trial, result)
            return epoch
    return None


def test_a_bad_trial_is_stopped_at_the_first_rung():
    scheduler = create_scheduler(ASHA)
    for number, losses in enumerate(GOOD):
        decide(scheduler, number, losses)

    assert decide(scheduler, 2, [0.30] * 9) == 1


def test_a_continued_search_judges_like_one_that_was_never_left(record):
    ended = [record(number, losses) for number, losses in enumerate(GOOD)]
    candidates = [[0.30] * 9, [0.21, 0.2, 0.2] + [0.2] * 6, [0.19, 0.14, 0.11] + [0.1] * 6, [0.205] * 9]

    straight, continued = create_scheduler(ASHA), create_scheduler(ASHA, ended)
    for number, losses in enumerate(GOOD):
        decide(straight, number, losses)

    for number, losses in enumerate(candidates, start=2):
        assert decide(continued, number, losses) == decide(straight, number, losses)


def test_a_scheduler_that_knows_nothing_would_have_let_the_bad_trial_pass():
    """What Ray's own restore does; the test above would be empty if this trial were stopped anyway."""
    assert decide(create_scheduler(ASHA), 0, [0.30] * 9) == 9


def test_stopped_trials_count_for_the_rungs_they_reached(record):
    scheduler = create_scheduler(ASHA, [record(0, [0.1, 0.1, 0.1], STOPPED), record(1, [0.2], STOPPED)])

    assert decide(scheduler, 2, [0.25] * 9) == 1
    assert decide(scheduler, 3, [0.05, 0.2, 0.2, 0.2]) == 3


def test_none_never_stops(record):
    scheduler = create_scheduler(EarlyStop(type="none"), [record(0, [0.1], FINISHED)])

    assert decide(scheduler, 1, [9.9] * 20) is None


def test_an_unknown_scheduler_names_the_nearest():
    with pytest.raises(ConfigError, match="Did you mean 'asha'"):
        find_scheduler("ash")
