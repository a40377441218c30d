"""Where to compute, in what precision, and how a batch gets there.

Dimension key: B batch, S slices seen, H height, W width, K targets.
"""

from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass

import torch

from ichtune.data.dataset import Batch
from ichtune.data.prefetch import prefetched


@dataclass(frozen=True)
class DeviceBatch:
    """A batch on its device: raw HU, targets and their weights, and each slice's own window (centre, width) in HU."""

    hu_BSHW: torch.Tensor
    y_BK: torch.Tensor
    weight_BK: torch.Tensor
    own_B2: torch.Tensor

    def part(self, start: int, stop: int) -> "DeviceBatch":
        """Return samples ``start`` to ``stop``, in the same memory."""
        parts = (self.hu_BSHW, self.y_BK, self.weight_BK, self.own_B2)
        return DeviceBatch(*(part[start:stop] for part in parts))


def best_device() -> torch.device:
    """Return the first CUDA device, or the CPU."""
    return torch.device("cuda") if torch.cuda.is_available() else torch.device("cpu")


def device_for(wants_gpu: bool) -> torch.device:
    """Return the best device for work that asked for a GPU, and the CPU for work that did not."""
    return best_device() if wants_gpu else torch.device("cpu")


def autocast(device: torch.device) -> AbstractContextManager[object]:
    """Return bfloat16 autocast on a CUDA device that supports it, and full precision elsewhere (faster on CPUs)."""
    enabled = device.type == "cuda" and torch.cuda.is_bf16_supported(including_emulation=False)
    return torch.autocast(device.type, dtype=torch.bfloat16, enabled=enabled)


def prefetch_depth(device: torch.device) -> int:
    """Return how many batches a thread reads ahead: none on a CPU, which has its hands full."""
    return 2 if device.type == "cuda" else 0


def pinned(batch: Batch, device: torch.device) -> DeviceBatch:
    """Return the batch as tensors in host memory, page-locked where they will go to a GPU."""
    arrays = (batch.hu_BSHW, batch.y_BK, batch.weight_BK, batch.own_B2)
    tensors = [torch.from_numpy(array) for array in arrays]
    return DeviceBatch(*(t.pin_memory() for t in tensors)) if device.type == "cuda" else DeviceBatch(*tensors)


def to_device(batch: DeviceBatch, device: torch.device) -> DeviceBatch:
    """Copy a batch to the device, without waiting where the memory is page-locked."""
    parts = (batch.hu_BSHW, batch.y_BK, batch.weight_BK, batch.own_B2)
    return DeviceBatch(*(part.to(device, non_blocking=True) for part in parts))


def batches_on(batches: Iterable[Batch], device: torch.device) -> Iterator[DeviceBatch]:
    """Yield training batches on the device; for a GPU a thread reads ahead."""
    for batch in prefetched((pinned(batch, device) for batch in batches), prefetch_depth(device)):
        yield to_device(batch, device)
