"""The sweep: its rates, its running average, where it stops, and what is read off it."""

import math
from typing import Any

import numpy as np
import pytest
import torch

from ichtune.errors import ConfigError, DataError
from ichtune.recipe import Recipe
from ichtune.training.fold_run import open_fold
from ichtune.training.loop import TrainingRun
from ichtune.training.lr_finder import LrCurve, find_lr, suggest, sweep
from ichtune.workspace import Workspace


class Quadratic:
    """Gradient descent on ``curvature / 2 * w ** 2``, which diverges above ``2 / curvature``."""

    def __init__(self, curvature: float) -> None:
        self.curvature = curvature
        self.w = 1.0

    def step(self, lr: float) -> float:
        loss = self.curvature / 2 * self.w**2
        self.w -= lr * self.curvature * self.w
        return loss


def test_rates_grow_by_one_factor_from_the_first_to_the_last() -> None:
    curve = find_lr(lambda lr: 1.0, low=1e-5, high=1.0, n_steps=51)
    assert curve.lrs == pytest.approx(np.geomspace(1e-5, 1.0, 51))
    assert curve.losses == (1.0,) * 51
    assert curve.smoothed == pytest.approx([1.0] * 51)


def test_every_step_is_taken_at_its_rate() -> None:
    asked: list[float] = []

    def step(lr: float) -> float:
        asked.append(lr)
        return 1.0

    assert find_lr(step, n_steps=20).lrs == tuple(asked)
    assert (asked[0], asked[-1]) == pytest.approx((1e-7, 10.0))


def test_the_running_average_weighs_each_loss_by_its_age() -> None:
    losses = np.random.default_rng(0).random(30) + 1
    given = iter(losses.tolist())
    curve = find_lr(lambda lr: next(given), n_steps=30)
    for i, value in enumerate(curve.smoothed):
        weights = 0.9 ** np.arange(i, -1, -1)
        assert value == pytest.approx(np.average(losses[: i + 1], weights=weights))


def test_it_stops_when_the_average_is_four_times_the_best() -> None:
    curve = find_lr(Quadratic(1.0).step, low=1e-2, high=1e6, n_steps=300)
    assert len(curve.lrs) < 300
    assert curve.smoothed[-1] > 4 * min(curve.smoothed)
    assert all(value <= 4 * min(curve.smoothed[: i + 1]) for i, value in enumerate(curve.smoothed[:-1]))


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_it_stops_before_a_loss_that_is_not_a_number(bad: float) -> None:
    given = iter([3.0, 2.0, 1.0, bad, 1.0])
    assert find_lr(lambda lr: next(given), n_steps=5).losses == (3.0, 2.0, 1.0)
    with pytest.raises(DataError, match=r"must be a number for at least 3 steps, got \[\] from lr 0.001 on"):
        find_lr(lambda lr: bad, low=1e-3)


@pytest.mark.parametrize("curvature", [0.1, 1.0, 50.0])
def test_what_it_suggests_learns_a_quadratic_and_does_not_diverge(curvature: float) -> None:
    suggestion = suggest(find_lr(Quadratic(curvature).step, low=1e-5, high=1e3, n_steps=200))
    for lr in (suggestion.steepest, suggestion.minimum_tenth):
        assert 0.01 / curvature < lr < 2 / curvature
        problem = Quadratic(curvature)
        losses = [problem.step(lr) for _ in range(50)]
        assert losses[-1] < 0.5 * losses[0]


def test_what_it_suggests_follows_the_scale_of_the_problem() -> None:
    flat = suggest(find_lr(Quadratic(1.0).step, low=1e-5, high=1e3, n_steps=200))
    steep = suggest(find_lr(Quadratic(100.0).step, low=1e-7, high=1e1, n_steps=200))
    assert steep.steepest == pytest.approx(flat.steepest / 100)
    assert steep.minimum_tenth == pytest.approx(flat.minimum_tenth / 100)


def test_steepest_is_where_the_average_falls_fastest_and_the_minimum_where_it_is_least() -> None:
    lrs = tuple(np.geomspace(1e-6, 1.0, 61).tolist())
    x = np.log10(lrs)
    smoothed = tuple((2 - np.tanh(2 * (x + 4)) + np.where(x > -2, (x + 2) ** 2, 0.0)).tolist())
    suggestion = suggest(LrCurve(lrs, smoothed, smoothed))
    assert suggestion.steepest == pytest.approx(1e-4)
    assert suggestion.minimum_tenth == pytest.approx(1e-3, rel=0.3)


def test_a_fall_after_the_minimum_is_not_looked_at() -> None:
    lrs = (1e-4, 1e-3, 1e-2, 1e-1, 1.0)
    smoothed = (2.0, 1.5, 1.0, 9.0, 5.0)
    suggestion = suggest(LrCurve(lrs, smoothed, smoothed))
    assert suggestion.steepest == 1e-3
    assert suggestion.minimum_tenth == pytest.approx(1e-3)


def test_a_loss_that_never_falls_suggests_nothing() -> None:
    with pytest.raises(DataError, match=r"the loss never falls by 1% between lr 1e-07 and 1, so"):
        suggest(find_lr(lambda lr: 1.0 + lr, high=1.0))


@pytest.mark.parametrize(("low", "high", "n_steps"), [(0.0, 1.0, 9), (1.0, 0.1, 9), (1e-3, 1.0, 2), (1.0, math.inf, 9)])
def test_a_sweep_needs_rates_that_grow(low: float, high: float, n_steps: int) -> None:
    with pytest.raises(ConfigError, match=r"needs 0 < low < high and at least 3 steps"):
        find_lr(lambda lr: 1.0, low, high, n_steps)


def swept(workspace: Workspace, low: float, high: float, n_steps: int, **keys: Any) -> tuple[LrCurve, TrainingRun]:
    settings = {"architecture": "tiny_convnet", "windows": "brain", "image_px": 32, "batch_size": 4}
    run = open_fold(workspace, Recipe(**settings | keys), 0, torch.device("cpu")).run
    return sweep(run, low, high, n_steps), run


@pytest.mark.slow  # takes seconds
@pytest.mark.parametrize("keys", [{}, {"neighbour_targets": 0.3}, {"dropout": 0.0, "mixup": 0.4}])
def test_a_run_is_swept_beside_its_start_so_that_batches_do_not_drown_the_curve(
    session_workspace: Workspace, keys: dict[str, Any]
) -> None:
    curve, run = swept(session_workspace, 1e-9, 1e-7, 20, **keys)
    plain = open_fold(session_workspace, run.recipe, 0, torch.device("cpu")).run
    batches = plain.endless()
    plain.network.train()
    raw = [float(plain.step(next(batches), lr)) for lr in curve.lrs]
    assert np.std(raw) > 0.05
    assert np.std(curve.losses) < 1e-3  # nothing is learnt at these rates, and nothing else is left
    assert np.mean(curve.losses) == pytest.approx(np.mean(raw), abs=1e-3)
    assert run.history == []
    with pytest.raises(DataError, match=r"never falls by 1%"):
        suggest(curve)


def test_a_run_that_learns_gives_a_valley(session_workspace: Workspace) -> None:
    curve, _ = swept(session_workspace, 1e-5, 3.0, 60, batch_size=16, warmup=0.0)
    found = suggest(curve)
    assert 1e-4 < found.steepest < 1.0
    assert 1e-4 < found.minimum_tenth < 0.3


def test_every_step_is_told(session_workspace: Workspace) -> None:
    seen: list[int] = []
    run = open_fold(
        session_workspace,
        Recipe(architecture="tiny_convnet", windows="brain", image_px=32),  # type: ignore[arg-type]
        0,
        torch.device("cpu"),
    ).run
    sweep(run, 1e-6, 1e-5, 5, lambda done, lr: seen.append(done))
    assert seen == [1, 2, 3, 4, 5]
