"""What a search does next: a function of its ledger, its space and what runs now. Nothing here knows Ray.

A leg is the part of a trial from where it stands to the next rung at which it is stopped, or to its end.
"""

from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass, field
from enum import Enum

from optuna.trial import FrozenTrial

from ichtune.search.ledger import FINISHED, STOPPED, Ledger, TrialRecord
from ichtune.search.schedulers import Scheduler, n_failed_in_a_row, to_finish
from ichtune.search.searchers import propose_trial
from ichtune.search.stages import plan_trial
from ichtune.space import Space

#: Failed trials in a row after which it is the search that is wrong, and not the trials.
MAX_FAILED_IN_A_ROW = 5


class Nothing(Enum):
    """Why there is no leg to run: others still run and may make some, or the search has ended."""

    YET = "yet"
    LEFT = "left"


@dataclass(frozen=True)
class Budget:
    """What a search may spend; whichever comes first ends it. None is without limit.

    Attributes:
        n_trials: trials in all, over every run of the search.
        gpu_hours: GPU hours in all; a trial on a quarter of a GPU spends a quarter of its time.
        until_no_gain: trials in a row, proposed after the best one finished, that did not beat it.
    """

    n_trials: int
    gpu_hours: float | None = None
    until_no_gain: int | None = None

    def spent(self, records: Sequence[TrialRecord]) -> str:
        """Return why no further trial is proposed, empty while there is room."""
        if self.is_gpu_time_up(records):
            return f"{self.gpu_hours:g} GPU hours are spent"
        if len(records) >= self.n_trials:
            return f"{self.n_trials} trials were proposed"
        if self.until_no_gain is not None and n_without_gain(records) >= self.until_no_gain:
            return f"{self.until_no_gain} trials in a row brought no gain"
        return ""

    def is_gpu_time_up(self, records: Sequence[TrialRecord]) -> bool:
        """Return whether the GPU hours are spent, so that even running trials are left where they are."""
        return self.gpu_hours is not None and gpu_hours(records) >= self.gpu_hours


def gpu_hours(records: Sequence[TrialRecord]) -> float:
    """Return the GPU hours that trials have spent; those answered from a table spent none."""
    return sum(record.gpu_seconds for record in records) / 3600.0


def n_without_gain(records: Sequence[TrialRecord]) -> int:
    """Return how many trials have ended that were proposed after the best one had finished; 0 before one has.

    A trial that was promoted late counts from when it finished, and not from when it was proposed.
    """
    finished = [r for r in records if r.status == FINISHED and r.last_loss is not None]
    if not finished:
        return 0
    best = min(finished, key=lambda r: (r.last_loss, r.trial))
    return sum(r.ended and r.duplicate_of is None for r in records if r.trial >= best.n_before_end)


@dataclass
class Legs:
    """Decides which leg is run next, and writes each decision to the ledger before it is carried out.

    Attributes:
        space: what is searched.
        ledger: the search's memory.
        scheduler: who goes on after a rung.
        budget: what may be spent.
        told: trials of earlier searches, in this space's terms.
        answers: finished trials of other searches on the same data, by recipe_id, with the search's name.
        why_done: once nothing is left to do, why.
    """

    space: Space
    ledger: Ledger
    scheduler: Scheduler
    budget: Budget
    told: Sequence[FrozenTrial] = ()
    answers: Mapping[str, tuple[str, TrialRecord]] = field(default_factory=dict)
    why_done: str = ""

    def __post_init__(self) -> None:
        in_a_row = n_failed_in_a_row(self.ledger.records()) if self.ledger.path.is_file() else 0
        # a search that was broken is continued by somebody who mended it; one that was killed counts on
        self._n_failed_before = in_a_row if in_a_row >= MAX_FAILED_IN_A_ROW else 0
        self._last_promotable: tuple[int, list[int]] = -1, []

    def next(self, running: Set[int] = frozenset()) -> TrialRecord | Nothing:
        """Return the trial to be run next, up to the rung at which it is stopped.

        Trials that were interrupted come first, then promotions, then new proposals; in the end the best stopped trials
        are trained to their end until there are as many finished ones as will be cross-validated. Once the GPU hours
        are spent there is nothing, and what was interrupted stays so.

        Args:
            running: numbers of the trials that run now.
        """
        is_gpu_time_up = self.budget.is_gpu_time_up(self.ledger.records())
        interrupted = self._interrupted(running, may_go_on=not is_gpu_time_up)
        if interrupted is not None:
            return interrupted
        records = self.ledger.records()
        if is_gpu_time_up:
            self.why_done = self.budget.spent(records)
            return Nothing.YET if running else Nothing.LEFT
        if self.is_broken(records):
            self.why_done = f"{MAX_FAILED_IN_A_ROW} trials in a row failed"
            return Nothing.YET if running else Nothing.LEFT
        for trial in self._promotable(records):
            return self._promoted(trial)
        return self._proposed() or self._closing(running)

    def decide(self, record: TrialRecord) -> bool:
        """Return whether a trial that has just been judged goes on, and write so if it does."""
        goes_on = self.scheduler.goes_on(record, self.ledger.records())
        if goes_on:
            self.ledger.go_on(record.trial)
        return goes_on

    def is_broken(self, records: Sequence[TrialRecord]) -> bool:
        """Return whether so many trials of this run failed one after the other that it makes no sense to go on."""
        in_a_row = n_failed_in_a_row(records)
        before = self._n_failed_before if in_a_row >= self._n_failed_before else 0
        return in_a_row - before >= MAX_FAILED_IN_A_ROW

    def _interrupted(self, running: Set[int], *, may_go_on: bool) -> TrialRecord | None:
        """Return a trial that was left under way; what a kill left undecided or unwritten is made up for."""
        for record in self.ledger.records():
            if record.ended or record.trial in running:
                continue
            if not record.curve and self._answered(record):
                continue
            if len(record.curve) >= self._n_epochs(record):
                self.ledger.end(record.trial, FINISHED)
                continue
            if record.awaits_judgement and not (may_go_on and self.decide(record)):
                self.ledger.end(record.trial, STOPPED)
                continue
            if may_go_on:
                return record
        return None

    def _n_epochs(self, record: TrialRecord) -> int:
        rungs = self.scheduler.rungs(record.trial)
        return plan_trial(record.recipe, self.space.folds.search_on, self.scheduler.early_stop, rungs).n_epochs

    def _answered(self, record: TrialRecord) -> bool:
        """Answer a proposal from the table if its recipe was tried before, in this search or in another one."""
        recipe_id = record.recipe_id
        for earlier in self.ledger.records()[: record.trial]:
            if earlier.recipe_id == recipe_id:
                self.ledger.duplicate(record.trial, earlier.trial)
                return True
        if recipe_id in self.answers:
            search, other = self.answers[recipe_id]
            self.ledger.duplicate(record.trial, other.trial, search, other.curve)
            return True
        return False

    def _promotable(self, records: Sequence[TrialRecord]) -> list[int]:
        """Ask the scheduler who may go on, once for each state of the ledger: Tune asks for legs all the time."""
        n_lines = self.ledger.n_lines
        if self._last_promotable[0] != n_lines:
            self._last_promotable = n_lines, self.scheduler.promotable(records)
        return self._last_promotable[1]

    def _promoted(self, trial: int, *, to_end: bool = False) -> TrialRecord:
        self.ledger.go_on(trial, to_end=to_end)
        return next(record for record in self.ledger.records() if record.trial == trial)

    def _proposed(self) -> TrialRecord | None:
        """Propose trials until one has to be run; those that were run already are answered from the table."""
        while True:
            records = self.ledger.records()
            self.why_done = self.budget.spent(records)
            if self.why_done:
                return None
            record = propose_trial(self.space, records, len(records), self.told)
            if record is None:
                self.why_done = "every point of the grid was proposed"
                return None
            self.ledger.start(record)
            if not self._answered(record):
                return self.ledger.records()[-1]

    def _closing(self, running: Set[int]) -> TrialRecord | Nothing:
        records = self.ledger.records()
        n_finished = sum(record.status == FINISHED for record in records)
        for trial in to_finish(records, self.space.train.top - n_finished - len(running)):
            return self._promoted(trial, to_end=True)
        return Nothing.YET if running else Nothing.LEFT
