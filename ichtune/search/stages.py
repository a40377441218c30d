"""What a trial trains, in order, and where it is judged on the way: a function of its recipe and the search's settings.

A trial is a row of stages. Most have one: the recipe, with rungs inside. Where rungs are complete runs of their own
(shorter, of smaller images, of fewer patients) each is a stage before the whole recipe; every further fold is a stage
after it, so that a trial starts the next fold only when the mean over those that it has is promising.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from ichtune.recipe import Recipe
from ichtune.second_level_recipe import AnyRecipe
from ichtune.space import EarlyStop

#: Sides of images at a rung are multiples of it, as networks like them.
IMAGE_STEP_PX = 16
SMALLEST_IMAGE_PX = 32


@dataclass(frozen=True)
class Stage:
    """One run within a trial.

    Attributes:
        recipe: what is trained.
        fold: the fold that is held out.
        share: of the training patients that are learnt from, a nested subset.
        cost: what an epoch of it is worth in epochs of the trial's whole recipe.
        rungs: pairs of an epoch of this stage, before its last, and the number of the rung there.
        end_rung: number of the rung at its end, where it is judged as it is; None at the trial's end.
    """

    recipe: AnyRecipe
    fold: int
    share: float = 1.0
    cost: float = 1.0
    rungs: tuple[tuple[int, int], ...] = ()
    end_rung: int | None = None

    @property
    def is_whole(self) -> bool:
        """Whether it is the trial's recipe itself, whose weights serve the fold in cross-validation."""
        return self.end_rung is None or self.end_rung >= FOLD_RUNG


#: Rungs between folds are numbered from here, after all those within one.
FOLD_RUNG = 1_000_000


@dataclass(frozen=True)
class Place:
    """Where an epoch of a trial lies: its stage, the epoch in it, and the rung that is judged after it."""

    stage: int
    epoch: int
    rung: int | None
    is_stage_end: bool


@dataclass(frozen=True)
class TrialPlan:
    """The stages of one trial."""

    stages: tuple[Stage, ...]

    @property
    def n_epochs(self) -> int:
        """Epochs of all stages."""
        return sum(stage.recipe.n_epochs for stage in self.stages)

    def place(self, epoch: int) -> Place:
        """Return where the trial's epoch (from 1) lies."""
        left = epoch
        for number, stage in enumerate(self.stages):
            if left <= stage.recipe.n_epochs:
                is_end = left == stage.recipe.n_epochs
                rung = stage.end_rung if is_end else dict(stage.rungs).get(left)
                return Place(number, left, rung, is_end)
            left -= stage.recipe.n_epochs
        raise IndexError(f"the trial has {self.n_epochs} epochs, asked for epoch {epoch}")

    @property
    def rung_epochs(self) -> dict[int, int]:
        """The trial's epoch after which each rung is judged, by the rung's number."""
        places = {epoch: self.place(epoch).rung for epoch in range(1, self.n_epochs + 1)}
        return {rung: epoch for epoch, rung in places.items() if rung is not None}


def plan_trial(recipe: AnyRecipe, folds: Sequence[int], early_stop: EarlyStop, rungs: Sequence[int]) -> TrialPlan:
    """Lay out a trial.

    Args:
        recipe: of the trial.
        folds: it is judged on, in order.
        early_stop: what rungs are: moments of one run, or runs of their own.
        rungs: numbers of the rungs, in epochs of the longest trial, rising; those that lie at or beyond the recipe's
            own end are left out, all of them where it has one epoch, and those whose images would be no smaller than
            the next ones.
    """
    inside = [rung for rung in rungs if rung < recipe.n_epochs]
    first = Stage(recipe, folds[0], end_rung=_fold_rung(0, folds))
    is_inside = early_stop.judge != "short" and early_stop.fidelity == "epochs"
    if is_inside or not isinstance(recipe, Recipe):  # rungs of the second level are moments of one run
        stages = [replace(first, rungs=tuple((rung, rung) for rung in inside))]
    else:
        stages = [*_short_stages(recipe, folds[0], early_stop, inside), first]
    stages += [Stage(recipe, fold, end_rung=_fold_rung(i, folds)) for i, fold in enumerate(folds) if i > 0]
    return TrialPlan(tuple(stages))


def _fold_rung(i: int, folds: Sequence[int]) -> int | None:
    return None if i == len(folds) - 1 else FOLD_RUNG + i


def _short_stages(recipe: Recipe, fold: int, early_stop: EarlyStop, rungs: Sequence[int]) -> list[Stage]:
    """Return a complete run a rung; one that would be the recipe itself, or the one before it, is left out."""
    stages = [_short_stage(recipe, fold, early_stop, rung) for rung in rungs]
    if early_stop.fidelity != "image_px":
        return stages
    by_side: dict[object, Stage] = {}
    for stage in stages:
        by_side.setdefault(getattr(stage.recipe, "image_px", None), stage)
    return [stage for side, stage in by_side.items() if side != recipe.image_px]


def _short_stage(recipe: Recipe, fold: int, early_stop: EarlyStop, rung: int) -> Stage:
    """Return a complete run that costs as much as the recipe's first ``rung`` epochs, about."""
    share = rung / recipe.epochs
    changed: dict[str, Any] = {}
    if early_stop.fidelity == "image_px":
        side = round(recipe.image_px * share**0.5 / IMAGE_STEP_PX) * IMAGE_STEP_PX
        side = min(recipe.image_px, max(SMALLEST_IMAGE_PX, side))
        changed, cost = {"image_px": side}, (side / recipe.image_px) ** 2
    elif early_stop.fidelity == "patients":
        return Stage(recipe, fold, share=share, cost=share, end_rung=rung)
    else:
        frozen = round(recipe.frozen_epochs * share)
        changed, cost = {"epochs": rung, "frozen_epochs": min(frozen, rung - 1)}, 1.0
        changed["snapshots"] = min(recipe.snapshots, rung)
    return Stage(replace(recipe, **changed), fold, cost=cost, end_rung=rung)
