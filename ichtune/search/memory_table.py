"""What recipes take of a device's memory: a few are measured, once each, and say what the others will take."""

import json
import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from ichtune.errors import DataError
from ichtune.recipe import Recipe
from ichtune.search.nodes import Node
from ichtune.tables import write_json
from ichtune.training.memory import first_line

#: The device of trials that get no GPU.
CPU = "cpu"
#: What a recipe that was not measured may take beyond what follows from its size: other optimizers, channels, poolings.
UNMEASURED_MARGIN = 0.25
#: Seconds that all probes may take together, waiting for a free GPU included.
PROBE_TIMEOUT_S = 900.0


def memory_facts(recipe: Recipe) -> dict[str, Any]:
    """Return what of a recipe decides how much memory its training takes."""
    return {
        "architecture": recipe.architecture,
        "pooling": recipe.pooling,
        "image_px": recipe.image_px,
        "n_slices": len(recipe.offsets),
        "n_channels": recipe.n_channels,
        "batch_size": recipe.batch_size,
        "accumulation": recipe.accumulation,
        "optimizer": recipe.optimizer,
        "compile": recipe.compile,
        "has_average": recipe.ema_decay > 0 or recipe.swa_start < 1,
        "snapshots": recipe.snapshots,
        "learnable_windows": recipe.learnable_windows,
        "mixes": recipe.mixup > 0 or recipe.cutmix > 0,
    }


def _pixels(facts: dict[str, Any]) -> float:
    """Pixels that pass through the network at a time: what it keeps for the backward pass grows with them."""
    return float(math.ceil(facts["batch_size"] / facts["accumulation"]) * facts["image_px"] ** 2)


class MemoryTable:
    """Peaks of memory that were measured, kept as JSON in the search's folder.

    Args:
        path: the file; it need not exist.
        device: kind of device; peaks of other kinds are kept and not looked at.

    Raises:
        DataError: the file cannot be read.
    """

    def __init__(self, path: Path, device: str) -> None:
        self._path, self._device = path, device
        try:
            self._entries = _read(path) if path.is_file() else []
        except (OSError, ValueError, LookupError, TypeError, AttributeError) as error:
            raise DataError(f"cannot read {path} ({error!r}); remove it, recipes are measured again") from error

    def put(self, recipe: Recipe, peak_mb: float) -> None:
        """Keep a recipe's peak, MiB; infinity if the device does not hold it."""
        facts = memory_facts(recipe)
        others = [e for e in self._entries if not (e["device"] == self._device and e["recipe"] == facts)]
        told = None if math.isinf(peak_mb) else peak_mb
        self._entries = [*others, {"device": self._device, "recipe": facts, "peak_mb": told}]
        write_json({"peaks": self._entries}, self._path)

    def measured(self, recipe: Recipe) -> float | None:
        """Return the peak of a recipe that was measured, MiB, or of one that takes the same; None if there is none."""
        facts = memory_facts(recipe)
        return next((peak_mb for known, peak_mb in self._peaks() if known == facts), None)

    def need_mb(self, recipe: Recipe) -> float | None:
        """Return what a recipe takes at its peak, MiB: measured, or no less than follows from what was measured.

        What a network keeps grows with the pixels that pass at a time, the rest does not: a peak times the ratio of
        pixels, where that is above 1, is enough for either. The lowest such bound of the same architecture counts, with
        ``UNMEASURED_MARGIN``.

        Returns:
            Infinity if a recipe with no more pixels did not fit; None if nothing of this architecture was measured.
        """
        exact = self.measured(recipe)
        if exact is not None:
            return exact
        facts = memory_facts(recipe)
        pixels = _pixels(facts)
        like = [(_pixels(known), mb) for known, mb in self._peaks() if known["architecture"] == facts["architecture"]]
        if any(math.isinf(peak_mb) and known <= pixels for known, peak_mb in like):
            return math.inf
        bounds = [peak_mb * max(1.0, pixels / known) for known, peak_mb in like]
        return min(bounds) * (1.0 + UNMEASURED_MARGIN) if bounds else None

    def to_probe(self, recipes: Sequence[Recipe]) -> list[Recipe]:
        """Return the recipes that have to be measured: of each architecture those with the most and fewest pixels."""
        by_architecture: dict[str, list[Recipe]] = {}
        for recipe in recipes:
            by_architecture.setdefault(recipe.architecture, []).append(recipe)
        found: list[Recipe] = []
        for group in by_architecture.values():
            ordered = sorted(group, key=lambda recipe: _pixels(memory_facts(recipe)))
            ends = [ordered[0], *([ordered[-1]] if memory_facts(ordered[0]) != memory_facts(ordered[-1]) else [])]
            found += [recipe for recipe in ends if self.measured(recipe) is None]
        return found

    def _peaks(self) -> list[tuple[dict[str, Any], float]]:
        return [
            (entry["recipe"], math.inf if entry["peak_mb"] is None else entry["peak_mb"])
            for entry in self._entries
            if entry["device"] == self._device
        ]


def _read(path: Path) -> list[dict[str, Any]]:
    entries = json.loads(path.read_text(encoding="utf-8"))["peaks"]
    expected = set(memory_facts(Recipe()))
    # entries of a version that knew other facts say nothing about recipes of this one
    return [dict(e) for e in entries if {"device", "peak_mb"} <= e.keys() and set(e["recipe"]) == expected]


def probe(work: str, recipe: dict[str, Any], fold: int, wants_gpu: bool, stage: str | None = None) -> float:
    """Return a recipe's peak on the best device of this process, MiB; infinity if the device does not hold it.

    On a GPU it is what a trial needs of it, on a CPU all that the process holds.

    Args:
        work: path or URL of the workspace.
        recipe: as ``to_dict`` gives it; measured without what it takes from other runs, which need not be there and
            weighs nothing, and without frozen epochs, in which less is kept.
        fold: the fold that trials hold out.
        wants_gpu: whether trials get one.
        stage: folder of this node's copies of prepared data, as trials have it.
    """
    from ichtune.search.mirror import node_workspace
    from ichtune.training.devices import device_for
    from ichtune.training.fold_run import open_fold
    from ichtune.training.memory import hold_to_share, peak_memory_mb, resident_mb

    chosen = Recipe.from_dict(recipe)
    chosen = replace(chosen, pretrained=False, warm_start="", pseudo_labels="", frozen_epochs=0)
    device = device_for(wants_gpu)
    hold_to_share(device)
    workspace = node_workspace(work, stage, frozenset({(chosen.image_px, chosen.crop)}))
    run = open_fold(workspace, chosen, fold, device).run
    before_mb = resident_mb() if device.type == "cpu" else 0.0
    return before_mb + peak_memory_mb(run)


def measure(
    table: MemoryTable,
    work: Path | str,
    recipes: Sequence[Recipe],
    fold: int,
    node: Node | None,
    stage: str | None = None,
    timeout_s: float = PROBE_TIMEOUT_S,
) -> list[str]:
    """Probe recipes on the connected cluster, in worker processes, and put their peaks into the table.

    A probe has a GPU for itself, so let no trial run meanwhile. One that fails for another reason than memory leaves
    nothing in the table.

    Args:
        table: receives the peaks.
        work: path of the workspace, or its URL.
        recipes: what ``to_probe`` returned.
        fold: the fold that trials hold out.
        node: whose GPU to measure on; None where trials get no GPU.
        stage: folder of each node's copies of prepared data, as trials have it.
        timeout_s: seconds that all may take together.

    Returns:
        A line for each recipe that could not be measured, which says why.
    """
    import ray
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    settings: dict[str, Any] = {"num_cpus": 1, "max_retries": 0}
    if node is not None:
        settings |= {
            "num_gpus": 1,
            "max_calls": 1,  # with the process goes its CUDA context
            "scheduling_strategy": NodeAffinitySchedulingStrategy(node.node_id, soft=False),
        }
    remote = ray.remote(**settings)(probe)
    asked = {
        remote.options(name=f"memory of {recipe.summary}").remote(
            str(work.resolve()) if isinstance(work, Path) else work, recipe.to_dict(), fold, node is not None, stage
        ): recipe
        for recipe in recipes
    }
    if not asked:
        return []
    done, late = ray.wait(list(asked), num_returns=len(asked), timeout=timeout_s)
    for reference in late:
        ray.cancel(reference, force=True)
    failures = [f"memory of {asked[reference].summary} not measured in {timeout_s:g} s" for reference in late]
    for reference in done:
        try:
            table.put(asked[reference], ray.get(reference))
        except (ray.exceptions.OutOfMemoryError, ray.exceptions.WorkerCrashedError):
            table.put(asked[reference], math.inf)
        except ray.exceptions.RayError as error:
            why = first_line(getattr(error, "cause", None) or error)
            failures.append(f"memory of {asked[reference].summary} not measured: {why}")
    return failures
