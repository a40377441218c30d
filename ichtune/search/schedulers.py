"""SCHEDULERS: who goes on after a rung. Every decision is a pure function of what the ledger tells.

A trial that is not promoted is stopped at its rung and stays in the running: its checkpoint is kept, and when more
trials have been judged it may be promoted after all. Ray's own schedulers keep their rungs in memory, forget them with
the driver, and run the first trials to the end for want of others; these do neither.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from statistics import median

from ichtune.errors import ConfigError, nearest
from ichtune.search.ledger import FAILED, STOPPED, TrialRecord
from ichtune.search.stages import FOLD_RUNG
from ichtune.space import EarlyStop

#: Other trials that median stopping wants to see at a rung before it stops any.
N_BEFORE_MEDIAN = 3


class Scheduler(ABC):
    """Decides which trials go on.

    Args:
        early_stop: the search space's setting; ``max`` is known.
    """

    def __init__(self, early_stop: EarlyStop) -> None:
        self.early_stop = early_stop

    @abstractmethod
    def rungs(self, trial: int) -> tuple[int, ...]:
        """Return the rungs of a trial, rising, in epochs of the longest trial and before its end."""

    @abstractmethod
    def promoted(self, records: Sequence[TrialRecord], rung: int) -> set[int]:
        """Return the numbers of the trials that may go on beyond a rung."""

    def goes_on(self, record: TrialRecord, records: Sequence[TrialRecord]) -> bool:
        """Return whether a trial may go on beyond the rung that it has just reached."""
        return record.to_end or record.trial in self.promoted(records, last_rung(record))

    def promotable(self, records: Sequence[TrialRecord]) -> list[int]:
        """Return the stopped trials that may go on, those at the highest rung first, best first."""
        waiting: dict[int, list[TrialRecord]] = {}
        for record in records:
            if record.status == STOPPED and record.rung_losses:
                waiting.setdefault(last_rung(record), []).append(record)
        found = []
        for rung in sorted(waiting, reverse=True):
            promoted = self.promoted(records, rung)
            best = sorted(waiting[rung], key=lambda r: (r.rung_losses[last_rung(r)], r.trial))
            found += [record.trial for record in best if record.trial in promoted]
        return found


def last_rung(record: TrialRecord) -> int:
    """Return the number of the highest rung that a trial has reached; 0 before the first."""
    return max(record.rung_losses, default=0)


def at_rung(records: Sequence[TrialRecord], rung: int) -> dict[int, float]:
    """Return the loss of every trial that has reached a rung, by number.

    What another search answered was judged by that search's rungs, and does not count here.
    """
    return {r.trial: r.rung_losses[rung] for r in records if r.duplicate_of is None and rung in r.rung_losses}


def _best(losses: Mapping[int, float], factor: int) -> set[int]:
    """Return the best ``1 / factor`` of the trials, rounded down; the earlier of two equal ones."""
    ranked = sorted(losses, key=lambda trial: (losses[trial], trial))
    return set(ranked[: len(ranked) // factor])


class NoStop(Scheduler):
    """Every trial is trained to its end; with several folds on all of them."""

    def rungs(self, trial: int) -> tuple[int, ...]:
        """Return none."""
        return ()

    def promoted(self, records: Sequence[TrialRecord], rung: int) -> set[int]:
        """Return every trial."""
        return {record.trial for record in records}


class Asha(Scheduler):
    """Asynchronous successive halving: at each rung the best ``1 / factor`` of all that have reached it are promoted.

    Source: Li et al., A System for Massively Parallel Hyperparameter Tuning, MLSys 2020, algorithm 2 (which promotes;
    many libraries implement a variant that stops, and lets the first trials through whatever they are worth).
    """

    def rungs(self, trial: int) -> tuple[int, ...]:
        """Return grace, grace x factor, grace x factor^2 ..."""
        return geometric_rungs(self.early_stop, 0)

    def promoted(self, records: Sequence[TrialRecord], rung: int) -> set[int]:
        """Return the best trials at the rung."""
        return _best(at_rung(records, rung), self.early_stop.factor)


class HyperBand(Asha):
    """Several brackets of successive halving, each with a later first rung; trials take turns between them.

    It hedges against first rungs that mislead. Trials are compared within their bracket only.

    Source: Li et al., Hyperband, JMLR 18 (2018); asynchronous as in its sequel.
    """

    def n_brackets(self) -> int:
        """Return how many brackets there are; the last one stops nobody."""
        return len(geometric_rungs(self.early_stop, 0)) + 1

    def rungs(self, trial: int) -> tuple[int, ...]:
        """Return the rungs of the trial's bracket."""
        return geometric_rungs(self.early_stop, trial % self.n_brackets())

    def promoted(self, records: Sequence[TrialRecord], rung: int) -> set[int]:
        """Return the best trials of each bracket at the rung; between folds the best of all."""
        if rung >= FOLD_RUNG:
            return super().promoted(records, rung)
        brackets = [[r for r in records if r.trial % self.n_brackets() == b] for b in range(self.n_brackets())]
        return set().union(*(super(HyperBand, self).promoted(bracket, rung) for bracket in brackets))


class MedianStopping(Scheduler):
    """A trial goes on unless its loss at a rung is above the median of the others that have reached it.

    Rungs are those of successive halving, and trials are compared by what they scored at the same rung, so that a
    truthful rung is used as truthfully as it can be; the original compares with running averages of whole curves.

    Source: Golovin et al., Google Vizier, KDD 2017, section 3.2.2.
    """

    def rungs(self, trial: int) -> tuple[int, ...]:
        """Return grace, grace x factor, grace x factor^2 ..."""
        return geometric_rungs(self.early_stop, 0)

    def promoted(self, records: Sequence[TrialRecord], rung: int) -> set[int]:
        """Return the trials that are no worse than the median of the others; all where there are few."""
        losses = at_rung(records, rung)
        return {
            trial
            for trial, loss in losses.items()
            if len(losses) <= N_BEFORE_MEDIAN or loss <= median(other for t, other in losses.items() if t != trial)
        }


def geometric_rungs(early_stop: EarlyStop, skip: int) -> tuple[int, ...]:
    """Return ``grace x factor^k`` for k from ``skip`` on, before the longest trial's end."""
    if early_stop.max is None:
        raise ConfigError("early_stop needs max, the epochs of the longest trial; got none")
    rungs, rung = [], early_stop.grace * early_stop.factor**skip
    while rung < early_stop.max:
        rungs.append(rung)
        rung *= early_stop.factor
    return tuple(rungs)


#: Schedulers by the name that a search space gives as ``early_stop: {type: ...}``.
SCHEDULERS: dict[str, Callable[[EarlyStop], Scheduler]] = {
    "asha": Asha,
    "hyperband": HyperBand,
    "median": MedianStopping,
    "none": NoStop,
}


def find_scheduler(name: str) -> Callable[[EarlyStop], Scheduler]:
    """Return a scheduler by name; ``ConfigError`` with the nearest one otherwise."""
    if name not in SCHEDULERS:
        raise ConfigError(f"unknown early_stop type {name!r}. {nearest(name, SCHEDULERS)}")
    return SCHEDULERS[name]


def create_scheduler(early_stop: EarlyStop) -> Scheduler:
    """Build the scheduler that a search space names."""
    return find_scheduler(early_stop.type)(early_stop)


def to_finish(records: Sequence[TrialRecord], n: int) -> list[int]:
    """Return up to ``n`` stopped trials that deserve to be trained to their end: from the highest rung, best first."""
    stopped = [r for r in records if r.status == STOPPED and r.rung_losses]
    ranked = sorted(stopped, key=lambda r: (-last_rung(r), r.rung_losses[last_rung(r)], r.trial))
    return [record.trial for record in ranked[: max(0, n)]]


def n_failed_in_a_row(records: Sequence[TrialRecord]) -> int:
    """Return how many of the latest trials failed, one after the other, by number; open ones are passed over."""
    count = 0
    for record in reversed([r for r in records if r.ended and r.duplicate_of is None]):
        if record.status != FAILED:
            break
        count += 1
    return count
