"""Resume is exact: killed after any step and taken up again, a run ends with the same weights to the last bit."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from ichtune.recipe import Recipe
from ichtune.training.fold_run import fold_rows, open_batches
from ichtune.training.loop import TrainingRun
from ichtune.workspace import Workspace

pytestmark = pytest.mark.slow  # trains again after each step


def recipe(**changes: Any) -> Recipe:
    settings: dict[str, Any] = {
        "architecture": "tiny_convnet",
        "windows": "brain",
        "image_px": 32,
        "lr": 1e-2,
        "epochs": 3,
        "batch_size": 12,
        "ema_decay": 0.9,
    }
    return Recipe(**(settings | changes))


def start(workspace: Workspace, chosen: Recipe) -> TrainingRun:
    rows = fold_rows(workspace, 0)
    return TrainingRun(chosen, open_batches(workspace, chosen), rows.train, rows.valid, torch.device("cpu"))


def finish(run: TrainingRun, after_step: Callable[[TrainingRun], None] | None = None) -> TrainingRun:
    while not run.finished:
        run.run_epoch(after_step)
    return run


def assert_same_run(one: TrainingRun, other: TrainingRun) -> None:
    for (name, a), b in zip(one.network.state_dict().items(), other.network.state_dict().values(), strict=True):
        assert torch.equal(a, b), name
    np.testing.assert_array_equal(one.predict(one.valid_rows), other.predict(other.valid_rows))
    losses = [[(r.epoch, r.train_loss, r.val_weighted_log_loss, r.lr) for r in run.history] for run in (one, other)]
    assert losses[0] == losses[1]


class KilledError(Exception):
    """Stands for the death of the process."""


def test_a_run_killed_after_any_step_ends_with_the_same_bits(
    session_workspace: Workspace, tmp_path: Path, stateful: dict[str, Any]
) -> None:
    chosen = recipe(**stateful)
    path = tmp_path / "resume.safetensors"
    whole = start(session_workspace, chosen)
    steps = 0

    def count(run: TrainingRun) -> None:
        nonlocal steps
        steps += 1

    finish(whole, count)
    for last in range(1, steps + 1):
        left, taken = start(session_workspace, chosen), 0

        def kill(run: TrainingRun, last: int = last) -> None:
            nonlocal taken
            taken += 1
            if taken == last:
                run.save(path)
                raise KilledError

        with pytest.raises(KilledError):
            finish(left, kill)
        torch.manual_seed(last)
        taken_up = start(session_workspace, chosen)
        taken_up.load(path)
        assert taken_up.epoch + taken_up.step_in_epoch > 0
        assert_same_run(whole, finish(taken_up))
