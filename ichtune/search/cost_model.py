"""What an epoch of a recipe costs, learnt from the epochs in the ledger; time left, and what stopping saved.

Dimension key: R recipes, F features.
"""

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from ichtune.search.cost_terms import CostTerms, Effect, terms_of
from ichtune.search.ledger import FINISHED, STOPPED, TrialRecord
from ichtune.search.schedulers import to_finish
from ichtune.second_level_recipe import AnyRecipe

#: A first epoch that took more than this multiple of the later ones' median was warming up, and is left out.
WARM_UP_FACTOR = 1.25
#: A recipe that was never seen is not said to cost more than the dearest one seen times this, nor less than the
#: cheapest one divided by it.
REACH = 4.0
#: Degrees of freedom of the noise: one trial on a busy machine must not bend the model.
_NOISE_DOF = 4.0
_N_ROUNDS = 12
#: Least and largest standard deviation of the noise of log seconds.
_LEAST_NOISE, _LARGEST_NOISE = 0.05, 0.7
#: An unknown intercept: the median of what was seen, within a factor of e^3.
_INTERCEPT_SD = 3.0


@dataclass(frozen=True)
class CostModel:
    """Seconds an epoch by recipe.

    A recipe of which epochs were seen costs the median of them. Another one is predicted: a linear model of log seconds
    on what makes an epoch dear (architecture, image size, channels, sampling, augmentation, views), with a prior on
    each effect, so that a handful of trials gives a sane answer and many give their own, and with noise of heavy tails,
    so that one trial on a busy machine changes little. Predictions stay within ``REACH`` times what was seen. Learning
    rate, schedule and the like cost nothing and are not looked at.

    Attributes:
        seen: seconds an epoch of each recipe that was trained.
        typical_error: median relative error of predicting a recipe from all others, 0.1 for 10 %; None with fewer than
            three recipes.

    Example:
        >>> from ichtune.recipe import Recipe
        >>> from ichtune.search.ledger import TrialRecord
        >>> curve = [{"epoch": 1, "seconds": 9.0}, {"epoch": 2, "seconds": 2.0}, {"epoch": 3, "seconds": 2.0}]
        >>> model = CostModel.fit([TrialRecord(0, {}, {}, Recipe(image_px=64), curve=curve)])
        >>> model.seconds_per_epoch(Recipe(image_px=64))  # the first epoch warmed up
        2.0
        >>> 4.0 < model.seconds_per_epoch(Recipe(image_px=128)) < 8.0
        True
    """

    seen: Mapping[AnyRecipe, float] = field(default_factory=dict)
    typical_error: float | None = None
    _effects: Mapping[str, float] = field(default_factory=dict, repr=False)
    _centres: Mapping[str, float] = field(default_factory=dict, repr=False)

    @classmethod
    def fit(cls, records: Sequence[TrialRecord]) -> "CostModel":
        """Learn from every epoch of the records; duplicates, which cost nothing, are left out.

        Args:
            records: trials of recipes of one level, as those of one search are, in any state.
        """
        by_recipe = _epochs_by_recipe(records)
        if not by_recipe:
            return cls()
        seen = {recipe: statistics.median(seconds) for recipe, seconds in by_recipe.items()}
        terms = terms_of(next(iter(seen)))
        features = [terms.features(recipe) for recipe in seen]
        centres = {name: statistics.median(one[name] for one in features) for name in terms.numbers}
        names = ["", *terms.numbers, *sorted({name for one in features for name in one if name not in terms.numbers})]
        X_RF = np.array([_row(one, names, centres) for one in features])
        y_R = np.log(list(seen.values()))
        base = float(np.median(y_R))
        weight_R = np.array([len(seconds) / (len(seconds) + 1) for seconds in by_recipe.values()])
        effect_F, error_R = _regress(X_RF, y_R - base, weight_R, _priors(names, terms))
        effect_F[0] += base
        error = None if len(seen) < 3 else float(np.expm1(np.median(np.abs(error_R))))
        return cls(seen, error, dict(zip(names, map(float, effect_F), strict=True)), centres)

    def seconds_per_epoch(self, recipe: AnyRecipe) -> float | None:
        """Return what an epoch of training and validation takes, in seconds; None before any epoch was seen."""
        if not self.seen:
            return None
        if recipe in self.seen:
            return self.seen[recipe]
        names = list(self._effects)
        row = _row(terms_of(recipe).features(recipe), names, self._centres)
        log_s = sum(value * self._effects[name] for name, value in zip(names, row, strict=True))
        low, high = min(self.seen.values()) / REACH, max(self.seen.values()) * REACH
        return min(max(math.exp(min(log_s, 700.0)), low), high)

    def seconds_left(self, recipe: AnyRecipe, n_epochs: float) -> float | None:
        """Return what so many further epochs of a recipe take; None before any epoch was seen."""
        each = self.seconds_per_epoch(recipe)
        return None if each is None else each * max(0.0, n_epochs)

    def seconds_of(self, record: TrialRecord) -> float:
        """Return what a trial has cost, in seconds, with the judging of its rungs; 0 for a duplicate.

        Epochs that do not say their seconds are taken for as long as the model says.
        """
        if record.duplicate_of is not None:
            return 0.0
        each = self.seconds_per_epoch(record.recipe) or 0.0
        return sum(told if (told := _seconds(epoch)) else each * _cost(epoch) for epoch in record.curve)


@dataclass(frozen=True)
class Savings:
    """What stopping trials early came to.

    Attributes:
        n_trials: trials that were stopped.
        n_epochs: whole epochs that these would have cost beyond those that they did cost.
        seconds: what these would have taken; None where no epoch was seen.
        judged_epochs: whole epochs that the trials which were not stopped cost beyond their recipes' own: the price of
            judging them on the way.
        judged_seconds: what these took.
    """

    n_trials: int
    n_epochs: float
    seconds: float | None
    judged_epochs: float
    judged_seconds: float


def seconds_of(record: TrialRecord) -> float:
    """Return what a trial has cost, in seconds, with the judging of its rungs; 0 for a duplicate."""
    return CostModel.fit([record]).seconds_of(record)


def n_folds_of(records: Sequence[TrialRecord]) -> int:
    """Return on how many folds the trials of a search are judged, as far as one has come."""
    return max([1, *(len({epoch.get("fold") for epoch in record.curve}) for record in records)])


def n_epochs_spared(record: TrialRecord, n_folds: int = 1) -> float:
    """Return how many epochs, branches included, a trial cost less than it would have without any judging.

    Below 0 for one that was trained to the end and judged on the way; 0 for a duplicate and for one that has no end.
    """
    if record.duplicate_of is not None or record.status not in (STOPPED, FINISHED):
        return 0.0
    return n_folds * record.recipe.n_epochs - record.n_epochs_spent


def saved_by_stopping(records: Sequence[TrialRecord], model: CostModel | None = None) -> Savings:
    """Add up what the stopped trials of a search would have cost, had they been trained to the end.

    Args:
        records: trials of one search.
        model: what an epoch costs; learnt from the records by default.
    """
    model = model or CostModel.fit(records)
    n_folds = n_folds_of(records)
    stopped = [r for r in records if r.status == STOPPED and r.duplicate_of is None]
    spared = [(r.recipe, n_epochs_spared(r, n_folds)) for r in stopped]
    judged = [(r.recipe, max(0.0, -n_epochs_spared(r, n_folds))) for r in records if r.status == FINISHED]
    return Savings(
        n_trials=len(stopped),
        n_epochs=sum(n for _, n in spared),
        seconds=_seconds_of_all(model, spared) if model.seen else None,
        judged_epochs=sum(n for _, n in judged),
        judged_seconds=_seconds_of_all(model, judged),
    )


def _seconds_of_all(model: CostModel, epochs: Sequence[tuple[AnyRecipe, float]]) -> float:
    return sum((model.seconds_per_epoch(recipe) or 0.0) * n for recipe, n in epochs)


def time_left_s(
    records: Sequence[TrialRecord],
    n_trials: int,
    n_concurrent: int,
    expected_epochs_per_trial: float | None = None,
    top: int = 0,
) -> float | None:
    """Return how long a search still takes, in seconds of the clock.

    A trial that runs goes on for as long as those did that had come as far; a trial that is not proposed yet takes what
    the mean one does. The work is shared by so many trials at a time, and the longest one is never cut. Of the stopped
    trials those are foreseen that are trained to their end when all have been proposed; that others may be promoted
    before is not.

    Args:
        records: every trial so far.
        n_trials: trials that the search has in all.
        n_concurrent: trials that run at a time.
        expected_epochs_per_trial: whole epochs that a new trial is trained for, branches included; by default the mean
            of the trials that have ended, and before one has the recipe's own number.
        top: trials that must have finished in the end; for want of them the best stopped ones are trained on.

    Returns:
        Seconds; None before any epoch was seen, 0 when there is nothing left to do.
    """
    running = [record for record in records if not record.ended]
    n_new = max(0, n_trials - len(records))
    closing = _closing(records, n_new, top)
    if not running and not n_new and not closing:
        return 0.0
    model = CostModel.fit(records)
    if not model.seen:
        return None
    ended = [record.n_epochs_spent for record in records if record.ended]
    whole = _whole_runs(records)
    work = [
        (model.seconds_per_epoch(r.recipe) or 0.0) * _epochs_to_come(r, ended, whole, expected_epochs_per_trial)
        for r in [*running, *closing]
    ]
    new = _seconds_of_new(records, model, whole, expected_epochs_per_trial)
    longest = max([*work, *([new] if n_new else [])])
    return max((sum(work) + n_new * new) / max(1, n_concurrent), longest)


def _seconds_of_new(
    records: Sequence[TrialRecord], model: CostModel, whole: float, expected_epochs: float | None
) -> float:
    """What a trial that is not proposed yet takes: the mean of the ended ones, before one has of all to their ends.

    Seconds are averaged, not epochs: an epoch of one model may be the whole run of another.
    """
    ended = [record for record in records if record.ended]
    if expected_epochs is not None:
        work = [(record.recipe, expected_epochs) for record in records]
    elif ended:
        work = [(record.recipe, record.n_epochs_spent) for record in ended]
    else:
        work = [(record.recipe, whole * record.recipe.n_epochs) for record in records]
    return _seconds_of_all(model, work) / len(work)


def _closing(records: Sequence[TrialRecord], n_new: int, top: int) -> list[TrialRecord]:
    """Return the stopped trials that are trained on in the end, if as many of the others finish as did so far."""
    ended = [record for record in records if record.ended and record.duplicate_of is None]
    n_finished = sum(record.status == FINISHED for record in records)
    share = sum(record.status == FINISHED for record in ended) / len(ended) if ended else 1.0
    n_running = sum(not record.ended and not record.to_end for record in records)
    n_to_end = sum(not record.ended and record.to_end for record in records)
    best = set(to_finish(records, top - n_finished - n_to_end - round(share * (n_running + n_new))))
    return [replace(record, to_end=True) for record in records if record.trial in best]


def _whole_runs(records: Sequence[TrialRecord]) -> float:
    """What a trial costs that nothing stops, in lengths of its recipe: more than 1 with several folds, or judging."""
    costs = [r.n_epochs_spent / r.recipe.n_epochs for r in records if r.status == FINISHED and r.duplicate_of is None]
    return statistics.median(costs) if costs else float(n_folds_of(records))


def _epochs_to_come(record: TrialRecord, ended: Sequence[float], whole: float, expected: float | None) -> float:
    """Mean residual life: what trials that came as far went on for; at most the rest of the whole trial."""
    spent = record.n_epochs_spent
    rest = max(0.0, whole * record.recipe.n_epochs - spent)
    if record.to_end:
        return rest
    further = [n - spent for n in ended if n > spent]
    if expected is not None and spent < expected:
        return min(expected - spent, rest)
    return min(statistics.fmean(further), rest) if further else rest


def _epochs_by_recipe(records: Sequence[TrialRecord]) -> dict[AnyRecipe, list[float]]:
    """Seconds of the epochs of each recipe, warm-up left out.

    Where nothing but a first epoch was seen, it is divided by what first epochs typically take beside later ones.
    """
    curves = [
        (record.recipe, seconds)
        for record in records
        if record.duplicate_of is None and (seconds := _seconds_a_whole_epoch(record))
    ]
    firsts = [seconds[0] / statistics.median(seconds[1:]) for _, seconds in curves if len(seconds) > 2]
    warm_up = max(1.0, statistics.median(firsts)) if firsts else 1.0
    by_recipe: dict[AnyRecipe, list[float]] = {}
    for recipe, seconds in curves:
        if len(seconds) == 1:
            kept = [seconds[0] / (warm_up if recipe.n_epochs > 1 else 1.0)]
        else:
            kept = seconds[1:] if seconds[0] > WARM_UP_FACTOR * statistics.median(seconds[1:]) else seconds
        by_recipe.setdefault(recipe, []).extend(kept)
    return by_recipe


def _seconds_a_whole_epoch(record: TrialRecord) -> list[float]:
    """Seconds of each epoch over what it is worth: branches of rungs make it dearer, less data or pixels cheaper."""
    return [seconds / _cost(epoch) for epoch in record.curve if (seconds := _seconds(epoch)) and _cost(epoch) > 0]


def _seconds(epoch: Mapping[str, Any]) -> float | None:
    told = float(epoch.get("seconds", math.nan))
    return told if math.isfinite(told) and told > 0 else None


def _cost(epoch: Mapping[str, Any]) -> float:
    return float(epoch.get("cost", 1.0))


def _row(features: Mapping[str, float], names: Sequence[str], centres: Mapping[str, float]) -> list[float]:
    return [1.0 if not name else features.get(name, 0.0) - centres.get(name, 0.0) for name in names]


def _priors(names: Sequence[str], terms: CostTerms) -> list[Effect]:
    known = {"": Effect(0.0, _INTERCEPT_SD), **terms.numbers}
    return [known.get(name) or Effect(0.0, terms.names[name.split("=", 1)[0]]) for name in names]


def _regress(
    X_RF: np.ndarray, y_R: np.ndarray, weight_R: np.ndarray, priors: Sequence[Effect]
) -> tuple[np.ndarray, np.ndarray]:
    """Fit a linear model with a normal prior on each effect and Student's t noise, by reweighted least squares.

    Returns:
        The effects, and the error of predicting each row from all others (a ridge fit gives it without fitting again:
        residual over one minus leverage).

    Source: Lange, Little and Taylor, Robust statistical modeling using the t distribution, JASA 84 (1989).
    """
    mean_F = np.array([prior.mean for prior in priors])
    precision_F = np.array([prior.sd for prior in priors]) ** -2.0
    noise, weights_R = 0.3, weight_R
    effect_F, error_R = mean_F, y_R
    for _ in range(_N_ROUNDS):
        XW_FR = X_RF.T * (weights_R / noise**2)
        A_FF = XW_FR @ X_RF + np.diag(precision_F)
        effect_F = np.linalg.solve(A_FF, XW_FR @ y_R + precision_F * mean_F)
        leverage_R = np.einsum("rf,fr->r", X_RF, np.linalg.solve(A_FF, XW_FR))
        residual_R = y_R - X_RF @ effect_F
        error_R = residual_R / np.maximum(1.0 - leverage_R, 1e-6)
        noise = float(np.clip(1.4826 * np.median(np.abs(error_R)), _LEAST_NOISE, _LARGEST_NOISE))
        weights_R = weight_R * (_NOISE_DOF + 1) / (_NOISE_DOF + (residual_R / noise) ** 2)
    return effect_F, error_R
