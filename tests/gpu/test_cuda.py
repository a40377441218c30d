"""What only a CUDA device can show; skipped with a plain reason where there is none."""

import numpy as np
import pytest
import torch

from ichtune.recipe import Recipe
from ichtune.training.fold_run import fold_rows, open_batches
from ichtune.training.loop import TrainingRun

pytestmark = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")]

RECIPE = Recipe(architecture="tiny_convnet", image_px=32, batch_size=8, epochs=2, windows="brain", lr=3e-3)


def run_on(device, workspace):
    rows = fold_rows(workspace, 0)
    run = TrainingRun(RECIPE, open_batches(workspace, RECIPE), rows.train, rows.valid, torch.device(device))
    while not run.finished:
        run.run_epoch()
    return run


def test_a_gpu_learns_what_a_cpu_learns(session_workspace):
    gpu, cpu = run_on("cuda", session_workspace), run_on("cpu", session_workspace)

    assert next(gpu.network.parameters()).is_cuda
    losses = [[epoch.val_weighted_log_loss for epoch in run.history] for run in (gpu, cpu)]
    np.testing.assert_allclose(*losses, rtol=0.1)  # bfloat16 against float32


def test_a_checkpoint_travels_from_gpu_to_cpu(session_workspace, tmp_path):
    gpu = run_on("cuda", session_workspace)
    gpu.save(tmp_path / "resume.safetensors")
    rows = fold_rows(session_workspace, 0)
    data = open_batches(session_workspace, RECIPE)
    cpu = TrainingRun(RECIPE, data, rows.train, rows.valid, torch.device("cpu"))
    cpu.load(tmp_path / "resume.safetensors")

    np.testing.assert_allclose(cpu.predict(rows.valid), gpu.predict(rows.valid), atol=0.02)
