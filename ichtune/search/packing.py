"""What one trial asks Ray for, what it holds itself to, and how many of them fit.

Nothing here talks to Ray: ``ichtune.search.nodes`` says what there is, ``ichtune.search.memory_table`` what a recipe
takes.
"""

import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from ichtune.errors import ConfigError
from ichtune.search.nodes import Node
from ichtune.space import Resources

#: Most trials that share a GPU by themselves: beyond it they wait for each other's kernels more than they gain.
MAX_A_GPU = 8
#: Least cores that a trial on a GPU asks for by itself: reading takes 0.06 of one where the HU cache feeds the GPU.
LEAST_CPU = 0.1
#: Ray counts in ten-thousandths; a share that is rounded up to them would not fit as often as it should.
_RAY_STEPS = 10_000
_MIB = 2**20


@dataclass(frozen=True)
class TrialRequest:
    """What a trial asks Ray for and holds itself to.

    Attributes:
        asked: ``cpu``, and where there is need ``gpu`` and ``memory`` (bytes of host memory), as Ray Tune names them.
        gpu_memory_mb: MiB of its GPU that it holds itself to; None for its share of whatever GPU it gets.
    """

    asked: dict[str, float] = field(default_factory=dict)
    gpu_memory_mb: float | None = None

    @property
    def n_threads(self) -> int:
        """Threads that it computes with."""
        return max(1, math.floor(self.asked["cpu"]))

    def config(self) -> dict[str, Any]:
        """Return the part of a trial's configuration that says what it runs on."""
        return {
            "resources": dict(self.asked),
            "n_threads": self.n_threads,
            "wants_gpu": wants_gpu(self.asked),
            "gpu_memory_mb": self.gpu_memory_mb,
        }


def wants_gpu(asked: Mapping[str, float]) -> bool:
    """Return whether a task asked for a GPU; Ray hides none from one that did not."""
    return asked.get("gpu", 0) > 0


def n_that_fit(asked: Mapping[str, float], nodes: Sequence[Node]) -> int:
    """Return how many trials that ask for this fit on the nodes at a time, at least one.

    A share of a GPU lies on one device, and a trial on one node: what is left over here and there holds none.

    Raises:
        ConfigError: not even one fits, which Ray would wait for without end.
    """
    fits = count_that_fit(asked, nodes)
    if fits < 1:
        n_cpus, n_gpus = sum(node.n_cpus for node in nodes), sum(node.n_gpus for node in nodes)
        raise ConfigError(
            f"a trial asks for {dict(asked)}, but the cluster has {n_cpus:g} CPUs and {n_gpus:g} GPUs"
            f"{'' if len(nodes) == 1 else f' on {len(nodes)} nodes'}; lower `resources` in the space"
        )
    return fits


def count_that_fit(asked: Mapping[str, float], nodes: Sequence[Node]) -> int:
    """Return how many trials that ask for this fit on the nodes at a time; 0 where not even one does."""
    return sum(_on_node(asked, node) for node in nodes)


def _on_node(asked: Mapping[str, float], node: Node) -> int:
    gpu = asked.get("gpu", 0.0)
    fits = [_times(node.n_cpus, asked["cpu"])] if asked.get("cpu", 0) > 0 else []
    if gpu >= 1:
        fits.append(_times(node.n_gpus, gpu))
    elif gpu > 0:
        fits.append(math.floor(node.n_gpus) * _times(1.0, gpu))
    if asked.get("memory", 0) > 0 and node.memory_mb > 0:
        fits.append(_times(node.memory_mb * _MIB, asked["memory"]))
    return min(fits)


def _times(has: float, amount: float) -> int:
    return math.floor(has / amount + 1e-9)


def trial_request(resources: Resources, nodes: Sequence[Node], need_mb: float | None = None) -> TrialRequest:
    """Return what one trial asks for.

    With ``auto``, and where ``gpu_memory`` is given and ``gpu`` is left at a whole one, a trial gets the part of a GPU
    that holds what it needs: a half, a third, down to an eighth. On several kinds of GPUs the smallest memory counts,
    so that a trial fits wherever Ray puts it. Without GPUs ``auto`` packs a trial a core, as many as host memory holds:
    two trials of one thread do 1.8 times the work of one, while two threads do 0.9 to 1.15 times that of one.

    Args:
        resources: what the space says.
        nodes: what there is.
        need_mb: MiB that a trial of this recipe takes at its peak: of a GPU, CUDA's context included; without GPUs of
            host memory, all that its process holds. Infinity if no device holds it, None if it is not known.

    Raises:
        ConfigError: the trials that share a GPU would not fit into its memory.
    """
    gpu_nodes = [node for node in nodes if node.n_gpus > 0]
    if not gpu_nodes or resources.gpu == 0:
        return _on_cores(resources, nodes, need_mb)
    device_mb = min((node.gpu_memory_mb for node in gpu_nodes if node.gpu_memory_mb > 0), default=None)
    limit_mb = resources.gpu_memory_mb
    if device_mb is not None and limit_mb is not None:
        _check_limit(resources, limit_mb, device_mb)
    if not (resources.auto or (limit_mb is not None and resources.gpu == 1)):
        return TrialRequest({"gpu": resources.gpu, "cpu": resources.cpu}, limit_mb)
    n_a_gpu = _n_a_gpu(limit_mb or need_mb, device_mb)
    cores = min(node.n_cpus / node.n_gpus for node in gpu_nodes) / n_a_gpu
    asked = {"gpu": _share_of(n_a_gpu), "cpu": max(LEAST_CPU, min(resources.cpu or 1.0, _floored(cores)))}
    return TrialRequest(asked, limit_mb)


def _check_limit(resources: Resources, limit_mb: float, device_mb: float) -> None:
    n_a_gpu = 1 if resources.auto or resources.gpu >= 1 else _times(1.0, resources.gpu)
    if n_a_gpu * limit_mb > device_mb:
        times = f"{n_a_gpu} trials of " if n_a_gpu > 1 else ""
        raise ConfigError(
            f"resources: gpu {resources.gpu:g} and gpu_memory {limit_mb:.0f} MiB put {times}{limit_mb:.0f} MiB = "
            f"{n_a_gpu * limit_mb:.0f} MiB on a GPU of {device_mb:.0f} MiB, the smallest of the cluster; lower "
            f"gpu_memory to {device_mb / n_a_gpu:.0f} MiB, or give each trial more of a GPU"
        )


def _n_a_gpu(need_mb: float | None, device_mb: float | None) -> int:
    """Trials of a need that a GPU holds; one where either is not known, or it holds not even one."""
    if need_mb is None or device_mb is None:
        return 1
    return max(1, min(MAX_A_GPU, _times(device_mb, need_mb)))


def _share_of(n_a_gpu: int) -> float:
    return _floored(1.0 / n_a_gpu)


def _floored(amount: float) -> float:
    return math.floor(amount * _RAY_STEPS + 1e-6) / _RAY_STEPS


def _on_cores(resources: Resources, nodes: Sequence[Node], need_mb: float | None) -> TrialRequest:
    asked = {"cpu": resources.cpu or 1.0}
    most_mb = max((node.memory_mb for node in nodes), default=0.0)
    if resources.auto and need_mb is not None and most_mb > 0:
        asked["memory"] = math.floor(min(need_mb, most_mb) * _MIB)
    return TrialRequest(asked)


def pin_threads(n: int) -> None:
    """Let this process, and those that it starts, compute with n threads: trials side by side must not fight for cores.

    Args:
        n: threads, at least 1.
    """
    import cv2
    import pyarrow
    import torch

    torch.set_num_threads(n)
    cv2.setNumThreads(n if n > 1 else 0)  # 0 is none beside the caller's
    pyarrow.set_cpu_count(n)
    for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
        os.environ[name] = str(n)
