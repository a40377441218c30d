"""What the nodes of a Ray cluster have, GPUs' memory included, which Ray does not know."""

import contextlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

#: Seconds that GPUs have to tell what memory they have; one that is busy for longer counts as unknown.
LOOK_TIMEOUT_S = 60.0
#: The least share of a GPU that Ray counts: whoever asks for it is shown one.
_LEAST_SHARE = 0.0001
_MIB = 2**20


@dataclass(frozen=True)
class Node:
    """What one node has.

    Attributes:
        n_cpus: cores.
        n_gpus: GPUs.
        memory_mb: MiB of host memory that Ray gives to tasks; 0 if it is not known.
        gpu_name: kind of its GPUs; empty if it is not known.
        gpu_memory_mb: MiB of each of its GPUs; 0 if it is not known.
        node_id: Ray's name for it.
    """

    n_cpus: float
    n_gpus: float = 0.0
    memory_mb: float = 0.0
    gpu_name: str = ""
    gpu_memory_mb: float = 0.0
    node_id: str = ""


def look_at_nodes(*, gpu_memory: bool = False) -> list[Node]:
    """Return what the living nodes of the connected cluster have.

    Args:
        gpu_memory: also ask the GPUs for their memory, which takes a short task on each node that has any.
    """
    import ray

    nodes = [_node(told) for told in ray.nodes() if told.get("Alive")]
    return _with_gpu_memory(nodes) if gpu_memory else nodes


def smallest_gpu(nodes: Sequence[Node]) -> Node | None:
    """Return the node whose GPUs have the least memory, of those that told; None if none did."""
    told = [node for node in nodes if node.n_gpus > 0 and node.gpu_memory_mb > 0]
    return min(told, key=lambda node: node.gpu_memory_mb, default=None)


def _node(told: dict[str, Any]) -> Node:
    has = told.get("Resources", {})
    return Node(
        n_cpus=has.get("CPU", 0.0),
        n_gpus=has.get("GPU", 0.0),
        memory_mb=has.get("memory", 0.0) / _MIB,
        node_id=told["NodeID"],
    )


def _with_gpu_memory(nodes: list[Node]) -> list[Node]:
    import ray
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    remote = ray.remote(num_cpus=0, num_gpus=_LEAST_SHARE, max_retries=0, max_calls=1)(gpu_facts)
    asked = {
        node.node_id: remote.options(
            scheduling_strategy=NodeAffinitySchedulingStrategy(node.node_id, soft=False)
        ).remote()
        for node in nodes
        if node.n_gpus > 0
    }
    if asked:
        ray.wait(list(asked.values()), num_returns=len(asked), timeout=LOOK_TIMEOUT_S)
    facts: dict[str, tuple[str, float]] = {}
    for node_id, reference in asked.items():
        with contextlib.suppress(ray.exceptions.RayError):  # GetTimeoutError among them
            facts[node_id] = ray.get(reference, timeout=0)
    return [_told(node, *facts.get(node.node_id, ("", 0.0))) for node in nodes]


def _told(node: Node, name: str, memory_mb: float) -> Node:
    return replace(node, gpu_name=name, gpu_memory_mb=memory_mb)


def gpu_facts() -> tuple[str, float]:
    """Return name and MiB of the GPU that this process is shown; nothing where there is none but on paper."""
    import torch

    if not torch.cuda.is_available():
        return "", 0.0
    about = torch.cuda.get_device_properties(0)
    return str(about.name), about.total_memory / _MIB
