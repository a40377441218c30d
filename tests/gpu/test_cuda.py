"""What only a CUDA device can show; skipped with a plain reason where there is none."""

import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from ichtune.models.network import create_network
from ichtune.recipe import Recipe
from ichtune.training.checkpoint import optimizer_tensors
from ichtune.training.devices import batches_on
from ichtune.training.fold_run import fold_rows, open_batches
from ichtune.training.loop import TrainingRun
from ichtune.training.memory import CONTEXT_MB, MIB, free_memory, hold_to_share, peak_memory_mb
from ichtune.training.optimizers import OPTIMIZERS, create_optimizer
from ichtune.training.predict import Extraction, FoldModel, extract, load_model
from ichtune.training.tta import VIEWS
from ichtune.workspace import Workspace

pytestmark = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")]

GPU, CPU = torch.device("cuda"), torch.device("cpu")


def recipe(keys: dict[str, Any], **changes: Any) -> Recipe:
    settings: dict[str, Any] = {
        "architecture": "tiny_convnet",
        "windows": "brain",
        "image_px": 32,
        "lr": 1e-2,
        "epochs": 8,
        "batch_size": 4,
        "ema_decay": 0.9,
    }
    return Recipe(**(settings | keys | changes))


def start(workspace: Workspace, chosen: Recipe, device: torch.device) -> TrainingRun:
    rows = fold_rows(workspace, 0)
    return TrainingRun(chosen, open_batches(workspace, chosen), rows.train, rows.valid, device)


def finish(run: TrainingRun, after_step: Callable[[TrainingRun], None] | None = None) -> TrainingRun:
    while not run.finished:
        run.run_epoch(after_step)
    return run


def losses(run: TrainingRun) -> np.ndarray:
    return np.array([[epoch.train_loss, epoch.val_weighted_log_loss] for epoch in run.history])


def tensors_of(run: TrainingRun) -> dict[str, torch.Tensor]:
    return {**run.network.state_dict(), **optimizer_tensors(run._optimizer)}


def memory_order(tensor: torch.Tensor) -> list[int]:
    """Strides, without those of dimensions of one entry, which say nothing."""
    return [stride for stride, size in zip(tensor.stride(), tensor.shape, strict=True) if size > 1]


def same_model_on(model: FoldModel, chosen: Recipe, device: torch.device) -> FoldModel:
    networks = []
    for network in model.networks:
        twin = create_network(chosen)
        twin.load_state_dict(network.state_dict())
        networks.append(twin.to(device))
    return FoldModel(tuple(networks))


class KilledError(Exception):
    """Stands for the death of the process."""


def test_a_gpu_learns_what_a_cpu_learns(session_workspace: Workspace, stateful: dict[str, Any]) -> None:
    gpu, cpu = (finish(start(session_workspace, recipe(stateful), device)) for device in (GPU, CPU))

    assert all(parameter.device.type == GPU.type for parameter in gpu.network.parameters())
    assert np.isfinite(losses(gpu)).all()
    assert losses(gpu)[0, 0] - losses(gpu)[-1, 0] > 0.03
    # bfloat16 against float32, and dropout draws other numbers on a GPU
    np.testing.assert_allclose(losses(gpu), losses(cpu), rtol=0.1 if recipe(stateful).dropout == 0 else 0.3)


def test_the_input_of_a_step_is_the_same_on_both(session_workspace: Workspace, stateful: dict[str, Any]) -> None:
    prepared = []
    for device in (GPU, CPU):
        run = start(session_workspace, recipe(stateful), device)
        batch = next(iter(batches_on(run.data.training(run.train_rows, run.recipe, 0), device)))
        prepared.append([part.detach().cpu() for part in run.prepare(batch)])

    for gpu, cpu in zip(*prepared, strict=True):
        # resampling in float32: a pixel may come to lie on the other side of an edge by a rounding
        assert float((gpu - cpu).abs().mean()) < 1e-4
        torch.testing.assert_close(gpu, cpu, rtol=0.0, atol=0.05)


def test_a_run_killed_on_a_gpu_is_taken_up_where_it_was(
    session_workspace: Workspace, tmp_path: Path, stateful: dict[str, Any]
) -> None:
    chosen, path = recipe(stateful), tmp_path / "resume.safetensors"
    whole = finish(start(session_workspace, chosen, GPU))
    left = start(session_workspace, chosen, GPU)

    def kill(run: TrainingRun) -> None:
        if run.epoch == 1 and run.step_in_epoch == 1:
            run.save(path)
            raise KilledError

    with pytest.raises(KilledError):
        finish(left, kill)
    taken_up = start(session_workspace, chosen, GPU)
    taken_up.load(path)

    assert (taken_up.epoch, taken_up.step_in_epoch) == (1, 1)
    restored = tensors_of(taken_up)
    for key, tensor in tensors_of(left).items():
        assert restored[key].device == tensor.device, key
        assert memory_order(restored[key]) == memory_order(tensor), key  # a fused step walks memory as it lies
        assert torch.equal(restored[key], tensor), key
    # kernels of a GPU add up in any order: near, not to the last bit
    np.testing.assert_allclose(losses(finish(taken_up)), losses(whole), rtol=0.05)


def test_a_checkpoint_travels_from_gpu_to_cpu(
    session_workspace: Workspace, tmp_path: Path, stateful: dict[str, Any]
) -> None:
    gpu = finish(start(session_workspace, recipe(stateful), GPU))
    gpu.save(tmp_path / "resume.safetensors")
    cpu = start(session_workspace, recipe(stateful), CPU)
    cpu.load(tmp_path / "resume.safetensors")

    np.testing.assert_allclose(cpu.predict(cpu.valid_rows), gpu.predict(gpu.valid_rows), atol=0.02)


def test_weights_of_a_gpu_predict_and_embed_on_both(
    session_workspace: Workspace, tmp_path: Path, stateful: dict[str, Any]
) -> None:
    run = finish(start(session_workspace, recipe(stateful), GPU))
    run.save_weights(tmp_path / "weights.safetensors", {"fold": 0})
    seen = []
    for device in (GPU, CPU):
        model, chosen = load_model(tmp_path / "weights.safetensors", device)
        seen.append(extract(model, chosen, run.data, run.valid_rows, device, embeddings=True))

    assert_near(*seen)
    np.testing.assert_allclose(seen[0].p_MNL.mean(axis=0), run.predict(run.valid_rows), atol=1e-3)


@pytest.mark.parametrize("views", VIEWS)
def test_views_of_a_slice_are_the_same_on_both(session_workspace: Workspace, views: str) -> None:
    run = finish(start(session_workspace, recipe({}), GPU))
    chosen = replace(run.recipe, tta=views)
    seen, shown = [], []
    for device in (GPU, CPU):
        model = same_model_on(run.model(), chosen, device)
        model.networks[0].inputs.register_forward_pre_hook(lambda _, given: shown.append(given[0].cpu()))
        seen.append(extract(model, chosen, run.data, run.valid_rows, device, embeddings=True))

    assert_near(*seen)
    n_views = len(VIEWS[views])
    assert len(shown) == 2 * n_views
    for gpu, cpu in zip(shown[:n_views], shown[n_views:], strict=True):
        # where a pixel is looked up is computed in float32: autocast would be off by a share of a pixel
        torch.testing.assert_close(gpu, cpu, rtol=0.0, atol=0.1)


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_optimizers_that_can_take_a_step_in_one_kernel_do(name: str) -> None:
    kind = OPTIMIZERS[name]
    network = create_network(recipe({})).to(GPU)
    optimizer = create_optimizer(network, recipe({}, optimizer=name))

    assert {bool(group.get("fused")) for group in optimizer.param_groups} == {kind.fused}


@pytest.fixture
def let_go() -> Iterator[None]:
    """Holds this process to no share of the GPU afterwards."""
    free_memory(GPU)
    yield
    hold_to_share(GPU)


@pytest.mark.usefixtures("let_go")
def test_a_process_takes_no_more_of_a_gpu_than_its_share() -> None:
    assert hold_to_share(GPU, gpu_memory_mb=CONTEXT_MB + 256) == 256
    kept = torch.empty(128 * MIB, dtype=torch.uint8, device=GPU)
    with pytest.raises(torch.OutOfMemoryError):
        torch.empty(256 * MIB, dtype=torch.uint8, device=GPU)
    del kept
    total_mb = torch.cuda.get_device_properties(GPU).total_memory / MIB
    assert hold_to_share(GPU, 0.5) == pytest.approx(total_mb / 2 - CONTEXT_MB)
    assert hold_to_share(GPU) == total_mb
    assert torch.empty(256 * MIB, dtype=torch.uint8, device=GPU).device.type == "cuda"


#: Large enough that activations are most of what a step takes, on a network with batch norm and on one without.
LARGE = [{"architecture": "resnet18", "dropout": 0.3}, {"architecture": "test_convnext"}]


@pytest.mark.usefixtures("let_go")
@pytest.mark.parametrize("keys", LARGE)
def test_a_batch_that_does_not_fit_is_learnt_from_all_the_same(
    session_workspace: Workspace, keys: dict[str, Any]
) -> None:
    chosen = recipe(keys, image_px=224, batch_size=32, epochs=2, lr=1e-3)
    hold_to_share(GPU)
    whole = finish(start(session_workspace, chosen, GPU))
    took_mb = torch.cuda.max_memory_allocated(GPU) / MIB
    assert not whole.is_short_of_memory
    outcome, notes = losses(whole), list(whole.notes)
    del whole
    hold_to_share(GPU, gpu_memory_mb=CONTEXT_MB + 0.75 * took_mb)
    short = finish(start(session_workspace, chosen, GPU))

    assert short.is_short_of_memory
    assert torch.cuda.max_memory_reserved(GPU) / MIB <= 0.75 * took_mb
    assert next(note for note in short.notes if note not in notes).startswith("out of memory: ")
    # kernels of a GPU add up in any order, and in bfloat16: near, not to the last bit
    np.testing.assert_allclose(losses(short), outcome, rtol=0.05)


@pytest.mark.usefixtures("let_go")
def test_a_trial_that_is_held_to_its_measured_peak_fits(session_workspace: Workspace) -> None:
    chosen = recipe(LARGE[0], image_px=224, batch_size=32, epochs=2)
    hold_to_share(GPU)
    peak_mb = peak_memory_mb(start(session_workspace, chosen, GPU))
    smaller_mb = peak_memory_mb(start(session_workspace, replace(chosen, batch_size=8), GPU))
    assert CONTEXT_MB < smaller_mb < peak_mb
    hold_to_share(GPU, gpu_memory_mb=peak_mb)
    assert not finish(start(session_workspace, chosen, GPU)).is_short_of_memory


CONTEXT = """
import torch
x = torch.randn(8, 64, 56, 56, device="cuda", requires_grad=True)
w = torch.randn(64, 64, 3, 3, device="cuda", requires_grad=True)
with torch.autocast("cuda", dtype=torch.bfloat16):
    y = torch.nn.functional.conv2d(x, w, padding=1).flatten(1)
    (y @ torch.randn(64 * 56 * 56, 8, device="cuda")).sum().backward()
torch.cuda.synchronize()
print(torch.cuda.memory_reserved(), flush=True)
input()
"""


def test_cuda_itself_takes_no_more_than_is_set_aside_for_it() -> None:
    torch.zeros(1, device=GPU)
    free_before, _ = torch.cuda.mem_get_info(GPU)
    command = [sys.executable, "-c", CONTEXT]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        reserved = int(process.stdout.readline())  # type: ignore[union-attr]
        free_meanwhile, _ = torch.cuda.mem_get_info(GPU)
        process.communicate("\n")
    assert (free_before - free_meanwhile - reserved) / MIB < CONTEXT_MB


def assert_near(gpu: Extraction, cpu: Extraction) -> None:
    np.testing.assert_allclose(gpu.p_MNL, cpu.p_MNL, atol=0.02)
    assert gpu.e_MND is not None
    assert cpu.e_MND is not None
    assert np.isfinite(gpu.e_MND).all()
    scale = np.abs(cpu.e_MND).max()
    np.testing.assert_allclose(gpu.e_MND / scale, cpu.e_MND / scale, atol=0.02)
