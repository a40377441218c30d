"""How fast a recipe trains, beside the bare network: what reading, windows, augmentation and bookkeeping cost.

Dimension key: B batch, C channels, K targets.
"""

import statistics
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import islice
from typing import Any

import torch
from torch import nn

from ichtune.labels import N_LABELS
from ichtune.models.architectures import ARCHITECTURES
from ichtune.training.devices import DeviceBatch, autocast
from ichtune.training.loop import TrainingRun
from ichtune.training.losses import reduce_loss

#: Steps before anything is timed: allocators, caches and compilers settle.
WARM_UP = 2


@dataclass(frozen=True)
class TrainingSpeed:
    """Images a second of training and of the bare network, medians over the rounds, and the median of their ratios.

    Attributes:
        images_per_second: of whole optimizer steps on slices from the cache.
        bare_per_second: of forward and backward passes of the same network on a random tensor, with no optimizer; of
            timm's own model where the architecture is one of timm's.
        ratio: median over rounds of the first over the second, measured one after the other.
        peak_memory_mb: most memory that training's tensors took on a GPU, without the bare network's; None on a CPU.
    """

    images_per_second: float
    bare_per_second: float
    ratio: float
    peak_memory_mb: float | None


def measure_speed(run: TrainingRun, n_steps: int = 5, n_rounds: int = 5) -> TrainingSpeed:
    """Time whole training steps and bare ones of one run, in turns.

    The run's weights change; its history does not.

    Args:
        run: at its start.
        n_steps: steps of each kind in a round.
        n_rounds: rounds; medians are taken over them.
    """
    batches = run.endless()

    def whole() -> int:
        n_images = 0
        for batch in islice(batches, n_steps):
            run.step(batch)
            n_images += len(batch.y_BK)
        return n_images

    peak_memory_mb = _peak_memory_mb(run, batches)
    network, x_BCHW = _bare_network(run), _random_input(run)

    def bare() -> int:
        for _ in range(n_steps):
            _bare_step(network, x_BCHW, run.recipe.accumulation)
        return n_steps * len(x_BCHW)

    _bare_step(network, x_BCHW, run.recipe.accumulation)
    rounds = [(_per_second(whole, run.device), _per_second(bare, run.device)) for _ in range(n_rounds)]
    return TrainingSpeed(
        images_per_second=statistics.median(one for one, _ in rounds),
        bare_per_second=statistics.median(other for _, other in rounds),
        ratio=statistics.median(one / other for one, other in rounds),
        peak_memory_mb=peak_memory_mb,
    )


def _peak_memory_mb(run: TrainingRun, batches: Iterator[DeviceBatch]) -> float | None:
    """Take the first steps, which settle allocators, caches and compilers, and return what they took of a GPU."""
    if run.device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(run.device)
    for batch in islice(batches, WARM_UP):
        run.step(batch)
    return torch.cuda.max_memory_allocated(run.device) / 2**20 if run.device.type == "cuda" else None


def _random_input(run: TrainingRun) -> torch.Tensor:
    sides = [run.recipe.image_px] * 2
    x_BCHW = torch.randn(run.recipe.batch_size, run.recipe.n_channels, *sides, device=run.device)
    return x_BCHW.contiguous(memory_format=torch.channels_last)


def _bare_network(run: TrainingRun) -> nn.Module:
    """The network as its own library makes it, on the run's device; ours as it is in the run."""
    if run.recipe.architecture in ARCHITECTURES:
        return run.network.body
    import timm

    settings: dict[str, Any] = {"in_chans": run.recipe.n_channels, "num_classes": N_LABELS}
    network: nn.Module = timm.create_model(run.recipe.architecture, **settings)
    if hasattr(network, "set_input_size"):
        network.set_input_size(img_size=(run.recipe.image_px, run.recipe.image_px))  # type: ignore[operator]
    network = network.to(run.device).to(memory_format=torch.channels_last).train()
    return torch.compile(network) if run.recipe.compile else network  # type: ignore[return-value]


def _bare_step(network: nn.Module, x_BCHW: torch.Tensor, n_parts: int) -> None:
    network.zero_grad(set_to_none=True)
    for x in x_BCHW.tensor_split(n_parts):
        with autocast(x.device):
            logits_BK = network(x)
        reduce_loss(logits_BK.float().square(), torch.ones_like(logits_BK, dtype=torch.float32)).backward()


def _per_second(work: Callable[[], int], device: torch.device) -> float:
    _finish(device)
    start = time.perf_counter()
    n_images = work()
    _finish(device)
    return n_images / (time.perf_counter() - start)


def _finish(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
