"""Every key of the recipe: two recipes that differ in it alone do not predict the same, so that none does nothing."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

from ichtune.recipe import Recipe, recipe_keys
from ichtune.training.fold_run import fold_rows, open_batches
from ichtune.training.loop import TrainingRun
from ichtune.workspace import Workspace

BASE: dict[str, Any] = {
    "architecture": "tiny_convnet",
    "windows": "brain",
    "image_px": 32,
    "lr": 1e-2,
    "warmup": 0.0,
    "epochs": 3,
    "batch_size": 16,
    "flip": 0.0,
}
#: For each key another value, and what both recipes need for it to be read at all.
CASES: dict[str, tuple[Any, dict[str, Any]]] = {
    "architecture": ("small_convnet", {}),
    "pooling": ("gem", {"architecture": "test_resnet"}),
    "dropout": (0.5, {}),
    "any_rule": ("noisy_or", {}),
    "windows": ("subdural", {}),
    "window_shape": ("sigmoid", {}),
    "learnable_windows": (True, {}),
    "window_jitter": (0.2, {}),
    "image_px": (24, {}),
    "neighbours": (1, {}),
    "neighbour_stride": (2, {"neighbours": 1}),
    "neighbour_side": ("below", {"neighbours": 1}),
    "neighbour_use": ("mean", {"neighbours": 1}),
    "channel_layout": ("paired", {"neighbours": 1, "windows": "brain_subdural_bone"}),
    "normalisation": ("imagenet", {}),
    "loss": ("focal", {}),
    "loss_weights": ([1, 1, 1, 1, 1, 1], {}),
    "focal_gamma": (2.0, {"loss": "focal"}),
    "label_smoothing": (0.1, {}),
    "boundary_softness": (0.3, {}),
    "neighbour_targets": (0.5, {}),
    "positive_weights": ([2, 1, 1, 1, 1, 1], {"calibration": "prior_shift"}),
    "negative_share": (0.3, {"calibration": "prior_shift"}),
    "slices_per_series": (2, {}),
    "optimizer": ("lion", {}),
    "lr": (2e-2, {}),
    "weight_decay": (0.5, {}),
    "momentum": (0.5, {"optimizer": "sgd"}),
    "beta1": (0.5, {}),
    "beta2": (0.9, {}),
    "eps": (1e-2, {}),
    "layer_lr_decay": (0.5, {}),
    "grad_clip": (1e-4, {"optimizer": "sgd"}),
    "accumulation": (2, {}),
    "batch_size": (8, {}),
    "lr_schedule": ("one_cycle", {}),
    "anneal_start": (0.2, {}),
    "warmup": (0.5, {}),
    "cycles": (3, {"lr_schedule": "cosine_restarts"}),
    "cycle_decay": (0.5, {"lr_schedule": "cosine_restarts", "cycles": 3}),
    "lr_decay": (0.1, {"lr_schedule": "step"}),
    "patience": (5, {"lr_schedule": "plateau", "lr": 0.3, "epochs": 10, "batch_size": 8}),
    "epochs": (4, {}),
    "frozen_epochs": (1, {}),
    "frozen_lr": (0.1, {"frozen_epochs": 1}),
    "augmentation": ("affine", {}),
    "flip": (0.5, {}),
    "flip_vertical": (0.5, {}),
    "flip_slices": (0.5, {"neighbours": 1}),
    "transpose": (0.5, {}),
    "rotate_deg": (45.0, {}),
    "shift": (0.2, {}),
    "zoom": (0.3, {}),
    "geometry_share": (0.5, {"rotate_deg": 45.0}),
    "cutout": (1.0, {}),
    "cutout_holes": (30, {"cutout": 1.0}),
    "cutout_size": (0.6, {"cutout": 1.0}),
    "noise_hu": (20.0, {}),
    "gain_jitter": (0.3, {}),
    "mixup": (0.5, {}),
    "cutmix": (1.0, {}),
    "ema_decay": (0.9, {}),
    "swa_start": (0.3, {}),
    "snapshots": (2, {}),
    "tta": ("flip", {}),
    "seed": (8, {}),
}
#: Keys that this small run cannot show, and the test that does.
ELSEWHERE = {
    "pretrained": "tests/unit/models/test_create.py: weights come from the file",
    "warm_start": "tests/unit/training/test_fold_run.py: the run starts from the other run's weights",
    "crop": "tests/unit/training/test_fold_run.py: the cache with that crop is read",
    "pseudo_labels": "tests/unit/training/test_fold_run.py: unlabelled slices are learnt from",
    "pseudo_threshold": "tests/unit/data/test_targets.py",
    "pseudo_weight": "tests/unit/data/test_targets.py",
    "calibration": "tests/unit/training/test_loop.py: shifted odds are undone; needs a shift to act on",
    "compile": "tests/unit/training/test_compiled.py: changes nothing but the speed",
}

Predict = Callable[[Recipe], np.ndarray]


@pytest.fixture(scope="module")
def predict(session_workspace: Workspace) -> Predict:
    known: dict[str, np.ndarray] = {}

    def trained(recipe: Recipe) -> np.ndarray:
        if recipe.recipe_id not in known:
            rows = fold_rows(session_workspace, 0)
            data = open_batches(session_workspace, recipe)
            run = TrainingRun(recipe, data, rows.train, rows.valid, torch.device("cpu"))
            while not run.finished:
                run.run_epoch()
            known[recipe.recipe_id] = run.predict(rows.valid)
        return known[recipe.recipe_id]

    return trained


def test_every_key_is_here_or_says_where() -> None:
    assert set(CASES) | set(ELSEWHERE) == set(recipe_keys())
    assert not set(CASES) & set(ELSEWHERE)


@pytest.mark.slow  # takes seconds
@pytest.mark.parametrize("key", CASES)
def test_it_changes_what_is_predicted(key: str, predict: Predict) -> None:
    value, needs = CASES[key]
    without = Recipe(**BASE | needs)
    assert getattr(without, key) != value
    one, other = predict(without), predict(Recipe(**BASE | needs | {key: value}))
    assert np.isfinite(other).all()
    assert np.abs(one - other).max() > 1e-4
