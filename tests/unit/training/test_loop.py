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
from ichtune.training.fold_run import fold_rows, open_batches
from ichtune.training.loop import EpochResult, TrainingRun
from ichtune.training.optimizers import OPTIMIZERS
from ichtune.training.predict import FoldModel, load_model, predict_rows
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
        "rotate_deg": 20.0,
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
    for (name, a), b in zip(one.network.state_dict().items(), other.network.state_dict().values(), strict=True):
        assert torch.equal(a, b), name
    np.testing.assert_array_equal(one.predict(one.valid_rows), other.predict(other.valid_rows))
    losses = [[(r.epoch, r.train_loss, r.val_weighted_log_loss, r.lr) for r in run.history] for run in (one, other)]
    assert losses[0] == losses[1]


@pytest.mark.slow  # takes seconds
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


@pytest.mark.slow  # takes seconds
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


@pytest.mark.parametrize("average", [{"ema_decay": 0.9}, {"ema_decay": 0.0, "swa_start": 0.3}])
def test_the_average_is_what_predicts_and_what_is_kept(
    session_workspace: Workspace, tmp_path: Path, average: dict[str, Any]
) -> None:
    run = finish(start(session_workspace, recipe(**average)))
    raw = predict_rows(FoldModel((run.network,)), run.recipe, run.data, run.valid_rows, CPU)
    averaged = run.predict(run.valid_rows)
    assert not np.allclose(raw, averaged)
    run.save_weights(tmp_path / "weights.safetensors", {})
    model, chosen = load_model(tmp_path / "weights.safetensors", CPU)
    np.testing.assert_array_equal(predict_rows(model, chosen, run.data, run.valid_rows, CPU), averaged)
    run.save_last(tmp_path / "last.safetensors", {})
    model, chosen = load_model(tmp_path / "last.safetensors", CPU)
    np.testing.assert_array_equal(predict_rows(model, chosen, run.data, run.valid_rows, CPU), raw)


def test_swa_is_the_mean_of_the_weights_at_the_ends_of_the_last_epochs(session_workspace: Workspace) -> None:
    run = start(session_workspace, recipe(epochs=4, ema_decay=0.0, swa_start=0.5))
    ends = []
    while not run.finished:
        run.run_epoch()
        ends.append({name: tensor.clone() for name, tensor in run.network.state_dict().items()})
    (kept,) = run.states()
    for name, tensor in kept.items():
        if tensor.is_floating_point():
            torch.testing.assert_close(tensor, (ends[2][name] + ends[3][name]) / 2, msg=name)


def test_snapshots_are_the_networks_of_the_last_epochs_and_answer_together(
    session_workspace: Workspace, tmp_path: Path
) -> None:
    chosen = recipe(epochs=3, snapshots=2, ema_decay=0.0)
    run, alone = start(session_workspace, chosen), start(session_workspace, recipe(epochs=3, ema_decay=0.0))
    each = []
    while not run.finished:
        run.run_epoch()
        alone.run_epoch()
        each.append(alone.predict(run.valid_rows))
    np.testing.assert_allclose(run.predict(run.valid_rows), (each[1] + each[2]) / 2, rtol=1e-12)
    run.save_weights(tmp_path / "weights.safetensors", {})
    model, _ = load_model(tmp_path / "weights.safetensors", CPU)
    assert len(model.networks) == 2
    np.testing.assert_array_equal(
        predict_rows(model, chosen, run.data, run.valid_rows, CPU), run.predict(run.valid_rows)
    )


def test_validation_and_test_slices_see_no_augmentation(
    session_workspace: Workspace, monkeypatch: pytest.MonkeyPatch, everything_random: dict[str, Any]
) -> None:
    """The published seed mirrored its test images at random."""
    from ichtune.data import dataset
    from ichtune.training import loop

    certain = {"flip": 1.0, "flip_vertical": 1.0, "gain_jitter": 0.5, "rotate_deg": 180.0}
    run = start(session_workspace, recipe(**everything_random | certain))
    run.run_epoch()
    before = run.predict(run.valid_rows)

    def refuse(*_: Any) -> None:
        raise AssertionError("this is for training only")

    monkeypatch.setattr(dataset, "augment_batch", refuse)
    for module_name in ("augment_on_device", "draw_jitter", "mix"):
        monkeypatch.setattr(loop, module_name, refuse)
    np.testing.assert_array_equal(run.predict(run.valid_rows), before)
    np.testing.assert_allclose(run.predict(run.valid_rows[::-1])[::-1], before, rtol=1e-6)
    with pytest.raises(AssertionError, match=r"for training only"):
        run.run_epoch()


def test_while_frozen_only_head_and_norms_learn_and_then_all(session_workspace: Workspace) -> None:
    from ichtune.models.network import head_parameters, norm_parameters

    run = start(session_workspace, recipe(architecture="test_resnet", epochs=3, frozen_epochs=2, ema_decay=0.0))
    free = {*head_parameters(run.network), *norm_parameters(run.network)}
    before = {name: tensor.detach().clone() for name, tensor in run.network.named_parameters()}
    run.run_epoch()
    run.run_epoch()
    moved = {name for name, tensor in run.network.named_parameters() if not torch.equal(tensor, before[name])}
    assert moved
    assert moved <= free < before.keys()
    run.run_epoch()
    moved = {name for name, tensor in run.network.named_parameters() if not torch.equal(tensor, before[name])}
    assert not moved <= free


def test_the_phases_have_schedules_of_their_own(session_workspace: Workspace) -> None:
    chosen = recipe(epochs=4, frozen_epochs=2, frozen_lr=0.5, lr=1e-3, lr_schedule="constant", warmup=0.0)
    run, rates = start(session_workspace, chosen), []
    while not run.finished:
        run.run_epoch(lambda run: rates.append(run._optimizer.param_groups[0]["lr"]))
    half = len(rates) // 2
    assert max(rates[:half]) == pytest.approx(0.5, rel=0.2)
    assert min(rates[:half]) < 0.05
    assert rates[half:] == [1e-3] * half


def test_a_batch_in_parts_has_the_gradient_of_the_whole(session_workspace: Workspace) -> None:
    settings: dict[str, Any] = {
        "architecture": "test_convnext",  # batch norm would see other batches
        "optimizer": "sgd",
        "epochs": 1,
        "ema_decay": 0.0,
        "dropout": 0.0,
        "lr": 1e-3,
    }
    whole = finish(start(session_workspace, recipe(**settings)))
    parts = finish(start(session_workspace, recipe(**settings, accumulation=4)))
    for one, other in zip(whole.network.parameters(), parts.network.parameters(), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-3, atol=1e-6)
    assert whole.history[0].train_loss == pytest.approx(parts.history[0].train_loss, rel=1e-4)


def test_a_clipped_gradient_moves_the_weights_no_further_than_asked(session_workspace: Workspace) -> None:
    settings: dict[str, Any] = {"optimizer": "sgd", "momentum": 0.0, "weight_decay": 0.0, "lr": 1.0, "warmup": 0.0}
    moved = []
    for grad_clip in (0.0, 1e-3):
        run = start(session_workspace, recipe(**settings, grad_clip=grad_clip, epochs=1, batch_size=1000))
        before = [parameter.detach().clone() for parameter in run.network.parameters()]
        run.train_epoch()
        pairs = zip(run.network.parameters(), before, strict=True)
        moved.append(math.sqrt(sum(float((now.detach() - then).square().sum()) for now, then in pairs)))
    assert moved[0] > 2e-3
    assert moved[1] == pytest.approx(1e-3, rel=1e-3)


def test_a_stopped_run_followed_the_curve_of_the_whole_one(session_workspace: Workspace) -> None:
    chosen = recipe(epochs=6, lr_schedule="one_cycle", warmup=0.3)
    whole, rates = start(session_workspace, chosen), []
    while not whole.finished:
        whole.run_epoch(lambda run: rates.append(run._optimizer.param_groups[0]["lr"]))
    stopped, some = start(session_workspace, chosen), []
    for _ in range(2):
        stopped.run_epoch(lambda run: some.append(run._optimizer.param_groups[0]["lr"]))
    assert some == rates[: len(some)]
    assert [r.train_loss for r in stopped.history] == [r.train_loss for r in whole.history[:2]]


def test_a_network_of_three_slices_targets_answers_for_its_own_slice(session_workspace: Workspace) -> None:
    run = start(session_workspace, recipe(neighbours=1, neighbour_targets=0.5))
    run.run_epoch()
    batch = run.data.batch(run.valid_rows[:4])
    with torch.no_grad():
        x_BCHW = run.network.inputs(torch.from_numpy(batch.hu_BSHW))
        assert run.network(x_BCHW).shape == (4, 18)
    assert run.predict(run.valid_rows).shape == (len(run.valid_rows), 6)


def test_windows_that_are_learnt_move_and_are_kept(session_workspace: Workspace, tmp_path: Path) -> None:
    run = start(session_workspace, recipe(learnable_windows=True, ema_decay=0.0))
    before = [run.network.inputs.center_N.detach().clone(), run.network.inputs.width_N.detach().clone()]
    finish(run)
    assert not torch.equal(run.network.inputs.center_N, before[0])
    assert not torch.equal(run.network.inputs.width_N, before[1])
    run.save_weights(tmp_path / "weights.safetensors", {})
    model, _ = load_model(tmp_path / "weights.safetensors", CPU)
    assert torch.equal(model.networks[0].inputs.center_N, run.network.inputs.center_N)


def test_moments_of_the_data_are_those_of_the_training_slices(session_workspace: Workspace) -> None:
    run = start(session_workspace, recipe(normalisation="data"))
    batch = run.data.batch(run.train_rows)
    with torch.no_grad():
        x_BCHW = run.network.inputs(torch.from_numpy(batch.hu_BSHW))
    torch.testing.assert_close(x_BCHW.mean(dim=(0, 2, 3)), torch.zeros(1), atol=1e-3, rtol=0)
    torch.testing.assert_close(x_BCHW.std(dim=(0, 2, 3)), torch.ones(1), atol=1e-3, rtol=0)


def test_shifted_odds_are_undone_in_what_is_predicted(session_workspace: Workspace) -> None:
    """At its start a network answers with the rates that its loss sees; what it predicts are the true ones."""
    rates_L = session_workspace.labels(start(session_workspace, recipe()).train_rows).mean(axis=0)
    for shift in ({"positive_weights": [3, 1, 2, 1, 1, 5]}, {"negative_share": 0.4}):
        run = start(session_workspace, recipe(**shift, calibration="prior_shift"))
        p_NL = run.predict(run.valid_rows)
        np.testing.assert_allclose(p_NL, np.tile(rates_L, (len(p_NL), 1)), rtol=0.02)
        biased_L = torch.sigmoid(run.network.body.get_classifier().bias).detach().numpy()
        assert np.abs(biased_L - rates_L).max() > 0.03


def test_even_a_single_step_learns(session_workspace: Workspace) -> None:
    run = start(session_workspace, recipe(epochs=1, batch_size=1000, warmup=0.0, ema_decay=0.0))
    before = {name: tensor.clone() for name, tensor in run.network.named_parameters()}
    run.run_epoch()
    assert any(not torch.equal(tensor, before[name]) for name, tensor in run.network.named_parameters())


def test_a_run_that_diverges_says_nan_and_does_not_fall_over(session_workspace: Workspace) -> None:
    run = start(session_workspace, recipe(optimizer="sgd", lr=100.0, ema_decay=0.0))
    with torch.no_grad():
        next(run.network.parameters()).fill_(math.nan)
    assert math.isnan(run.run_epoch().val_weighted_log_loss)


def test_too_few_slices_are_refused(session_workspace: Workspace) -> None:
    data = open_batches(session_workspace, recipe())
    rows = session_workspace.labelled.index.to_numpy()
    for train, valid in ((rows[:1], rows[1:]), (rows, rows[:0])):
        with pytest.raises(DataError, match=rf"got {len(train)} and {len(valid)}"):
            TrainingRun(recipe(), data, train, valid, CPU)


def test_results_are_plain_numbers() -> None:
    result = EpochResult(1, 0.5, 0.4, 1e-3, 2.0, 100.0)
    assert result == EpochResult(**vars(result))


def test_an_epoch_of_no_slices_is_refused(session_workspace: Workspace) -> None:
    data = open_batches(session_workspace, recipe())
    rows = session_workspace.labelled.index.to_numpy()
    negative = rows[session_workspace.labels(rows)[:, 0] == 0][:2]
    chosen = recipe(negative_share=0.001, calibration="prior_shift")
    with pytest.raises(DataError, match=r"an epoch needs at least 2 slices, got 0 of 2 by negative_share 0.001"):
        TrainingRun(chosen, data, negative, rows, CPU)


@pytest.mark.slow  # takes seconds
def test_batch_norm_never_sees_a_slice_alone(session_workspace: Workspace) -> None:
    with pytest.raises(ConfigError, match=r"batch norm, which needs batches of at least 2 slices, got batch_size 1"):
        start(session_workspace, recipe(architecture="test_resnet", batch_size=1))
    start(session_workspace, recipe(architecture="test_resnet", batch_size=12, accumulation=8, epochs=1)).run_epoch()
    start(session_workspace, recipe(architecture="test_vit", batch_size=1, epochs=1)).train_epoch()


def test_a_contradiction_is_refused_wherever_a_run_is_made(session_workspace: Workspace) -> None:
    with pytest.raises(ConfigError, match=r"flip_slices"):
        start(session_workspace, recipe(flip_slices=0.5))
