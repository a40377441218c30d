"""Speed: both kinds of step are timed, and nothing of the history changes."""

from dataclasses import replace

import pytest
import torch

from ichtune.recipe import Recipe
from ichtune.training.fold_run import open_fold
from ichtune.training.speed import measure_speed
from ichtune.workspace import Workspace

CPU = torch.device("cpu")
RECIPE = Recipe(architecture="tiny_convnet", windows="brain", image_px=32, batch_size=8)  # type: ignore[arg-type]


def test_a_network_of_timm_s_is_timed_beside_timm_s_own(
    session_workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    import timm

    built: list[str] = []
    create = timm.create_model
    run = open_fold(session_workspace, replace(RECIPE, architecture="test_vit", image_px=32), 0, CPU).run
    monkeypatch.setattr(timm, "create_model", lambda name, **keys: built.append(name) or create(name, **keys))
    assert measure_speed(run, n_steps=1, n_rounds=1).ratio > 0
    assert built == ["test_vit"]


def test_a_ratio_of_two_speeds_comes_out(session_workspace: Workspace) -> None:
    run = open_fold(session_workspace, RECIPE, 0, CPU).run
    speed = measure_speed(run, n_steps=2, n_rounds=1)
    assert speed.images_per_second > 0
    assert speed.bare_per_second > 0
    assert speed.ratio == speed.images_per_second / speed.bare_per_second
    assert speed.peak_memory_mb is None
    assert run.history == []
