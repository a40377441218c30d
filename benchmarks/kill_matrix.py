"""The kill matrix: a search is killed at random moments, and must end as the search that nobody killed.

Each run is the real command on a real Ray whose nodes are processes of their own, with real training on a phantom, one
trial at a time. A victim is killed at a moment drawn uniformly over the length of the undisturbed search, now and then
twice. A search that survives is left alone; one that ended is continued by the same command. Afterwards no finished
trial may be lost, none trained again, and the table must be that of the undisturbed search. Generated data.

``python -m benchmarks.kill_matrix --runs 40`` takes about an hour on two cores.
"""

import argparse
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import ray  # noqa: F401 - it brings psutil along

import psutil  # isort: skip

from benchmarks.kill_matrix_cluster import HANGS_S, send
from benchmarks.kill_matrix_outcome import (
    VICTIMS,
    Outcome,
    Plan,
    events_of,
    finished,
    lost,
    table_of,
    timeless,
    told_twice,
    trained_again,
)
from benchmarks.kill_matrix_place import Bench, Place, end_left_over

SIGNALS = (signal.SIGKILL, signal.SIGTERM)
#: Share of runs with a second kill, and of kills of nodes that take every worker node at once.
TWICE, EVERY_NODE = 0.25, 0.3
#: The part of the undisturbed search's time in which a kill may fall.
LAST_MOMENT = 0.97
LOOK_S = 0.1
#: Seconds between two kills of one command, so that the second does not hit what is dying.
APART_S = 3.0
#: How often a command is given again before it counts as one that cannot be continued.
MAX_ATTEMPTS = 6
#: Runs after which the undisturbed search is timed anew: other work on the machine comes and goes.
MEASURED_EVERY = 10


class Run:
    """One run of the matrix, under way.

    Args:
        bench: where it runs.
        plan: what is done to it.
        length_s: seconds that the undisturbed search took.
    """

    def __init__(self, bench: Bench, plan: Plan, length_s: float) -> None:
        self.bench, self.plan, self.length_s = bench, plan, length_s
        self.place = bench.place(f"run_{plan.number:03d}")
        self.outcome = Outcome(plan)
        self.moments = list(plan.moments)
        #: Ledger, and lines of what was trained, as each kill found them.
        self.before: list[tuple[str, int]] = []

    def carry_out(self) -> bool:
        """Search, kill and continue until the command says that the search is complete; whether anybody was killed."""
        start, code, attempt = time.monotonic(), -1, 0
        while code != 0:
            if attempt == MAX_ATTEMPTS:
                self.outcome.differing.append("the same command does not end the search")
                break
            if not self.plan.own_ray:
                self.bench.cluster.make_ready()
            search = self.bench.search(self.place, attempt, self.plan.own_ray)
            code = self._attend(search)
            if self.before and self.plan.victim == "head":
                self.bench.cluster.stop()  # what is left of it; the next one is new
            self.outcome.exits.append(code)
            attempt += 1
        self.outcome.seconds = time.monotonic() - start
        self.outcome.left_running = end_left_over(self.place)
        return bool(self.before)

    def _attend(self, search: "subprocess.Popen[bytes]") -> int:
        """Wait for a command, kill when it is time, and start nodes that died; its exit code."""
        start, next_s = time.monotonic(), 0.0
        while (code := search.poll()) is None:
            running_s = time.monotonic() - start
            is_time = bool(self.moments) and running_s >= max(next_s, self.moments[0] * self.length_s)
            if is_time and self._kill(search):
                next_s = running_s + APART_S
                told = events_of(self.before[-1][0])
                n_epochs, n_finished = sum(event["event"] == "epoch" for event in told), len(finished(told))
                self.outcome.kills.append(f"at {running_s:.1f} s ({n_epochs} epochs told, {n_finished} finished)")
                self.moments.pop(0)
            if self.before and self.plan.victim in ("raylet", "whole node"):
                self.bench.cluster.make_ready()
            if running_s > HANGS_S + self.length_s:
                self.outcome.differing.append(f"attempt {len(self.outcome.exits)} hung")
                search.kill()
            time.sleep(LOOK_S)
        return code

    def _kill(self, search: "subprocess.Popen[bytes]") -> bool:
        """Kill the victim, unless there is none yet."""
        own = [psutil.Process(search.pid)] if self.plan.victim == "driver" else None
        victims = self.bench.cluster.victims(self.plan.victim, self.plan.every_node) if own is None else own
        if not victims:
            return False
        self.before.append((self.place.ledger, len(self.place.trained)))
        send(self.plan.number_of_signal, victims)
        return True

    def judge(self, undisturbed: Place) -> Outcome:
        """Compare with the undisturbed search, and with what the kills found."""
        found, after, trained = self.outcome, events_of(self.place.ledger), self.place.trained
        for ledger, n_trained in self.before:
            found.lost += lost(ledger, self.place.ledger)
            found.repeated += trained_again(events_of(ledger), trained[n_trained:])
        found.repeated += told_twice(after)
        begun = [(line["trial"], line["epoch"]) for line in trained if line["what"] == "begun"]
        found.paid_twice = len(begun) - len(set(begun))
        if found.paid_twice > len(self.before):
            found.repeated.append(f"{found.paid_twice} epochs were begun again after {len(self.before)} kills")
        if found.exits[-1] == 0 and self.place.table(len(found.exits) - 1) != undisturbed.table(0):
            found.differing.append("the table differs")
        found.same_ledger = timeless(after) == timeless(events_of(undisturbed.ledger))
        return found


def plans(n_runs: int, seed: int, only: Sequence[str]) -> Iterator[Plan]:
    """Draw the runs: every victim with every signal in turn; every second driver has a Ray of its own."""
    rng = random.Random(seed)
    cells = [(victim, number) for victim in VICTIMS if victim in only for number in SIGNALS]
    for number in range(n_runs):
        victim, what = cells[number % len(cells)]
        moments = [rng.uniform(0.0, LAST_MOMENT) for _ in range(2)]
        twice, every = rng.random() < TWICE, rng.random() < EVERY_NODE
        yield Plan(
            number,
            victim,
            what,
            tuple(moments if twice else moments[:1]),
            own_ray=victim == "driver" and number // len(cells) % 2 == 1,
            every_node=victim in ("raylet", "whole node") and every,
        )


def matrix(folder: Path, chosen: Sequence[Plan], tell: Callable[[str], None]) -> list[Outcome]:
    """Carry out the runs; the folders of those that went wrong are kept."""
    bench = Bench(folder)
    try:
        whole: dict[bool, tuple[Place, float]] = {}
        outcomes: list[Outcome] = []
        for number, plan in enumerate(chosen):
            if number % MEASURED_EVERY == 0:
                whole.clear()
            if plan.own_ray not in whole:
                whole[plan.own_ray] = bench.undisturbed(plan.own_ray)
                _check_reference(whole[plan.own_ray][0])
                where = "with a Ray of its own" if plan.own_ray else "on the cluster"
                tell(f"- undisturbed {where}: {whole[plan.own_ray][1]:.0f} s")
            place, length_s = whole[plan.own_ray]
            run = Run(bench, plan, length_s)
            while not run.carry_out():  # it ended before its moment came: the machine was busier before
                whole[plan.own_ray] = place, run.outcome.seconds
                run = Run(bench, plan, run.outcome.seconds)
            outcomes.append(run.judge(place))
            tell(outcomes[-1].line)
            if not outcomes[-1].is_bad:
                shutil.rmtree(run.place.folder)
        return outcomes
    finally:
        bench.cluster.stop()


def _check_reference(place: Place) -> None:
    """A search in which nobody was stopped, or nobody promoted later, would prove too little."""
    events, stopped, promoted = events_of(place.ledger), set(), set()
    for event in events:
        if event.get("status") == "stopped":
            stopped.add(event["trial"])
        promoted |= {event["trial"]} & stopped if event["event"] == "go_on" else set()
    if not promoted or stopped == promoted:
        raise RuntimeError(
            f"trials {sorted(stopped)} were stopped and {sorted(promoted)} promoted; choose another seed"
        )


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--runs", type=int, default=40)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--only", action="append", choices=VICTIMS, help="this victim; may be given again")
    parser.add_argument("--out", type=Path, help="a Markdown file for the table and a line a run")
    options = parser.parse_args()
    lines: list[str] = []

    def tell(line: str) -> None:
        print(line, file=sys.stderr, flush=True)
        lines.append(line)
        if options.out:
            options.out.write_text("\n".join(lines) + "\n", encoding="utf-8")

    folder = Path(tempfile.mkdtemp(prefix="kill-matrix-")).resolve()
    outcomes = matrix(folder, list(plans(options.runs, options.seed, options.only or VICTIMS)), tell)
    tell(f"\n{table_of(outcomes)}")
    print(table_of(outcomes))
    if any(outcome.is_bad for outcome in outcomes):
        tell(f"\nwhat went wrong is kept in {folder}")
        return 1
    shutil.rmtree(folder)
    return 0


if __name__ == "__main__":
    sys.exit(main())
