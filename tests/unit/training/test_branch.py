"""A branch is trained, judged and thrown away: the run goes on as if there had been none, to the bit."""

import math
from collections.abc import Callable
from dataclasses import asdict
from typing import Any

import numpy as np
import pytest
import torch

from ichtune.metrics import weighted_log_loss
from ichtune.recipe import Recipe
from ichtune.training.branch import cooldown, left_as_it_was, plain_loss, run_averaged_epoch
from ichtune.training.fold_run import fold_rows, open_batches
from ichtune.training.loop import TrainingRun
from ichtune.workspace import Workspace

CPU = torch.device("cpu")


def recipe(**changes: Any) -> Recipe:
    settings: dict[str, Any] = {
        "architecture": "tiny_convnet",
        "windows": "brain",
        "image_px": 32,
        "lr": 1e-2,
        "epochs": 3,
        "batch_size": 16,
        "ema_decay": 0.9,
    }
    if "swa_start" in changes:
        settings["ema_decay"] = 0.0
    return Recipe(**(settings | changes))


def start(workspace: Workspace, chosen: Recipe) -> TrainingRun:
    rows = fold_rows(workspace, 0)
    return TrainingRun(chosen, open_batches(workspace, chosen), rows.train, rows.valid, CPU)


def state_of(run: TrainingRun) -> dict[str, Any]:
    """All that a run is, as ``save`` would write it, without the seconds that it took."""
    tensors, about = run.snapshot()
    for result in about["history"]:
        result["seconds"] = result["images_per_second"] = 0.0
    about["epoch"]["seconds"] = 0.0
    return {"tensors": tensors, "about": about}


def assert_same_state(one: dict[str, Any], other: dict[str, Any]) -> None:
    assert one["about"] == other["about"]
    assert one["tensors"].keys() == other["tensors"].keys()
    for name, tensor in one["tensors"].items():
        assert torch.equal(tensor, other["tensors"][name]), name


@pytest.mark.slow  # takes seconds
def test_a_run_goes_on_as_if_it_had_not_been_judged(session_workspace: Workspace, stateful: dict[str, Any]) -> None:
    """For every kind of state: weights, optimizer, averages, snapshots and history, after each of its epochs."""
    chosen = recipe(**stateful)
    judged, straight = start(session_workspace, chosen), start(session_workspace, chosen)

    for _ in range(chosen.epochs):
        straight.run_epoch()
        judged.run_epoch()
        before = state_of(judged)
        assert math.isfinite(cooldown(judged, 0.5).val_weighted_log_loss)
        assert_same_state(state_of(judged), before)

    assert_same_state(state_of(judged), state_of(straight))
    np.testing.assert_array_equal(judged.predict(judged.valid_rows), straight.predict(straight.valid_rows))


def test_a_branch_in_a_frozen_phase_moves_the_head_alone_and_the_phases_go_on(session_workspace: Workspace) -> None:
    chosen = recipe(frozen_epochs=2, epochs=4, accumulation=2)
    judged, straight = start(session_workspace, chosen), start(session_workspace, chosen)
    for run in (judged, straight):
        run.run_epoch()
    frozen = {name for name, parameter in judged.network.named_parameters() if not parameter.requires_grad}
    assert frozen

    cooldown(judged, 1.5)

    assert frozen == {name for name, parameter in judged.network.named_parameters() if not parameter.requires_grad}
    for run in (judged, straight):
        while not run.finished:
            run.run_epoch()
    assert all(parameter.requires_grad for parameter in judged.network.parameters())
    assert_same_state(state_of(judged), state_of(straight))


def test_the_rate_falls_in_a_straight_line_from_that_of_the_last_step_to_zero(
    session_workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = start(session_workspace, recipe(lr_schedule="constant", warmup=0.0))
    run.run_epoch()
    rates: list[float] = []
    step = TrainingRun.step
    monkeypatch.setattr(TrainingRun, "step", lambda run, batch, lr=None: rates.append(lr) or step(run, batch, lr))

    cooldown(run, 2.0)

    n_steps = 2 * run.steps_an_epoch
    assert rates == pytest.approx([1e-2 * (1 - (i + 0.5) / n_steps) for i in range(n_steps)])
    assert rates[-1] < 1e-2 / n_steps


@pytest.mark.parametrize("n_epochs", [0.01, 0.5, 1.0, 2.4])
def test_a_branch_of_any_length_sees_the_batches_that_come_next(
    session_workspace: Workspace, monkeypatch: pytest.MonkeyPatch, n_epochs: float
) -> None:
    run = start(session_workspace, recipe())
    run.run_epoch()
    expected = []
    for epoch in (1, 2, 3):
        expected += [batch.y_BK for batch in run.data.training(run.train_rows, run.recipe, epoch)]
    seen: list[np.ndarray] = []
    step = TrainingRun.step
    monkeypatch.setattr(
        TrainingRun, "step", lambda run, batch, lr=None: seen.append(batch.y_BK.numpy().copy()) or step(run, batch, lr)
    )

    result = cooldown(run, n_epochs)

    n_steps = max(1, round(n_epochs * run.steps_an_epoch))
    assert len(seen) == n_steps
    assert result.epochs == pytest.approx(n_steps / run.steps_an_epoch)
    assert result.seconds > 0
    for got, wanted in zip(seen, expected, strict=False):
        np.testing.assert_array_equal(got, wanted)


def test_a_branch_is_judged_by_its_own_weights_after_the_cooldown(session_workspace: Workspace) -> None:
    """Trained by hand on the same batches with the same rates, the plain weights have the same loss."""
    chosen = recipe(ema_decay=0.99)
    run, by_hand = start(session_workspace, chosen), start(session_workspace, chosen)
    for one in (run, by_hand):
        one.run_epoch()
    first_lr, n_steps = by_hand.lr_now, by_hand.steps_an_epoch
    by_hand.network.train()
    batches = by_hand.endless()
    for _ in range(n_steps):
        next(batches)
    for i in range(n_steps):
        by_hand.step(next(batches), first_lr * (1 - (i + 0.5) / n_steps))
    y_NL = by_hand.data.labels(by_hand.valid_rows)

    loss = cooldown(run, 1.0).val_weighted_log_loss

    assert loss == weighted_log_loss(y_NL, by_hand.predict_plain(by_hand.valid_rows)) == plain_loss(by_hand)
    assert loss != weighted_log_loss(y_NL, by_hand.predict(by_hand.valid_rows))


def test_a_branch_that_diverges_says_nan_and_leaves_the_run_whole(
    session_workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = start(session_workspace, recipe(optimizer="sgd", momentum=0.99))
    run.run_epoch()
    before = state_of(run)
    step = TrainingRun.step
    monkeypatch.setattr(TrainingRun, "step", lambda run, batch, lr=None: step(run, batch, 1e30))

    assert math.isnan(cooldown(run, 1.0).val_weighted_log_loss)

    assert_same_state(state_of(run), before)
    monkeypatch.undo()
    assert math.isfinite(run.run_epoch().val_weighted_log_loss)


def test_what_goes_wrong_on_a_branch_leaves_the_run_whole_too(session_workspace: Workspace) -> None:
    run = start(session_workspace, recipe())
    run.run_epoch()
    before = state_of(run)

    def fail(run: TrainingRun) -> None:
        if run.step_in_epoch == 2:
            raise RuntimeError("out of luck")

    with pytest.raises(RuntimeError, match="out of luck"), left_as_it_was(run):
        run.train_epoch(fail)

    assert_same_state(state_of(run), before)


def test_notes_of_a_branch_are_not_the_run_s(session_workspace: Workspace) -> None:
    run = start(session_workspace, recipe())
    run.notes.append("mine")
    with left_as_it_was(run):
        run.notes.append("of the branch")

    assert run.notes[-1] == "mine"


def test_a_finished_run_can_be_judged_too(session_workspace: Workspace) -> None:
    run = start(session_workspace, recipe(epochs=1, lr_schedule="constant"))
    run.run_epoch()

    assert math.isfinite(cooldown(run, 0.5).val_weighted_log_loss)
    assert run.finished


def test_a_branch_calms_a_run_at_a_high_rate(fake_workspace: Callable[..., Workspace]) -> None:
    """What the judge is there for: at a rate that is held high the annealed loss lies below the run's own."""
    run = start(fake_workspace(n_patients=24), recipe(lr=3e-2, lr_schedule="constant", epochs=6, batch_size=8))
    gains = []
    for _ in range(4):
        run.run_epoch()
        gains.append(plain_loss(run) - cooldown(run, 1.0).val_weighted_log_loss)

    assert np.mean(gains) > 0


@pytest.mark.slow  # takes seconds
def test_the_averaged_epoch_trains_as_an_epoch_does(session_workspace: Workspace, stateful: dict[str, Any]) -> None:
    chosen = recipe(**stateful)
    averaged, straight = start(session_workspace, chosen), start(session_workspace, chosen)

    results = [run_averaged_epoch(averaged) for _ in range(2)]
    for _ in range(2):
        straight.run_epoch()

    assert_same_state(state_of(averaged), state_of(straight))
    assert all(math.isfinite(result.val_weighted_log_loss) and result.epochs == 0.0 for result in results)
    losses = [asdict(result)["val_weighted_log_loss"] for result in straight.history]
    assert [result.val_weighted_log_loss for result in results] != losses


def test_the_average_is_the_mean_of_the_weights_over_the_epoch_s_steps(
    session_workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    run, by_hand = start(session_workspace, recipe()), start(session_workspace, recipe())
    kept: list[dict[str, torch.Tensor]] = []
    by_hand.run_epoch(lambda run: kept.append({k: v.clone() for k, v in run.network.state_dict().items()}))
    mean = {
        name: torch.stack([state[name] for state in kept]).mean(0) if tensor.is_floating_point() else tensor
        for name, tensor in kept[-1].items()
    }
    by_hand.network.load_state_dict(mean)

    assert run_averaged_epoch(run).val_weighted_log_loss == pytest.approx(plain_loss(by_hand), rel=1e-5)
