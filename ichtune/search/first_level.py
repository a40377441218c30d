"""The first level in a search: networks, which read pixels and start from the weights of others."""

import statistics
import time
from collections.abc import Collection
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from ichtune.recipe import Recipe
from ichtune.search.levels import SearchLevel
from ichtune.search.mirror import fetch_sources
from ichtune.second_level_recipe import AnyRecipe
from ichtune.space import Space, check_corners, combinations
from ichtune.space.domains import Choice, label_of
from ichtune.training.checks import NAME_CHECKS, check_recipe, check_weights
from ichtune.workspace import Workspace

if TYPE_CHECKING:
    import torch

    from ichtune.search.stages import Stage

#: A recipe's steps are timed until they have taken so long together, or are so many.
TIMED_S, MOST_STEPS = 3.0, 12
#: Pixels of a batch that is timed on a CPU, where a slice takes as long in a small batch as in a large one.
TIMED_PIXELS = 4 * 224 * 224


class FirstLevel(SearchLevel[Recipe]):
    """Networks that learn from slices."""

    command, example = "train", "windows.yaml"
    timed = "a few timed steps"

    def check_space(self, workspace: Workspace, space: Space) -> None:
        """Refuse names that no table knows, networks that cannot be built, weights that do not fit."""
        space.check_names(NAME_CHECKS)
        check_corners(space, _check_recipe)
        _check_pretrained(space)

    def inputs_of(self, space: Space) -> list[tuple[int, str]]:
        """Return for every crop that a space may choose the largest ``image_px`` that it may ask for."""
        default = space.default
        asked: dict[str, set[Any]] = {key: {getattr(default, key)} for key in ("image_px", "crop")}
        for key, values in asked.items():
            parameter = space.parameter(key)
            if parameter is not None:
                if not parameter.when:  # where a condition fails the default is taken
                    values.clear()
                domain = parameter.domain
                values.update([o.value for o in domain.options] if isinstance(domain, Choice) else [domain.high])
            values.update(start[key] for start in space.start_with if key in start)
        return [(int(max(asked["image_px"])), crop) for crop in sorted(asked["crop"])]

    def pixels(self, recipes: Collection[Recipe]) -> frozenset[tuple[int, str]]:
        """Return ``image_px`` and ``crop`` of each."""
        return frozenset((recipe.image_px, recipe.crop) for recipe in recipes)

    def open_run(self, workspace: Workspace, stage: "Stage", device: "torch.device") -> Any:
        """Fetch what the network starts from and is taught by, and open its run."""
        from ichtune.training.fold_run import open_fold

        recipe = stage.recipe
        if not isinstance(recipe, Recipe):
            raise TypeError(f"{recipe.summary} is no network")
        fetch_sources(workspace, recipe, stage.fold)
        return open_fold(workspace, recipe, stage.fold, device, share=stage.share).run

    def epoch_s(self, workspace: Workspace, recipe: Recipe, fold: int) -> float:
        """Measure a few steps and one batch of validation.

        The whole network learns from random weights, as what it starts from changes nothing.
        """
        from ichtune.training.devices import best_device
        from ichtune.training.fold_run import open_fold

        plain = replace(recipe, pretrained=False, warm_start="", pseudo_labels="", frozen_epochs=0, snapshots=1)
        if best_device().type == "cpu":
            least = max(2, TIMED_PIXELS // recipe.image_px**2)
            plain = replace(plain, batch_size=min(recipe.batch_size, least), accumulation=1)
        run = open_fold(workspace, plain, fold).run
        steps: list[float] = []
        start = time.perf_counter()
        for batch in run.endless():
            float(run.step(batch))  # waits for the device
            steps.append(time.perf_counter() - start)
            start += steps[-1]
            if len(steps) == MOST_STEPS or sum(steps) >= TIMED_S:
                break
        start = time.perf_counter()
        rows = run.valid_rows[: plain.batch_size]
        run.predict(rows)
        predicted_s = time.perf_counter() - start
        return statistics.median(steps[1:] or steps) * run.steps_an_epoch + predicted_s * len(run.valid_rows) / len(
            rows
        )

    def unlike(self, recipe: Recipe) -> tuple[object, ...]:
        """Return network and size."""
        return recipe.architecture, recipe.image_px


def _check_recipe(recipe: AnyRecipe) -> None:
    if isinstance(recipe, Recipe):
        check_recipe(recipe)


def _check_pretrained(space: Space) -> None:
    """Build each network that would start from pretrained weights once: missing ones must not cost a search."""
    default = space.default
    smallest_px: dict[tuple[str, bool | str], int] = {}
    for values in combinations(space, ("architecture", "pretrained", "image_px")):
        architecture, weights, image_px = (
            values.get(key, getattr(default, key)) for key in ("architecture", "pretrained", "image_px")
        )
        if weights is not False:
            pair = architecture, weights
            smallest_px[pair] = min(image_px, smallest_px.get(pair, image_px))
    for (architecture, weights), image_px in smallest_px.items():
        with space.at(*space.places.get(("pretrained", label_of(weights)), ("parameters", "pretrained"))):
            check_weights(Recipe(architecture=architecture, pretrained=weights, image_px=image_px))
