"""SEARCHERS: who proposes the next trial. Optuna samples; the ledger is its only memory.

The study that a sampler sees is built from the ledger, and the sampler is seeded by the search's seed, the trial's
number and the attempt. A proposal is therefore a function of the trials so far, and a search that was killed proposes
what it would have proposed.
"""

import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import count, islice, repeat

import numpy as np
import optuna
from optuna.samplers import BaseSampler, GPSampler, RandomSampler, TPESampler
from optuna.trial import FrozenTrial

from ichtune.errors import ConfigError, nearest
from ichtune.search.comparable import comparable_losses, is_repeated
from ichtune.search.ledger import TrialRecord
from ichtune.search.optuna_terms import OptunaChooser, SampledChooser, frozen, sampled, start_of
from ichtune.search.point_sets import grid_point, quasi_random_point
from ichtune.space import Proposal, Space, fixed_values, propose

#: Trials at the least that a sampler draws at random before it trusts what it has seen.
MIN_STARTUP_TRIALS = 4
#: Draws before a proposal that was tried already, or that breaks a constraint, is taken as it is, or is an error.
N_ATTEMPTS, N_FEASIBLE_ATTEMPTS = 16, 1000


def study_of(records: Sequence[TrialRecord], told: Sequence[FrozenTrial] = ()) -> optuna.Study:
    """Tell a new Optuna study in memory about every trial that a sampler can learn from.

    A trial that was judged at a rung or finished is told with its ``comparable_losses``, a failed one as FAIL, one that
    runs and was not judged yet as RUNNING, which lets the sampler keep away from it. What repeats a trial of this
    search is not told again.

    Args:
        records: trials of this search.
        told: trials of earlier searches, in this one's terms.
    """
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    study = optuna.create_study(direction="minimize")
    losses = comparable_losses(records)
    study.add_trials([*map(sampled, told), *(frozen(r, losses.get(r.trial)) for r in records if not is_repeated(r))])
    return study


@dataclass(frozen=True)
class Question:
    """What a searcher is asked: points of the space for trial ``number``, until one is taken.

    Attributes:
        space: the search space.
        records: every trial before.
        number: the trial's number, from 0.
        told: trials of earlier searches, in Optuna's terms.
    """

    space: Space
    records: Sequence[TrialRecord]
    number: int
    told: Sequence[FrozenTrial] = field(default=(), repr=False)

    def seed(self, attempt: int) -> int:
        """Return a seed for one draw and no other."""
        entropy = [self.space.search.seed, self.number] + ([attempt] if attempt else [])
        return int(np.random.SeedSequence(entropy).generate_state(1)[0])


#: Answers a question with Optuna trials that give the space's values; ends where there are no points left.
Searcher = Callable[[Question], Iterator[optuna.Trial | optuna.trial.FixedTrial]]


def _sampled(sampler: Callable[[int, int], BaseSampler]) -> Searcher:
    """Return the searcher that asks one of Optuna's samplers.

    A draw that is not taken stays with the study as a trial that runs, so that the next one keeps away from it.
    """

    def ask(question: Question) -> Iterator[optuna.Trial]:
        study, starts = study_of(question.records, question.told), question.space.start_with
        if question.number < len(starts):
            study.enqueue_trial(start_of(question.space, fixed_values(question.space, starts[question.number])))
        for attempt in count():
            study.sampler = sampler(question.seed(attempt), n_startup_trials(question.space))
            yield study.ask()

    return ask


def n_startup_trials(space: Space) -> int:
    """Return how many trials are drawn at random first: as many as parameters are searched, and at least four."""
    return max(MIN_STARTUP_TRIALS, len(space.searched))


def _quasi_random(question: Question) -> Iterator[optuna.trial.FixedTrial]:
    space, number = question.space, question.number
    start = fixed_values(space, space.start_with[number]) if number < len(space.start_with) else None
    for attempt in count():
        point = quasi_random_point(space, number + N_ATTEMPTS * attempt, space.search.seed, start)
        yield optuna.trial.FixedTrial(point)


def _grid(question: Question) -> Iterator[optuna.trial.FixedTrial]:
    n_starts = len(question.space.start_with)
    if question.number < n_starts:
        yield from _quasi_random(question)
        return
    # one that was tried as a start is no reason to leave the order, in which every point is found by its number alone
    point = grid_point(question.space, question.number - n_starts)
    if point is not None:
        yield from repeat(optuna.trial.FixedTrial(point))


def _tpe(seed: int, n_startup: int) -> BaseSampler:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)  # group: spaces with conditions
        return TPESampler(
            seed=seed,
            n_startup_trials=n_startup,
            n_ei_candidates=24,
            multivariate=True,
            group=True,
            constant_liar=True,
        )


def _gp(seed: int, n_startup: int) -> BaseSampler:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        return GPSampler(seed=seed, n_startup_trials=n_startup, deterministic_objective=False)


def _random(seed: int, n_startup: int) -> BaseSampler:
    return RandomSampler(seed=seed)


#: Searchers by the name that a search space gives as ``algorithm``.
SEARCHERS: dict[str, Searcher] = {
    "tpe": _sampled(_tpe),
    "gp": _sampled(_gp),
    "random": _sampled(_random),
    "quasi_random": _quasi_random,
    "grid": _grid,
}


def find_searcher(name: str) -> Searcher:
    """Return a searcher by name; ``ConfigError`` with the nearest one otherwise."""
    if name not in SEARCHERS:
        raise ConfigError(f"unknown search algorithm {name!r}. {nearest(name, SEARCHERS)}")
    return SEARCHERS[name]


def propose_trial(
    space: Space, records: Sequence[TrialRecord], number: int, told: Sequence[FrozenTrial] = ()
) -> TrialRecord | None:
    """Propose trial ``number``, knowing ``records``; the same arguments give the same proposal.

    Draws that break a constraint are drawn again; so are, a few times, draws that were tried already. If all of these
    were, the record says of which trial it is a duplicate.

    Args:
        space: the search space; its ``start_with`` entries are the first trials.
        records: every trial before it.
        number: the trial's number, from 0.
        told: trials of earlier searches, in this space's terms.

    Returns:
        The proposal; None when the searcher has no point left.

    Raises:
        ConfigError: next to no point of the space satisfies its constraints.
    """
    searcher, tried = find_searcher(space.search.algorithm), {r.recipe_id: r.trial for r in reversed(records)}
    n_tried, broken, repeated = 0, "", None
    draws = searcher(Question(space, records, number, told))
    for trial in islice(draws, N_FEASIBLE_ATTEMPTS):
        chooser = SampledChooser(trial) if isinstance(trial, optuna.Trial) else OptunaChooser(trial)
        proposal, why = _proposal(space, chooser)
        if proposal is None:
            broken = why
            continue
        record = TrialRecord(number, dict(proposal.parameters), chooser.told(), proposal.recipe)
        record.duplicate_of = tried.get(record.recipe_id)
        n_tried += 1
        if record.duplicate_of is None or n_tried >= N_ATTEMPTS:
            return record
        repeated = record
    if repeated is not None or not broken:
        return repeated
    raise ConfigError(f"{N_FEASIBLE_ATTEMPTS} draws broke a constraint of the space, the last one: {broken}; loosen it")


def _proposal(space: Space, chooser: OptunaChooser) -> tuple[Proposal | None, str]:
    """Return what a trial proposes, or None and why it cannot be: a constraint, or values that exclude each other."""
    try:
        proposal = propose(space, chooser)
    except ConfigError as error:
        return None, str(error)
    return (None, proposal.violated) if proposal.violated else (proposal, "")
