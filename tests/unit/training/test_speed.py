"""Speed: both kinds of step are timed, and nothing of the history changes."""

import torch

from ichtune.recipe import Recipe
from ichtune.training.fold_run import open_fold
from ichtune.training.speed import measure_speed
from ichtune.workspace import Workspace

RECIPE = Recipe(architecture="tiny_convnet", windows="brain", image_px=32, batch_size=8)  # type: ignore[arg-type]


def test_a_ratio_of_two_speeds_comes_out(session_workspace: Workspace) -> None:
    run = open_fold(session_workspace, RECIPE, 0, torch.device("cpu")).run
    speed = measure_speed(run, n_steps=2, n_rounds=1)
    assert speed.images_per_second > 0
    assert speed.bare_per_second > 0
    assert speed.ratio == speed.images_per_second / speed.bare_per_second
    assert speed.peak_memory_mb is None
    assert run.history == []
