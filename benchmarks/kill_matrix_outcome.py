"""What a run of the kill matrix was to be, what it came to, and what its ledger says of it."""

import json
import signal
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from ichtune.search.ledger import FINISHED

VICTIMS = ("driver", "worker", "raylet", "whole node", "head")
#: What of a ledger's line a clock says.
_CLOCK = ("seconds", "images_per_second", "ichtune_version", "schema_version")
Event = dict[str, Any]


@dataclass(frozen=True)
class Plan:
    """One run: who is killed how, and at which parts of the undisturbed search's time.

    Attributes:
        number: of the run.
        victim: one of ``VICTIMS``.
        number_of_signal: what is sent.
        moments: of the kills, each counted from the start of the command that runs then.
        own_ray: the search starts a Ray of its own instead of joining the cluster.
        every_node: a kill of a node takes all nodes that run trials.
    """

    number: int
    victim: str
    number_of_signal: signal.Signals
    moments: tuple[float, ...]
    own_ray: bool
    every_node: bool

    @property
    def text(self) -> str:
        """The plan in a few words."""
        more = (" of its own Ray" if self.own_ray else "") + (", every worker node" if self.every_node else "")
        return f"{self.victim}{more}, {self.number_of_signal.name}"


@dataclass
class Outcome:
    """What a run came to.

    Attributes:
        plan: what was done to it.
        kills: when, and what the ledger told then.
        exits: the exit code of each command, the last one of the one that ended the search.
        seconds: that the run took, with what was started again.
        lost: a text for each thing that was lost.
        repeated: a text for each thing that was done again.
        differing: what differs from the undisturbed search, or hung.
        paid_twice: epochs that were begun again.
        same_ledger: whether the ledger is that of the undisturbed search, line by line.
        left_running: processes of a search's own Ray that were still there at the end.
    """

    plan: Plan
    kills: list[str] = field(default_factory=list)
    exits: list[int] = field(default_factory=list)
    seconds: float = 0.0
    lost: list[str] = field(default_factory=list)
    repeated: list[str] = field(default_factory=list)
    differing: list[str] = field(default_factory=list)
    paid_twice: int = 0
    same_ledger: bool = True
    left_running: int = 0

    @property
    def is_bad(self) -> bool:
        """Whether the promise was broken."""
        return bool(self.lost or self.repeated or self.differing)

    @property
    def line(self) -> str:
        """One line for a person."""
        wrong = "; ".join([*self.lost, *self.repeated, *self.differing]) or "as it should be"
        left = f", {self.left_running} processes left running" if self.left_running else ""
        ledger = "" if self.same_ledger else ", ledger differs"
        return (
            f"- run {self.plan.number}: {self.plan.text}, killed {', '.join(self.kills)}; exits {self.exits}, "
            f"{self.seconds:.0f} s, {self.paid_twice} epochs begun again{left}{ledger}: {wrong}"
        )


def events_of(text: str) -> list[Event]:
    """The whole lines of a ledger, or of a file like it."""
    return [json.loads(line) for line in text[: text.rfind("\n") + 1].splitlines()]


def lost(before: str, after: str) -> list[str]:
    """Say what a kill's ledger had that the last one has not: lines, and finished trials."""
    whole = before[: before.rfind("\n") + 1]
    gone = sorted(finished(events_of(before)) - finished(events_of(after)))
    return [
        *([] if after.startswith(whole) else ["lines of the ledger are gone"]),
        *(f"trial {n} is lost" for n in gone),
    ]


def finished(events: Sequence[Event]) -> set[int]:
    """Numbers of the trials that a ledger says have finished."""
    status = {event["trial"]: event.get("status") for event in events if event["event"] in ("start", "end", "go_on")}
    return {trial for trial, last in status.items() if last == FINISHED}


def trained_again(before: Sequence[Event], trained_after: Sequence[Event]) -> list[str]:
    """Say which epochs were begun after a kill although its ledger told them, or that their trial was finished."""
    told = {(event["trial"], event["epoch"]) for event in before if event["event"] == "epoch"}
    done = finished(before)
    begun = [(line["trial"], line["epoch"]) for line in trained_after if line["what"] == "begun"]
    return [
        f"epoch {epoch} of trial {trial} was trained again"
        for trial, epoch in begun
        if trial in done or (trial, epoch) in told
    ]


def told_twice(events: Sequence[Event]) -> list[str]:
    """Say which trials a ledger starts twice or goes on with after their end, and which epochs it tells twice."""
    wrong: list[str] = []
    seen: set[tuple[Any, ...]] = set()
    done: set[int] = set()
    for event in events[1:]:
        kind, trial = event["event"], event["trial"]
        key = (kind, trial, event.get("epoch"))
        if kind in ("start", "epoch") and key in seen:
            wrong.append(f"{kind} {event.get('epoch', '')} of trial {trial} is told twice")
        if trial in done:
            wrong.append(f"{kind} of trial {trial} after it had finished")
        seen.add(key)
        done |= {trial} if event.get("status") == FINISHED else set()
    return wrong


def timeless(events: Sequence[Event]) -> list[Event]:
    """Events without what a clock says."""
    return [{key: value for key, value in event.items() if key not in _CLOCK} for event in events]


def table_of(outcomes: Sequence[Outcome]) -> str:
    """A Markdown table: a row for each victim and signal."""
    rows = ["| victim | signal | runs | kills | lost | repeated | differing tables | epochs begun again |"]
    rows.append("|---|---|---|---|---|---|---|---|")
    cells = list(dict.fromkeys((o.plan.victim, o.plan.number_of_signal) for o in outcomes))
    for victim, number in [*sorted(cells, key=lambda cell: VICTIMS.index(cell[0])), ("all", None)]:
        of = [o for o in outcomes if number is None or (o.plan.victim, o.plan.number_of_signal) == (victim, number)]
        counts = (
            len(of),
            sum(len(o.kills) for o in of),
            sum(bool(o.lost) for o in of),
            sum(bool(o.repeated) for o in of),
            sum(bool(o.differing) for o in of),
            sum(o.paid_twice for o in of),
        )
        rows.append(f"| {victim} | {number.name if number else ''} | {' | '.join(map(str, counts))} |")
    return "\n".join(rows)
