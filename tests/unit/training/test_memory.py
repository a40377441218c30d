"""Memory: what says that there is none, keeping to a share, halving what does not fit, and the peak of a run."""

import math
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from ichtune.errors import ConfigError, NothingUsableError
from ichtune.recipe import Recipe
from ichtune.training import memory
from ichtune.training.fold_run import open_fold
from ichtune.training.loop import TrainingRun
from ichtune.training.memory import (
    CONTEXT_MB,
    MARGIN,
    MIB,
    hold_to_share,
    in_parts_that_fit,
    is_out_of_memory,
    peak_memory_mb,
)
from ichtune.workspace import Workspace

CPU, GPU = torch.device("cpu"), torch.device("cuda")


def start(workspace: Workspace, **changes: Any) -> TrainingRun:
    settings: dict[str, Any] = {"architecture": "tiny_convnet", "windows": "brain", "image_px": 32, "batch_size": 8}
    return open_fold(workspace, Recipe(**(settings | changes)), 0, CPU).run


def caught(work: Callable[[], Any]) -> Exception:
    with pytest.raises((RuntimeError, MemoryError)) as raised:
        work()
    return raised.value


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 MiB."),
        MemoryError(),
        RuntimeError("CUDA error: out of memory\nCUDA kernel errors might be asynchronously reported"),
        RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
        RuntimeError("cuDNN error: CUDNN_STATUS_ALLOC_FAILED"),
        RuntimeError("GET was unable to find an engine to execute this computation"),
        RuntimeError("could not create a primitive"),
    ],
)
def test_what_says_that_memory_is_out(error: Exception) -> None:
    assert is_out_of_memory(error)
    wrapped = RuntimeError("the compiler failed")
    wrapped.__cause__ = error
    assert is_out_of_memory(wrapped)


def test_what_this_machine_says_when_memory_is_out() -> None:
    assert is_out_of_memory(caught(lambda: torch.empty(1 << 50)))
    assert is_out_of_memory(caught(lambda: np.empty(1 << 50)))


@pytest.mark.parametrize(
    "error",
    [
        RuntimeError("mat1 and mat2 shapes cannot be multiplied"),
        RuntimeError("could not create a primitive descriptor for a convolution forward propagation primitive"),
        ValueError("CUDA out of memory lane"),
        OSError(28),
    ],
)
def test_what_says_something_else(error: Exception) -> None:
    assert not is_out_of_memory(error)


def test_a_processor_is_not_held_to_anything(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "set_per_process_memory_fraction", lambda *_: pytest.fail("held"))
    assert hold_to_share(CPU, 0.25) is None


@pytest.fixture
def held(monkeypatch: pytest.MonkeyPatch) -> list[tuple[float, int]]:
    """Stands for a GPU of 40 GiB; receives the fractions that this process is held to, and of which device."""
    told: list[tuple[float, int]] = []
    about = SimpleNamespace(total_memory=40960 * MIB, name="a GPU")
    monkeypatch.setattr(torch.cuda, "current_device", lambda: 3)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda index: about)
    monkeypatch.setattr(torch.cuda, "empty_cache", lambda: None)
    monkeypatch.setattr(torch.cuda, "reset_peak_memory_stats", lambda index: None)
    monkeypatch.setattr(torch.cuda, "set_per_process_memory_fraction", lambda *given: told.append(given))
    return told


@pytest.mark.slow  # takes seconds
def test_a_trial_is_held_to_its_share_with_the_context_in_it(held: list[tuple[float, int]]) -> None:
    assert hold_to_share(GPU, 0.25) == 10240 - CONTEXT_MB
    assert hold_to_share(torch.device("cuda", 1), 0.25, gpu_memory_mb=8192) == 8192 - CONTEXT_MB
    expected = [((10240 - CONTEXT_MB) / 40960, 3), ((8192 - CONTEXT_MB) / 40960, 1)]
    assert held == [(pytest.approx(fraction), index) for fraction, index in expected]


@pytest.mark.slow  # takes seconds
def test_who_has_the_whole_device_is_let_go_of(held: list[tuple[float, int]]) -> None:
    for share, gpu_memory_mb in ((1.0, None), (2.0, None), (0.5, 90000.0)):
        assert hold_to_share(GPU, share, gpu_memory_mb) == 40960
    assert held == [(1.0, 3)] * 3


def test_a_share_that_holds_nothing_is_refused(held: list[tuple[float, int]]) -> None:
    with pytest.raises(ConfigError, match=r"410 MiB of a GPU's 40960 MiB hold no trial .* more of the GPU by `gpu`"):
        hold_to_share(GPU, 0.01)
    assert held == []


def test_parts_are_halved_until_they_fit_and_stay_so() -> None:
    done: list[int] = []
    tried: list[int] = []

    def work(start: int, stop: int) -> None:
        tried.append(stop - start)
        if stop - start > 3:
            raise torch.OutOfMemoryError("CUDA out of memory")
        done.extend(range(start, stop))

    n_at_a_time = in_parts_that_fit(work, 10, 16, CPU)
    assert done == list(range(10))
    assert tried == [10, 5, 3, 3, 3, 1]
    assert in_parts_that_fit(work, 4, n_at_a_time, CPU) == n_at_a_time == 3
    assert in_parts_that_fit(work, 0, n_at_a_time, CPU) == 3


def test_a_single_item_that_does_not_fit_and_other_errors_are_told() -> None:
    def never(start: int, stop: int) -> None:
        raise MemoryError

    with pytest.raises(NothingUsableError, match=r"out of memory on cpu with a single slice: MemoryError. Lower image"):
        in_parts_that_fit(never, 10, 16, CPU)
    with pytest.raises(ZeroDivisionError):
        in_parts_that_fit(lambda start, stop: 1 // 0, 10, 16, CPU)


def telling(seen: list[str], name: str, own: Callable[..., Any]) -> Callable[..., Any]:
    return lambda *given: (seen.append(name), own(*given))[1]


def test_the_optimizer_a_branch_and_validation_are_in_the_peak(session_workspace: Workspace) -> None:
    seen: list[str] = []
    run = start(session_workspace)
    for name in ("step", "snapshot", "predict"):
        setattr(run, name, telling(seen, name, getattr(run, name)))
    peak_memory_mb(run, n_steps=1)
    assert seen == ["step", "snapshot", "step", "predict"]


def test_what_later_epochs_add_is_in_the_peak(session_workspace: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "_highest_resident_mb", lambda: 0.0)
    settings: dict[str, Any] = {"architecture": "test_resnet", "epochs": 4}
    plain, snapshots, mean = (
        peak_memory_mb(start(session_workspace, **settings, **more))
        for more in ({}, {"snapshots": 3}, {"swa_start": 0.5})
    )
    state = start(session_workspace, **settings).network.state_dict().values()
    state_mb = sum(tensor.numel() * tensor.element_size() for tensor in state) / MIB
    assert plain == 0.0
    assert snapshots == pytest.approx(4 * state_mb)
    assert mean == pytest.approx(state_mb)


@pytest.mark.parametrize("most", [0, 3])
def test_a_run_that_does_not_fit_has_no_peak(session_workspace: Workspace, most: int) -> None:
    run = start(session_workspace, architecture="test_convnext")
    forward = run.network.forward

    def limited(x_BCHW: torch.Tensor) -> torch.Tensor:
        if len(x_BCHW) > most:
            raise torch.OutOfMemoryError("CUDA out of memory")
        logits_BK: torch.Tensor = forward(x_BCHW)
        return logits_BK

    run.network.forward = limited  # type: ignore[assignment]
    assert peak_memory_mb(run) == math.inf


def test_a_failure_of_another_kind_is_no_peak(session_workspace: Workspace) -> None:
    run = start(session_workspace)
    run.network.forward = lambda x_BCHW: x_BCHW.no_such_thing  # type: ignore[assignment]
    with pytest.raises(AttributeError):
        peak_memory_mb(run)


def test_a_gpu_s_peak_has_a_margin_and_the_context(
    session_workspace: Workspace, monkeypatch: pytest.MonkeyPatch, held: list[tuple[float, int]]
) -> None:
    monkeypatch.setattr(torch.cuda, "max_memory_reserved", lambda device: 1000 * MIB)
    run = start(session_workspace)
    run.device = SimpleNamespace(type="cuda")  # type: ignore[assignment]
    run.endless = lambda: iter(())  # type: ignore[assignment, method-assign]
    run.predict = lambda rows: rows  # type: ignore[method-assign]
    assert peak_memory_mb(run) == pytest.approx(1000 * (1 + MARGIN) + CONTEXT_MB)
