"""TrainingRun: it learns, it is decided by its seed, and it can be left and taken up to the same bits."""

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from ichtune.errors import ConfigError, ConflictError, DataError
from ichtune.metrics import prior_predictions, weighted_log_loss
from ichtune.recipe import Recipe
from ichtune.training.crossval import fold_rows, open_batches
from ichtune.training.loop import EpochResult, TrainingRun, check_recipe
from ichtune.training.optimizers import OPTIMIZERS
from ichtune.workspace import Workspace

CPU = torch.device("cpu")
FakeWorkspace = Callable[..., Workspace]


def recipe(**changes: Any) -> Recipe:
    settings: dict[str, Any] = {
        "architecture": "tiny_convnet",
        "windows": "brain",
        "image_px": 32,
        "lr": 1e-2,
        "epochs": 3,
        "batch_size": 16,
        "ema_decay": 0.9,
        "dropout": 0.2,
        "augmentation": "flip",
    }
    return Recipe(**(settings | changes))


def start(workspace: Workspace, chosen: Recipe, fold: int = 0) -> TrainingRun:
    rows = fold_rows(workspace, fold)
    return TrainingRun(chosen, open_batches(workspace, chosen), rows.train, rows.valid, CPU)


def finish(run: TrainingRun) -> TrainingRun:
    while not run.finished:
        run.run_epoch()
    return run


def assert_same_run(one: TrainingRun, other: TrainingRun) -> None:
    for (name, a), b in zip(one.model.state_dict().items(), other.model.state_dict().values(), strict=True):
        assert torch.equal(a, b), name
    np.testing.assert_array_equal(one.predict(one.valid_rows), other.predict(other.valid_rows))
    losses = [[(r.epoch, r.train_loss, r.val_weighted_log_loss, r.lr) for r in run.history] for run in (one, other)]
    assert losses[0] == losses[1]


def test_labels_that_can_be_read_from_the_pixels_are_learnt(fake_workspace: FakeWorkspace) -> None:
    workspace = fake_workspace(n_patients=40, n_slices=8)
    run = finish(start(workspace, recipe(epochs=12, dropout=0.0)))
    y_NL = workspace.labels(run.valid_rows)
    prior = weighted_log_loss(y_NL, prior_predictions(workspace.labels(run.train_rows), len(y_NL)))
    assert run.history[-1].val_weighted_log_loss < 0.5 * prior
    assert run.history[-1].train_loss < run.history[0].train_loss


def test_an_epoch_reports_the_metric_of_its_own_predictions(session_workspace: Workspace) -> None:
    run = start(session_workspace, recipe(epochs=2))
    result = run.run_epoch()
    expected = weighted_log_loss(session_workspace.labels(run.valid_rows), run.predict(run.valid_rows))
    assert result == run.history[0]
    assert result.epoch == run.epoch == 1
    assert result.val_weighted_log_loss == expected
    assert result.images_per_second > 0
    assert not run.finished
    assert finish(run).history[-1].lr == pytest.approx(0.0, abs=1e-12)


def test_it_starts_from_the_label_rates_of_its_training_rows(session_workspace: Workspace) -> None:
    run = start(session_workspace, recipe())
    rates_L = session_workspace.labels(run.train_rows).mean(axis=0)
    np.testing.assert_allclose(run.predict(run.valid_rows), np.tile(rates_L, (len(run.valid_rows), 1)), atol=1e-6)


def test_one_seed_gives_one_run_and_another_seed_another(session_workspace: Workspace) -> None:
    torch.manual_seed(1)
    one = finish(start(session_workspace, recipe()))
    torch.manual_seed(2)
    assert_same_run(one, finish(start(session_workspace, recipe())))
    other = finish(start(session_workspace, recipe(seed=8)))
    assert other.history[-1].val_weighted_log_loss != one.history[-1].val_weighted_log_loss


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
@pytest.mark.parametrize("ema_decay", [0.0, 0.9])
def test_a_run_left_after_any_epoch_ends_with_the_same_bits(
    session_workspace: Workspace, tmp_path: Path, optimizer: str, ema_decay: float
) -> None:
    chosen = recipe(optimizer=optimizer, ema_decay=ema_decay, augmentation="affine")
    whole = finish(start(session_workspace, chosen))
    for n_epochs in range(chosen.epochs + 1):
        left = start(session_workspace, chosen)
        for _ in range(n_epochs):
            left.run_epoch()
        left.save(tmp_path / "resume.safetensors")
        torch.manual_seed(n_epochs)
        taken_up = start(session_workspace, chosen)
        taken_up.load(tmp_path / "resume.safetensors")
        assert taken_up.epoch == n_epochs
        assert_same_run(whole, finish(taken_up))


def test_a_timm_network_is_taken_up_to_the_same_bits(session_workspace: Workspace, tmp_path: Path) -> None:
    chosen = recipe(architecture="test_resnet", epochs=2, neighbours=1)
    whole = start(session_workspace, chosen)
    whole.run_epoch()
    whole.save(tmp_path / "resume.safetensors")
    finish(whole)
    taken_up = start(session_workspace, chosen)
    taken_up.load(tmp_path / "resume.safetensors")
    assert_same_run(whole, finish(taken_up))


def test_a_checkpoint_of_another_recipe_or_of_other_slices_is_refused(
    session_workspace: Workspace, tmp_path: Path
) -> None:
    path = tmp_path / "resume.safetensors"
    start(session_workspace, recipe()).save(path)
    with pytest.raises(DataError, match=r"is of another recipe"):
        start(session_workspace, recipe(lr=1e-3)).load(path)
    with pytest.raises(ConflictError, match=r"was trained on other slices or folds"):
        start(session_workspace, recipe(), fold=1).load(path)


def test_weights_alone_are_no_checkpoint_to_resume_from(session_workspace: Workspace, tmp_path: Path) -> None:
    run = start(session_workspace, recipe())
    run.save_weights(tmp_path / "weights.safetensors", {"fold": 0})
    with pytest.raises(DataError, match=r"must be of kind 'resume', got 'weights'"):
        run.load(tmp_path / "weights.safetensors")


def test_the_average_is_what_predicts_and_what_is_kept(session_workspace: Workspace, tmp_path: Path) -> None:
    from ichtune.training.predict import load_model, predict_rows

    run = finish(start(session_workspace, recipe(ema_decay=0.9)))
    raw = predict_rows(run.model, run.recipe, run.data, run.valid_rows, CPU)
    averaged = run.predict(run.valid_rows)
    assert not np.allclose(raw, averaged)
    run.save_weights(tmp_path / "weights.safetensors", {})
    model, chosen = load_model(tmp_path / "weights.safetensors", CPU)
    np.testing.assert_array_equal(predict_rows(model, chosen, run.data, run.valid_rows, CPU), averaged)


def test_even_a_single_step_learns(session_workspace: Workspace) -> None:
    run = start(session_workspace, recipe(epochs=1, batch_size=1000, warmup=0.0, ema_decay=0.0))
    before = {name: tensor.clone() for name, tensor in run.model.named_parameters()}
    run.run_epoch()
    assert any(not torch.equal(tensor, before[name]) for name, tensor in run.model.named_parameters())


def test_a_run_that_diverges_says_nan_and_does_not_fall_over(session_workspace: Workspace) -> None:
    run = start(session_workspace, recipe(optimizer="sgd", lr=100.0, ema_decay=0.0))
    with torch.no_grad():
        next(run.model.parameters()).fill_(math.nan)
    assert math.isnan(run.run_epoch().val_weighted_log_loss)


def test_too_few_slices_are_refused(session_workspace: Workspace) -> None:
    data = open_batches(session_workspace, recipe())
    rows = session_workspace.labelled.index.to_numpy()
    for train, valid in ((rows[:1], rows[1:]), (rows, rows[:0])):
        with pytest.raises(DataError, match=rf"got {len(train)} and {len(valid)}"):
            TrainingRun(recipe(), data, train, valid, CPU)


@pytest.mark.parametrize("key", ["architecture", "loss", "optimizer", "augmentation", "lr_schedule"])
def test_a_name_that_no_table_knows_is_refused_before_time_is_spent(key: str) -> None:
    check_recipe(recipe())
    with pytest.raises(ConfigError, match=rf"unknown {key} 'qqq'"):
        check_recipe(recipe(**{key: "qqq"}))


def test_results_are_plain_numbers() -> None:
    result = EpochResult(1, 0.5, 0.4, 1e-3, 2.0, 100.0)
    assert result == EpochResult(**vars(result))
