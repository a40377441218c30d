"""Packer: the resources of each trial of one search, measured where the space says ``auto``."""

import math
import os
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from statistics import median_low
from typing import Any

from ichtune.errors import ConfigError
from ichtune.recipe import Recipe
from ichtune.search.growth import wait_for_gpu
from ichtune.search.memory_table import CPU, PROBE_TIMEOUT_S, MemoryTable, measure
from ichtune.search.nodes import Node, look_at_nodes, smallest_gpu
from ichtune.search.packing import TrialRequest, count_that_fit, n_that_fit, trial_request
from ichtune.second_level_recipe import AnyRecipe
from ichtune.space import Resources, Space
from ichtune.space.sampling import random_proposals
from ichtune.workspace import Workspace

#: Recipes drawn at random from which those to be measured are chosen.
N_DRAWN = 64
#: File in the search's folder that keeps what was measured.
MEMORY_FILE = "memory.json"


class Packer:
    """Says what each trial asks Ray for; Ray is connected.

    With ``auto`` the peak of a few recipes is measured before the first trial, and kept in the search's folder. On a
    cluster that can grow a trial asks for what the space says, whatever is there yet.

    Args:
        workspace: prepared data.
        resources: what a trial may take.
        folder: where what was measured is kept.
        recipes: those that there are, or a sample of them.
        fold: that is held out.
        stage: folder on each node's own disk for a copy of the data; None for none.
        grows: whether the cluster starts nodes when trials ask for them.
        note: says one line to the person watching, where a node is waited for.
        ends_s: when the search's time is up, on the monotonic clock; nobody waits for a node, or measures, beyond it.

    Attributes:
        n_concurrent: trials of middling size that fit at a time, on the nodes that there are; 0 only where more come.
        notes: what could not be measured.

    Raises:
        ConfigError: no trial fits, and the cluster cannot grow.
    """

    def __init__(
        self,
        workspace: Workspace,
        resources: Resources,
        folder: Path,
        recipes: Sequence[Recipe],
        fold: int,
        stage: str | None = None,
        *,
        grows: bool = False,
        note: Callable[[str], None] = lambda line: None,
        ends_s: float = math.inf,
    ) -> None:
        self._resources, self._grows, self._ends_s = resources, grows, ends_s
        self._nodes = self._look(note)
        self._table: MemoryTable | None = None
        self.notes: list[str] = []
        requests = [self._request(None)]
        on_gpu = resources.gpu > 0 and any(node.n_gpus for node in self._nodes)
        node = smallest_gpu(self._nodes) if on_gpu else None
        # GPUs that are only declared have no memory to measure
        if resources.auto and resources.gpu_memory_mb is None and (node is not None or not on_gpu):
            self._table = MemoryTable(folder / MEMORY_FILE, CPU if node is None else node.gpu_name)
            work = workspace.origin or str(workspace.layout.root)
            asked = self._table.to_probe(recipes)
            self.notes = measure(self._table, work, asked, fold, node, stage=stage, timeout_s=self._patience_s)
            requests = [self._request(recipe) for recipe in recipes] or requests
        self._asked = [request.asked for request in requests]
        self.n_concurrent = self.n_that_fit()

    @property
    def _patience_s(self) -> float:
        return max(0.0, min(PROBE_TIMEOUT_S, self._ends_s - time.monotonic()))

    def _look(self, note: Callable[[str], None]) -> list[Node]:
        """Return the nodes; on a cluster that can grow, with a GPU that is to come where trials want one."""
        wants_memory = self._resources.auto or self._resources.gpu_memory_mb is not None
        nodes = look_at_nodes(gpu_memory=wants_memory)
        if not self._grows or self._resources.gpu == 0 or any(node.n_gpus for node in nodes):
            return nodes
        if wants_memory and wait_for_gpu(note, self._patience_s):
            nodes = look_at_nodes(gpu_memory=True)
        if any(node.n_gpus for node in nodes):
            return nodes
        return [*nodes, Node(n_cpus=max(1.0, self._resources.cpu), n_gpus=max(1.0, self._resources.gpu))]

    def n_that_fit(self) -> int:
        """Return how many trials of middling size fit on the nodes that there are now.

        Raises:
            ConfigError: none does, and the cluster cannot grow.
        """
        nodes = look_at_nodes() if self._grows else self._nodes
        return median_low([(count_that_fit if self._grows else n_that_fit)(asked, nodes) for asked in self._asked])

    def request(self, recipe: AnyRecipe) -> dict[str, Any]:
        """Return the part of a trial's configuration that says what it runs on."""
        return self._request(recipe).config()

    def _request(self, recipe: AnyRecipe | None) -> TrialRequest:
        table = self._table
        need_mb = table.need_mb(recipe) if table is not None and isinstance(recipe, Recipe) else None
        return trial_request(self._resources, self._nodes, need_mb)


def sampled_recipes(space: Space) -> list[Recipe]:
    """Return recipes of networks of a space, drawn at random by its seed: those whose memory can be measured."""
    drawn = (proposal.recipe for proposal in random_proposals(space, N_DRAWN, space.search.seed))
    return [recipe for recipe in drawn if isinstance(recipe, Recipe)]


def packing_here(resources: Resources) -> tuple[int, str]:
    """Return how many trials this machine would run at a time, and what each would ask Ray for, in words.

    Nothing is measured: with ``auto`` the search measures first, and may pack otherwise. A trial that this machine does
    not hold is one for a cluster: it is said, and counted as one at a time.
    """
    here = _this_machine()
    try:
        request = trial_request(resources, [here])
        fits = count_that_fit(request.asked, [here])
    except ConfigError:  # more of a GPU's memory than that of this machine has
        request, fits = trial_request(resources, [replace(here, gpu_memory_mb=0.0)]), 0
    parts = [f"{amount:g} {kind.upper()}" for kind, amount in request.asked.items() if kind in ("gpu", "cpu")]
    limit = "" if request.gpu_memory_mb is None else f", at most {request.gpu_memory_mb:.0f} MiB of GPU memory"
    measured = " before it is measured" if resources.auto else ""
    beyond = "" if fits else ", which this machine does not have: a cluster may (--address)"
    return max(1, fits), " and ".join(parts) + limit + measured + beyond


def _this_machine(n_gpus: Callable[[], int] | None = None) -> Node:
    import torch

    count = (n_gpus or torch.cuda.device_count)()
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    memory_mb = torch.cuda.get_device_properties(0).total_memory / 2**20 if count else 0.0
    return Node(n_cpus=float(cores), n_gpus=float(count), gpu_memory_mb=math.floor(memory_mb))
