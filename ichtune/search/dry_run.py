"""What a search would do, before it does it: the size of its space, recipes from it, and what they would cost.

Nothing is kept, Ray is not started, and no trial is trained: at most a few steps of a few recipes.
"""

import math
import statistics
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from typing import Any

from ichtune.errors import DataError
from ichtune.search.cost_model import CostModel
from ichtune.search.ledger import TrialRecord
from ichtune.search.levels import search_level, search_level_of
from ichtune.search.playing import Amount, play
from ichtune.search.schedulers import create_scheduler
from ichtune.search.stages import FOLD_RUNG, plan_trial
from ichtune.search.trial_table import all_records
from ichtune.second_level_recipe import AnyRecipe
from ichtune.space import Proposal, Space, SpaceSize, random_proposals, space_size
from ichtune.space.domains import label_of
from ichtune.space.settings import NO_STOP
from ichtune.training.devices import best_device
from ichtune.workspace import Workspace

#: Recipes that are timed where no earlier trial says what they cost.
MAX_TIMED = 3
#: Larger searches are played through with so many trials, and scaled.
MAX_PLAYED = 120


@dataclass(frozen=True)
class Sample:
    """One recipe of the space, and what an epoch of it takes."""

    proposal: Proposal
    seconds_per_epoch: float


@dataclass(frozen=True)
class DryRun:
    """What a search would do.

    Attributes:
        space: what would be searched.
        size: of the space.
        samples: recipes drawn at random, those that constraints forbid left out.
        n_trials: trials that would be run: no more than the space has recipes.
        n_concurrent: trials at a time.
        resources: what each of them asks of Ray, in words.
        rungs: epochs at which the first trial would be judged.
        epochs: whole epochs of all trials, branches of rungs included.
        n_epochs_whole: epochs of all trials if none were judged or stopped.
        hours: of computing, all trials one after the other.
        how: where the seconds an epoch come from.
    """

    space: Space
    size: SpaceSize
    samples: tuple[Sample, ...]
    n_trials: int
    n_concurrent: int
    resources: str
    rungs: tuple[int, ...]
    epochs: Amount
    n_epochs_whole: float
    hours: Amount
    how: str

    @property
    def gets_gpu(self) -> bool:
        """Whether a trial would get a GPU on this machine."""
        return self.space.resources.gpu > 0 and best_device().type == "cuda"

    @property
    def clock_hours(self) -> Amount:
        """Hours on the clock, if trials at a time slow each other down no more than they did when they were timed."""
        return self.hours.divided(max(1, min(self.n_concurrent, self.n_trials)))

    def to_dict(self) -> dict[str, Any]:
        """Return everything as plain values; the size is None where a number is continuous."""
        n, search = None if math.isinf(self.size.n) else self.size.n, self.space.search
        return {
            "space": self.space.name,
            "space_id": self.space.space_id,
            "size": {"n": n, "is_exact": self.size.is_exact, "text": self.size.text},
            "samples": [_plain(sample) for sample in self.samples],
            "n_trials": self.n_trials,
            "n_concurrent": self.n_concurrent,
            "resources": self.resources,
            "early_stop": {**search.early_stop.effective, "rungs": list(self.rungs)},
            "limits": {key: getattr(search, key) for key in ("time_s", "gpu_hours", "until_no_gain")},
            "epochs": {**asdict(self.epochs), "without_stopping": self.n_epochs_whole},
            "hours": asdict(self.hours),
            "clock_hours": asdict(self.clock_hours),
            "how": self.how,
        }

    def lines(self) -> list[str]:
        """Return everything as lines of text."""
        seconds = [sample.seconds_per_epoch for sample in self.samples]
        spread = (
            text_of_s(seconds[0]) if len(seconds) == 1 else f"{text_of_s(min(seconds))} to {text_of_s(max(seconds))}"
        )
        hours, clock = self.hours, self.clock_hours
        return [
            f"space {self.space.name}: {self.size.text}, {len(self.space.searched)} of "
            f"{len(self.space.parameters)} parameters searched",
            f"{self.n_trials} trials, {self.n_concurrent} at a time; each asks Ray for {self.resources}",
            f"early stop: {self.space.search.early_stop.type}{_rungs_text(self)}",
            f"{len(self.samples)} recipes at random:",
            *(f"  {_line(sample)}" for sample in self.samples),
            f"epochs: {self.epochs.expected:.0f} expected, {self.epochs.at_least:.0f} at least, "
            f"{self.epochs.at_most:.0f} at most; {self.n_epochs_whole:.0f} without stopping",
            f"seconds an epoch: {spread}, {self.how}",
            f"computing: {hours.expected:.2g} h expected, {hours.at_least:.2g} to {hours.at_most:.2g} h; on the clock "
            f"{clock.expected:.2g} h, {clock.at_least:.2g} to {clock.at_most:.2g} h",
            *_limits(self),
        ]


def describe_search(
    workspace: Workspace,
    space: Space,
    n_concurrent: int,
    resources_text: str,
    n_samples: int = 10,
) -> DryRun:
    """Say what a search would do.

    Seconds an epoch are learnt from the trials of earlier searches in the workspace; where there are none, a few steps
    of up to ``MAX_TIMED`` of the samples are timed on this machine, with the threads that a trial would have.

    Args:
        workspace: prepared data that fit the space.
        space: what would be searched, with the budget that it would have.
        n_concurrent: trials at a time.
        resources_text: what each trial asks of Ray, in words.
        n_samples: recipes to draw, by the search's seed.

    Raises:
        DataError: no recipe can be drawn, or the workspace does not fit the space.
    """
    space = search_level(space.level).settled(workspace, space)
    proposals = random_proposals(space, n_samples, space.search.seed)
    if not proposals:
        raise DataError(f"space {space.name!r}: no recipe was found that its constraints allow; loosen one of them")
    recipes = [proposal.recipe for proposal in proposals]
    model, how = _cost_model(workspace, space, recipes)
    seconds = [model.seconds_per_epoch(recipe) or math.nan for recipe in recipes]
    size = space_size(space)
    n_run = int(min(space.search.trials, size.n))
    epochs, computing_s = play(space, recipes, seconds, n_run, MAX_PLAYED)
    return DryRun(
        space=space,
        size=size,
        samples=tuple(Sample(p, s) for p, s in zip(proposals, seconds, strict=True)),
        n_trials=n_run,
        n_concurrent=n_concurrent,
        resources=resources_text,
        rungs=_rungs(space, recipes),
        epochs=epochs,
        n_epochs_whole=n_run * len(space.folds.search_on) * statistics.fmean(recipe.n_epochs for recipe in recipes),
        hours=computing_s.divided(3600.0),
        how=how,
    )


def _rungs(space: Space, recipes: Sequence[AnyRecipe]) -> tuple[int, ...]:
    """Return the rungs within a fold at which any of the recipes would be judged, were it the first trial."""
    stop, folds = space.search.early_stop, space.folds.search_on
    plans = [plan_trial(recipe, folds, stop, create_scheduler(stop).rungs(0)) for recipe in recipes]
    return tuple(sorted({rung for plan in plans for rung in plan.rung_epochs if rung < FOLD_RUNG}))


def _cost_model(workspace: Workspace, space: Space, recipes: Sequence[AnyRecipe]) -> tuple[CostModel, str]:
    """Return what tells the seconds of an epoch, and in words where it has it from."""
    earlier = [record for record in _earlier(workspace) if type(record.recipe) is type(space.default)]
    model = CostModel.fit(earlier)
    if model.seen:
        error = "" if model.typical_error is None else f", typically {model.typical_error:.0%} off"
        n = len(model.seen)
        trained = "recipe that was" if n == 1 else "recipes that were"
        return model, f"learnt from {n} {trained} trained in this workspace{error}"
    device = best_device()
    n_threads = max(1, math.floor(space.resources.cpu))
    timed = _most_unlike(recipes)
    with _threads(n_threads):
        curves = [[{"epoch": 1, "seconds": _epoch_s(workspace, recipe, space)}] for recipe in timed]
    records = [TrialRecord(i, {}, {}, r, curve=c) for i, (r, c) in enumerate(zip(timed, curves, strict=True))]
    where = (
        f"{n_threads} thread{'s' if n_threads > 1 else ''} of this machine" if device.type == "cpu" else "its GPU alone"
    )
    rest = "" if len(timed) == len(recipes) else "; the others follow from these"
    return CostModel.fit(records), f"from {search_level(space.level).timed} of {len(timed)} of them on {where}{rest}"


def _earlier(workspace: Workspace) -> list[TrialRecord]:
    try:
        return [record for records in all_records(workspace.layout).values() for record in records]
    except DataError:  # no search yet
        return []


def _most_unlike(recipes: Sequence[AnyRecipe]) -> list[AnyRecipe]:
    """Return the recipes to be timed: of different networks and sizes as far as there are any."""
    by_kind: dict[tuple[object, ...], AnyRecipe] = {}
    for recipe in recipes:
        by_kind.setdefault(search_level_of(recipe).unlike(recipe), recipe)
    others = [recipe for recipe in recipes if recipe not in by_kind.values()]
    return [*by_kind.values(), *others][:MAX_TIMED]


def _epoch_s(workspace: Workspace, recipe: AnyRecipe, space: Space) -> float:
    """Return what an epoch of training and validation takes, in seconds, as measured shortly."""
    return search_level_of(recipe).epoch_s(workspace, recipe, space.folds.search_on[0])


@contextmanager
def _threads(n: int) -> Iterator[None]:
    """Let torch compute with n threads inside the block."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(n)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _plain(sample: Sample) -> dict[str, Any]:
    recipe = sample.proposal.recipe
    return {
        "recipe_id": recipe.recipe_id,
        "summary": recipe.summary,
        "parameters": sample.proposal.parameters,
        "epochs": recipe.n_epochs,
        "seconds_per_epoch": sample.seconds_per_epoch,
    }


def _line(sample: Sample) -> str:
    recipe = sample.proposal.recipe
    varied = ", ".join(f"{name} {_short(value)}" for name, value in sample.proposal.parameters.items())
    return f"{recipe.recipe_id}  {recipe.n_epochs} x {text_of_s(sample.seconds_per_epoch)}  {varied}"


def _rungs_text(dry: DryRun) -> str:
    """Say where trials are judged, and on what."""
    stop, numbers = dry.space.search.early_stop, ", ".join(map(str, dry.rungs))
    if not numbers:
        return ", no rungs"
    if stop.fidelity != "epochs":
        less = {"image_px": "on smaller images", "patients": "on a share of the patients"}[stop.fidelity]
        return f", judged after complete runs {less} that cost about {numbers} epochs"
    if stop.judge == "short":
        return f", judged after complete runs of {numbers} epochs"
    by = {"average": "the mean of the weights", "cooldown": f"a cooldown of {stop.cooldown:g} epochs"}
    return f" at epochs {numbers}, judged by {by.get(stop.judge, 'their losses as they are')}"


def _short(value: Any) -> str:
    return f"{value:.3g}" if isinstance(value, float) else label_of(value)


def text_of_s(seconds: float) -> str:
    """Return a length of time as people read it: ``0.8 s``, ``34 s``, ``2.5 min``."""
    if seconds < 10:
        return f"{seconds:.1f} s"
    return f"{seconds:.0f} s" if seconds < 120 else f"{seconds / 60:.3g} min"


def _limits(dry: DryRun) -> list[str]:
    """Say what would end the search before its trials do, and what comes after them."""
    settings, clock = dry.space.search, dry.clock_hours
    lines = []
    if settings.early_stop.type != NO_STOP:
        top = dry.space.train.top
        lines.append(f"included: the best stopped trials are trained on in the end, until {top} have finished")
    if settings.time_s is not None and settings.time_s < clock.expected * 3600:
        lines.append(f"a run ends after {settings.time_s / 3600:.2g} h, before all that; the same command continues it")
    if settings.until_no_gain is not None:
        lines.append(f"it ends sooner after {settings.until_no_gain} trials in a row without a better loss")
    if settings.gpu_hours is not None and dry.gets_gpu:
        lines.append(f"it ends sooner after {settings.gpu_hours:g} GPU hours")
    elif settings.gpu_hours is not None:
        lines.append(
            f"the {settings.gpu_hours:g} GPU hours end nothing here, where no trial gets a GPU; limit the time instead"
        )
    return lines
