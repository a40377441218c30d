"""Devices: batches arrive whole, and a processor computes in full precision."""

import numpy as np
import torch

from ichtune.data.dataset import Batch
from ichtune.training.devices import autocast, batches_on, best_device, device_for, pinned, prefetch_depth, to_device

CPU = torch.device("cpu")


def batch(number: int) -> Batch:
    rng = np.random.default_rng(number)
    return Batch(
        hu_BSHW=rng.normal(size=(2, 3, 4, 4)).astype(np.float32),
        y_BK=rng.random((2, 6)).astype(np.float32),
        weight_BK=rng.random((2, 6)).astype(np.float32),
        own_B2=rng.random((2, 2)).astype(np.float32),
        rows=np.array([number, number + 1]),
    )


def test_work_that_asked_for_no_gpu_gets_none() -> None:
    assert device_for(False) == CPU
    assert device_for(True) == best_device()


def test_a_processor_computes_in_full_precision_and_reads_nothing_ahead() -> None:
    with autocast(CPU):
        assert (torch.ones(2, 2) @ torch.ones(2, 2)).dtype == torch.float32
    assert prefetch_depth(CPU) == 0


def test_every_part_of_every_batch_arrives_in_order() -> None:
    made = [batch(n) for n in range(5)]
    for got, expected in zip(batches_on(iter(made), CPU), made, strict=True):
        assert torch.equal(got.hu_BSHW, torch.from_numpy(expected.hu_BSHW))
        assert torch.equal(got.y_BK, torch.from_numpy(expected.y_BK))
        assert torch.equal(got.weight_BK, torch.from_numpy(expected.weight_BK))
        assert torch.equal(got.own_B2, torch.from_numpy(expected.own_B2))
    whole = pinned(made[0], CPU)
    assert to_device(whole, CPU).y_BK is whole.y_BK


def test_a_part_of_a_batch_is_of_all_its_tensors_and_of_the_same_memory() -> None:
    whole = pinned(batch(1), CPU)
    last = whole.part(1, 2)
    assert last.hu_BSHW.data_ptr() == whole.hu_BSHW[1:].data_ptr()
    for name in ("hu_BSHW", "y_BK", "weight_BK", "own_B2"):
        assert torch.equal(getattr(last, name), getattr(whole, name)[1:2])
