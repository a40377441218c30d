"""SEARCHERS: who proposes the next trial. Optuna samples; the ledger is its only memory.

The study that a sampler sees is rebuilt from the ledger at every proposal, and the sampler is seeded by the search's
seed and the trial's number. A proposal is therefore a function of the trials so far, and a search that was killed
proposes what it would have proposed.
"""

import math
import warnings
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import optuna
from optuna.distributions import distribution_to_json, json_to_distribution
from optuna.samplers import BaseSampler, RandomSampler, TPESampler
from optuna.trial import TrialState, create_trial
from ray.tune.search import Searcher

from ichtune.errors import ConfigError, nearest
from ichtune.search.ledger import FAILED, FINISHED, STOPPED, Ledger, TrialRecord
from ichtune.search.names import METRIC
from ichtune.space import Space, fixed_values, propose

#: Trials that TPE draws at random before it trusts what it has seen.
N_STARTUP_TRIALS = 8


def _tpe(seed: int) -> BaseSampler:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)  # group: spaces with conditions
        return TPESampler(
            seed=seed,
            n_startup_trials=N_STARTUP_TRIALS,
            n_ei_candidates=24,
            multivariate=True,
            group=True,
            constant_liar=True,
        )


def _random(seed: int) -> BaseSampler:
    return RandomSampler(seed=seed)


#: Samplers by the name that a search space gives as ``algorithm``.
SEARCHERS: dict[str, Callable[[int], BaseSampler]] = {"tpe": _tpe, "random": _random}


def find_searcher(name: str) -> Callable[[int], BaseSampler]:
    """Return a sampler's factory by name; ``ConfigError`` with the nearest one otherwise."""
    if name not in SEARCHERS:
        raise ConfigError(f"unknown search algorithm {name!r}. {nearest(name, SEARCHERS)}")
    return SEARCHERS[name]


class OptunaChooser:
    """Answers a search space's questions from an Optuna trial."""

    def __init__(self, trial: optuna.Trial) -> None:
        self._trial = trial

    def categorical(self, name: str, choices: Sequence[Any]) -> Any:
        """Choose one of ``choices``."""
        return self._trial.suggest_categorical(name, list(choices))

    def real(self, name: str, low: float, high: float, *, log: bool, step: float | None) -> float:
        """Choose a number."""
        return self._trial.suggest_float(name, low, high, log=log, step=step)

    def integer(self, name: str, low: int, high: int, *, log: bool, step: int) -> int:
        """Choose a whole number."""
        return self._trial.suggest_int(name, low, high, log=log, step=step)


def study_of(records: Sequence[TrialRecord]) -> optuna.Study:
    """Tell the truth about every trial to a new Optuna study in memory.

    A stopped trial is PRUNED with its intermediate values (it is not known how it would have ended), a failed one
    FAIL, one that still runs RUNNING, which lets the sampler keep away from it.
    """
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    study = optuna.create_study(direction="minimize")
    for record in records:
        study.add_trial(_frozen(record))
    return study


def _frozen(record: TrialRecord) -> optuna.trial.FrozenTrial:
    distributions = {k: json_to_distribution(v) for k, v in record.optuna["distributions"].items()}
    values = {step: loss for step, loss in enumerate(record.losses, start=1) if math.isfinite(loss)}
    state = TrialState.RUNNING
    if record.status == FINISHED:
        state = TrialState.COMPLETE
    elif record.status == STOPPED:
        state = TrialState.PRUNED
    elif record.status == FAILED:
        state = TrialState.FAIL
    return create_trial(
        state=state,
        value=record.last_loss if state is TrialState.COMPLETE else None,
        params=record.optuna["params"],
        distributions=distributions,
        intermediate_values=values,
    )


def propose_trial(space: Space, records: Sequence[TrialRecord], number: int) -> TrialRecord:
    """Propose trial ``number``, knowing ``records``; the same arguments give the same proposal.

    Args:
        space: the search space; its ``start_with`` entries are the first trials.
        records: every trial before it.
        number: the trial's number, from 0.
    """
    study = study_of(records)
    entropy = np.random.SeedSequence([space.search.seed, number])
    study.sampler = find_searcher(space.search.algorithm)(int(entropy.generate_state(1)[0]))
    if number < len(space.start_with):
        study.enqueue_trial(fixed_values(space, space.start_with[number]))
    trial = study.ask()
    proposal = propose(space, OptunaChooser(trial))
    told = {
        "params": dict(trial.params),
        "distributions": {name: distribution_to_json(d) for name, d in trial.distributions.items()},
    }
    return TrialRecord(number, dict(proposal.parameters), told, proposal.recipe)


class LedgerSearcher(Searcher):
    """Feeds Ray Tune: trials that were interrupted first, then new proposals, until ``n_trials`` are started.

    Args:
        space: what to search.
        ledger: the search's memory; proposals are written to it before they run.
        n_trials: how many trials the search has in all.
        config_of: turns a record into the configuration that a trial receives.
    """

    def __init__(
        self, space: Space, ledger: Ledger, n_trials: int, config_of: Callable[[TrialRecord], dict[str, Any]]
    ) -> None:
        super().__init__(metric=METRIC, mode="min")
        self._space = space
        self._ledger = ledger
        self._n_trials = n_trials
        self._config_of = config_of
        self._interrupted = [record.trial for record in ledger.records() if not record.ended]

    def suggest(self, trial_id: str) -> dict[str, Any] | str:  # type: ignore[override]
        """Return the next configuration, or that there is none."""
        records = self._ledger.records()
        if self._interrupted:
            number = self._interrupted.pop(0)
            return self._config_of(next(record for record in records if record.trial == number))
        number = len(records)
        if number >= self._n_trials:
            return str(Searcher.FINISHED)
        record = propose_trial(self._space, records, number)
        self._ledger.start(record)
        return self._config_of(record)

    def on_trial_complete(self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False) -> None:
        """Nothing to do: the next proposal reads the ledger, where the end of the trial is written."""

    def save(self, checkpoint_path: str) -> None:
        """Nothing to do: the ledger is the state."""

    def restore(self, checkpoint_path: str) -> None:
        """Nothing to do: the ledger is the state."""
