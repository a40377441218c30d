"""IMPORTANCES: which searched parameters decide, by two methods of Optuna, each beside what chance gives.

What is compared. Values of trials may be compared only where they were judged after the same training (Li et al., A
system for massively parallel hyperparameter tuning, MLSys 2020: ASHA ranks within a rung). Two such values exist: the
loss at the end, which only finished trials have, and the score at a rung, which every trial has that came so far. Final
losses alone would be taken after selection: once stopping has removed the bad learning rates, those that are left
differ little, and the learning rate looks unimportant. So, unless almost every trial has finished, the score at the
rung that most trials have is used. Losses of the epochs themselves are never used: under a flat learning rate they rank
backwards. Nor are the losses that a sampler is told, which are brought to one scale by typical gains: a figure that
people read rests on what was measured.

Sources: Hutter, Hoos and Leyton-Brown, An efficient approach for assessing hyperparameter importance, ICML 2014
(fANOVA); Watanabe, Bansal and Hutter, PED-ANOVA, IJCAI 2023 (arXiv 2304.10255), and its extension to conditions, arXiv
2601.20800.
"""

import math
import warnings
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any

import numpy as np
import optuna
from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
    json_to_distribution,
)
from optuna.trial import FrozenTrial, TrialState, create_trial

from ichtune.errors import ConfigError, nearest
from ichtune.search.ledger import DUPLICATE, FINISHED, TrialRecord
from ichtune.search.stages import FOLD_RUNG

if TYPE_CHECKING:
    from optuna.importance import BaseImportanceEvaluator

#: Fewer comparable trials tell nothing: PED-ANOVA wants at least 5 trials in its best share, which must stay a small
#: one, and on made-up objectives where 3 parameters of 10 matter neither method finds them with fewer.
LEAST_TRIALS = 20
#: Trials that PED-ANOVA wants at least among the best ones, and the share of them where there are enough.
BEST_TRIALS, BEST_SHARE = 5, 0.1
#: Final losses are compared when at least this share of the trials with any value has one: hardly any selection.
MOSTLY_FINISHED = 0.9
#: fANOVA's marginals are computed in Python: of more trials so many, evenly spread over the search, are taken.
MOST_FANOVA_TRIALS = 80
_N_TREES = 16
#: Shuffles of the values; a share above the largest of its own comes about by chance one time in ten.
N_SHUFFLES = 9


@dataclass(frozen=True)
class Comparable:
    """Values of trials that may be compared, and what they are.

    Attributes:
        trials: those that have the value, in order.
        values: of each trial; lower is better.
        what: the value in words, to be shown with every figure that rests on it.
        n_without: trials with some value, but not this one.
    """

    trials: tuple[TrialRecord, ...]
    values: tuple[float, ...]
    what: str
    n_without: int


@dataclass(frozen=True)
class Importances:
    """How much each searched parameter decided, by one method.

    Attributes:
        method: key of ``IMPORTANCES``.
        shares: by flat name, largest first, 1 together; empty where there is nothing to tell.
        chance: by name, the largest share that the parameter gets in ``N_SHUFFLES`` shuffles of the values among the
            trials: one that does not exceed it cannot be told from one that does nothing.
        n_trials: trials that were looked at.
        what: the value that they were compared by.
        note: why there are no shares, or what was left out; empty where nothing is to be said.
    """

    method: str
    shares: Mapping[str, float]
    chance: Mapping[str, float]
    n_trials: int
    what: str
    note: str = ""

    def is_told(self, name: str) -> bool:
        """Say whether a parameter decided more than chance would make it seem."""
        return self.shares[name] > self.chance[name]


@dataclass(frozen=True)
class ImportanceMethod:
    """One way to measure importance.

    Attributes:
        meaning: what a share is, in words.
        evaluator: Optuna's, for so many trials and a seed.
        prepare: turns a trial's parameters and their distributions into those that Optuna is told.
        most_trials: more are thinned out.
    """

    meaning: str
    evaluator: Callable[[int], "BaseImportanceEvaluator"]
    prepare: "Callable[[Sequence[_Point]], list[_Point]]"
    most_trials: float


@dataclass(frozen=True)
class _Point:
    """Parameters of one trial, in Optuna's terms."""

    params: Mapping[str, Any]
    distributions: Mapping[str, BaseDistribution]


def comparable_values(records: Sequence[TrialRecord]) -> Comparable:
    """Choose the value by which most trials can be compared fairly; the module's head says why.

    Args:
        records: trials of one search, in any state. Duplicates of this search's own trials tell nothing new.
    """
    valued = [record for record in records if record.status != DUPLICATE and record.curve]
    final = {r.trial: r.last_loss for r in valued if r.status == FINISHED}
    by_rung: dict[int, dict[int, float | None]] = {}
    for record in valued:
        for rung, loss in record.rung_losses.items():
            by_rung.setdefault(rung, {})[record.trial] = loss
    told: Mapping[int, float | None] = final
    what = "loss at the end"
    if by_rung and len(final) < MOSTLY_FINISHED * len(valued):
        rung = max(by_rung, key=lambda number: (len(by_rung[number]), number))
        if len(by_rung[rung]) >= len(final):
            told, what = by_rung[rung], f"score at {rung_name(rung)}"
    kept = [(r, float(v)) for r in valued if (v := told.get(r.trial)) is not None and math.isfinite(v)]
    trials, values = zip(*kept, strict=True) if kept else ((), ())
    return Comparable(trials, values, what, len(valued) - len(kept))


def rung_name(rung: int) -> str:
    """Return how a rung is called: by its number, which is one of epochs, or by the fold that it ends."""
    return f"the rung of epoch {rung}" if rung < FOLD_RUNG else f"the end of fold {rung - FOLD_RUNG + 1}"


def parameter_importances(records: Sequence[TrialRecord], method: str = "fanova") -> Importances:
    """Measure which searched parameters decided.

    Args:
        records: trials of one search.
        method: key of ``IMPORTANCES``.

    Returns:
        Shares and what chance gives; no shares, but a note that says how many trials are needed, where there are fewer
        than ``LEAST_TRIALS``. The same records give the same figures.

    Raises:
        ConfigError: an unknown method.
    """
    if method not in IMPORTANCES:
        raise ConfigError(f"unknown measure of importance {method!r}. {nearest(method, IMPORTANCES)}")
    chosen, found = IMPORTANCES[method], comparable_values(records)
    n_trials = len(found.trials)
    if n_trials < LEAST_TRIALS:
        note = f"{n_trials} trials have a {found.what}; importances need at least {LEAST_TRIALS}"
        return Importances(method, {}, {}, n_trials, found.what, note)
    kept = _thinned(n_trials, chosen.most_trials)
    points = chosen.prepare([_point(found.trials[place]) for place in kept])
    ranks_N = _ranks(np.array(found.values)[kept])
    raw, chance = _measure(points, ranks_N, chosen)
    total = sum(raw.values())
    if total <= 0:
        note = "no parameter with more than one value makes a difference"
        return Importances(method, {}, {}, len(kept), found.what, note)
    ordered = sorted(raw.items(), key=lambda entry: (-entry[1], entry[0]))
    shares = {name: value / total for name, value in ordered}
    by_chance = {name: chance[name] / total for name in shares}
    return Importances(method, shares, by_chance, len(kept), found.what, _left_out(found))


def _left_out(found: Comparable) -> str:
    if not found.n_without:
        return ""
    note = f"left out: {found.n_without} without a {found.what}"
    if found.what == "loss at the end":
        note += ", so that what decided about stopping is understated"
    return note


def _thinned(n: int, most: float) -> list[int]:
    """Places of at most so many trials, evenly spread."""
    return list(range(n)) if n <= most else [round(place) for place in np.linspace(0, n - 1, int(most))]


def _ranks(values_N: np.ndarray) -> np.ndarray:
    """Ranks, 0 the lowest, equal ones alike: one diverged trial must not make up all variance."""
    return np.searchsorted(np.sort(values_N), values_N).astype(float)


def _measure(
    points: Sequence[_Point], ranks_N: np.ndarray, method: ImportanceMethod
) -> tuple[dict[str, float], dict[str, float]]:
    """Importances as Optuna tells them, and the largest of each parameter in all shuffles."""
    varied = _varied(points)
    if not varied:
        return {}, {}
    study = _study(points, varied, ranks_N)
    rng = np.random.default_rng(len(points))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # experimental; a target that is to be low; regimes of few trials
        real = _evaluate(study, ranks_N, method)
        shuffled = [_evaluate(study, rng.permutation(ranks_N), method) for _ in range(N_SHUFFLES)]
    return real, {name: max(one.get(name, 0.0) for one in shuffled) for name in real}


def _evaluate(study: optuna.Study, values_N: np.ndarray, method: ImportanceMethod) -> dict[str, float]:
    def target(trial: FrozenTrial) -> float:
        return float(values_N[trial.number])

    found = method.evaluator(len(values_N)).evaluate(study, target=target)
    return {name: float(value) for name, value in found.items() if math.isfinite(value)}


def _study(points: Sequence[_Point], names: set[str], values_N: np.ndarray) -> optuna.Study:
    """Tell Optuna every trial as complete with its comparable value."""
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    study = optuna.create_study(direction="minimize")
    for point, value in zip(points, values_N, strict=True):
        params = {name: told for name, told in point.params.items() if name in names}
        distributions = {name: point.distributions[name] for name in params}
        study.add_trial(
            create_trial(state=TrialState.COMPLETE, value=float(value), params=params, distributions=distributions)
        )
    return study


def _varied(points: Sequence[_Point]) -> set[str]:
    """Names of the parameters that have more than one value; the others cannot have made a difference."""
    values: dict[str, set[Any]] = {}
    for point in points:
        for name, value in point.params.items():
            values.setdefault(name, set()).add(value)
    return {name for name, seen in values.items() if len(seen) > 1}


def _point(record: TrialRecord) -> _Point:
    distributions = {name: _distribution(text) for name, text in record.optuna["distributions"].items()}
    return _Point(record.optuna["params"], distributions)


@cache
def _distribution(text: str) -> BaseDistribution:
    return json_to_distribution(text)


def _as_it_is(points: Sequence[_Point]) -> list[_Point]:
    return list(points)


def _on_plain_scales(points: Sequence[_Point]) -> list[_Point]:
    """Logarithms of what is searched on a logarithmic scale, and every number in every trial.

    fANOVA integrates over the plain scale, where nine tenths of a learning rate's range are its last decade, and takes
    parameters only that every trial has. A number that a condition leaves out is put in the middle of its range, where
    it is the same for all; a choice that a condition leaves out has no middle and is not assessed.
    """
    known: dict[str, BaseDistribution] = {}
    for point in points:
        known |= point.distributions
    counts = Counter(name for point in points for name in point.params)
    names = [n for n, d in known.items() if counts[n] == len(points) or not isinstance(d, CategoricalDistribution)]
    distributions = {name: _plain_scale(known[name]) for name in names}
    return [_Point({name: _plain_value(name, point, known[name]) for name in names}, distributions) for point in points]


def _plain_scale(distribution: BaseDistribution) -> BaseDistribution:
    if isinstance(distribution, FloatDistribution | IntDistribution) and distribution.log:
        return FloatDistribution(math.log(distribution.low), math.log(distribution.high))
    return distribution


def _plain_value(name: str, point: _Point, distribution: BaseDistribution) -> Any:
    value = point.params.get(name)
    if isinstance(distribution, CategoricalDistribution):
        return value
    if not isinstance(distribution, FloatDistribution | IntDistribution):
        raise TypeError(f"no such distribution: {distribution}")
    low, high = distribution.low, distribution.high
    if distribution.log:
        log_low, log_high = math.log(low), math.log(high)
        return (log_low + log_high) / 2 if value is None else min(max(math.log(value), log_low), log_high)
    if value is not None:
        return value
    step = distribution.step
    return (low + high) / 2 if not step else low + round((high - low) / step / 2) * step


def _fanova(n_trials: int) -> "BaseImportanceEvaluator":
    from optuna.importance import FanovaImportanceEvaluator

    return FanovaImportanceEvaluator(n_trees=_N_TREES, seed=0)


def _ped_anova(n_trials: int) -> "BaseImportanceEvaluator":
    from optuna.importance import PedAnovaImportanceEvaluator

    return PedAnovaImportanceEvaluator(target_quantile=max(BEST_SHARE, BEST_TRIALS / n_trials))


#: Measures of importance by name.
IMPORTANCES: dict[str, ImportanceMethod] = {
    "fanova": ImportanceMethod(
        "share of what single parameters explain of the order of all trials",
        _fanova,
        _on_plain_scales,
        MOST_FANOVA_TRIALS,
    ),
    "ped_anova": ImportanceMethod(
        "share in what sets the best trials apart from the others", _ped_anova, _as_it_is, math.inf
    ),
}
