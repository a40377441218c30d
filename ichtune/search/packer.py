"""Packer: the resources of each trial of one search, measured where the space says ``auto``."""

import math
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import median_low
from typing import Any

from ichtune.recipe import Recipe
from ichtune.search.memory_table import CPU, MemoryTable, measure
from ichtune.search.nodes import Node, look_at_nodes, smallest_gpu
from ichtune.search.packing import TrialRequest, n_that_fit, trial_request
from ichtune.space import Resources, Space
from ichtune.space.sampling import random_proposals
from ichtune.workspace import Workspace

#: Recipes drawn at random from which those to be measured are chosen.
N_DRAWN = 64
#: File in the search's folder that keeps what was measured.
MEMORY_FILE = "memory.json"


class Packer:
    """Says what each trial asks Ray for; Ray is connected.

    With ``auto`` the peak of a few recipes is measured before the first trial, and kept in the search's folder.

    Args:
        workspace: prepared data.
        resources: what a trial may take.
        folder: where what was measured is kept.
        recipes: those that there are, or a sample of them.
        fold: that is held out.
        stage: folder on each node's own disk for a copy of the data; None for none.

    Attributes:
        n_concurrent: trials of middling size that fit at a time.
        notes: what could not be measured.

    Raises:
        ConfigError: no trial fits.
    """

    def __init__(
        self,
        workspace: Workspace,
        resources: Resources,
        folder: Path,
        recipes: Sequence[Recipe],
        fold: int,
        stage: str | None = None,
    ) -> None:
        self._resources = resources
        wants_memory = resources.auto or resources.gpu_memory_mb is not None
        self._nodes = look_at_nodes(gpu_memory=wants_memory)
        self._table: MemoryTable | None = None
        self.notes: list[str] = []
        requests = [trial_request(resources, self._nodes)]
        on_gpu = resources.gpu > 0 and any(node.n_gpus for node in self._nodes)
        node = smallest_gpu(self._nodes) if on_gpu else None
        # GPUs that are only declared have no memory to measure
        if resources.auto and resources.gpu_memory_mb is None and (node is not None or not on_gpu):
            self._table = MemoryTable(folder / MEMORY_FILE, CPU if node is None else node.gpu_name)
            work = workspace.origin or str(workspace.layout.root)
            asked = self._table.to_probe(recipes)
            self.notes = measure(self._table, work, asked, fold, node, stage=stage)
            requests = [self._request(recipe) for recipe in recipes] or requests
        self.n_concurrent = median_low([n_that_fit(request.asked, self._nodes) for request in requests])

    def request(self, recipe: Recipe) -> dict[str, Any]:
        """Return the part of a trial's configuration that says what it runs on."""
        return self._request(recipe).config()

    def _request(self, recipe: Recipe) -> TrialRequest:
        need_mb = None if self._table is None else self._table.need_mb(recipe)
        return trial_request(self._resources, self._nodes, need_mb)


def sampled_recipes(space: Space) -> list[Recipe]:
    """Return recipes of a space, drawn at random by its seed."""
    return [proposal.recipe for proposal in random_proposals(space, N_DRAWN, space.search.seed)]


def packing_here(resources: Resources) -> tuple[int, str]:
    """Return how many trials this machine would run at a time, and what each would ask Ray for, in words.

    Nothing is measured: with ``auto`` the search measures first, and may pack otherwise.
    """
    request = trial_request(resources, [_this_machine()])
    parts = [f"{amount:g} {kind.upper()}" for kind, amount in request.asked.items() if kind in ("gpu", "cpu")]
    limit = "" if request.gpu_memory_mb is None else f", at most {request.gpu_memory_mb:.0f} MiB of GPU memory"
    measured = " before it is measured" if resources.auto else ""
    return n_that_fit(request.asked, [_this_machine()]), " and ".join(parts) + limit + measured


def _this_machine(n_gpus: Callable[[], int] | None = None) -> Node:
    import torch

    count = (n_gpus or torch.cuda.device_count)()
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    memory_mb = torch.cuda.get_device_properties(0).total_memory / 2**20 if count else 0.0
    return Node(n_cpus=float(cores), n_gpus=float(count), gpu_memory_mb=math.floor(memory_mb))
