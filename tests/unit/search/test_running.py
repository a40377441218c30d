"""How many trials run at a time, as events tell."""

from ichtune.search.cluster import Cluster
from ichtune.search.running import Running
from ichtune.search.telemetry import TrialEvent


def event(kind: str, trial: int) -> TrialEvent:
    return TrialEvent(kind, trial, "net", 1, 9, 0.3)


def test_trials_are_counted_from_their_beginning_to_the_end_of_their_leg():
    running = Running()
    running.started("mine", Cluster("", "", 64, 0, joined=True), [])
    assert running.n == 1

    for trial in range(3):
        running.event(event("start", trial))
    running.event(event("epoch", 0))
    assert running.n == 3
    running.event(event("stopped", 0))
    running.event(event("finished", 1))
    assert running.n == 1
    running.event(event("start", 0))
    running.event(event("duplicate", 7))
    assert running.n == 2

    running.ended()
    assert running.n == 1
