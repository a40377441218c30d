"""Schedules: each against a formula or torch's own, and the warm-up before."""

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch.optim import lr_scheduler

from ichtune.errors import ConfigError
from ichtune.recipe import Recipe
from ichtune.training.lr_schedules import find_lr_schedule, frozen_lr_at, lr_at


def torch_rates(build: Callable[[torch.optim.Optimizer], Any], n: int, losses: tuple[float, ...] = ()) -> list[float]:
    """Return the rates of torch's schedule before each of n steps, from a peak of 1."""
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=1.0)
    schedule = build(optimizer)
    rates = []
    for i in range(n):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        if i < n - 1:
            schedule.step(*losses[i : i + 1])
    return rates


def test_flat_cosine_is_flat_and_then_falls_to_nothing() -> None:
    recipe = Recipe(lr=1e-3, lr_schedule="flat_cosine", anneal_start=0.6, warmup=0.0)
    assert [lr_at(recipe, p) for p in (0.0, 0.3, 0.6)] == [1e-3] * 3
    assert lr_at(recipe, 0.8) == pytest.approx(0.5e-3)
    assert lr_at(recipe, 1.0) == pytest.approx(0.0, abs=1e-15)


def test_flat_cosine_without_annealing_is_constant() -> None:
    recipe = Recipe(lr=1e-3, anneal_start=1.0, warmup=0.0)
    assert lr_at(recipe, 1.0) == 1e-3


def test_cosine_falls_from_the_start() -> None:
    recipe = Recipe(lr=1.0, lr_schedule="cosine", warmup=0.0)
    expected = torch_rates(lambda o: lr_scheduler.CosineAnnealingLR(o, T_max=50), 51)
    assert [lr_at(recipe, i / 50) for i in range(51)] == pytest.approx(expected, abs=1e-12)


def test_constant_stays() -> None:
    recipe = Recipe(lr=2.0, lr_schedule="constant", warmup=0.0)
    assert [lr_at(recipe, p) for p in (0.0, 0.5, 1.0)] == [2.0] * 3


def test_linear_falls_in_a_straight_line() -> None:
    recipe = Recipe(lr=1.0, lr_schedule="linear", warmup=0.0)
    expected = torch_rates(lambda o: lr_scheduler.LinearLR(o, 1.0, 0.0, total_iters=20), 21)
    assert [lr_at(recipe, i / 20) for i in range(21)] == pytest.approx(expected, abs=1e-12)


def torch_one_cycle(n: int, rise: float) -> list[float]:
    """Return the rates of torch's one-cycle, whose ``pct_start`` counts the first step to the rise."""
    share = (rise * (n - 1) + 1) / n
    return torch_rates(
        lambda o: lr_scheduler.OneCycleLR(
            o, max_lr=1.0, total_steps=n, pct_start=share, anneal_strategy="cos", cycle_momentum=False
        ),
        n,
    )


@pytest.mark.parametrize("rise", [0.15, 0.3, 0.6])
def test_one_cycle_rises_and_falls_as_torch_s(rise: float) -> None:
    recipe = Recipe(lr=1.0, lr_schedule="one_cycle", warmup=rise)
    assert [lr_at(recipe, i / 100) for i in range(101)] == pytest.approx(torch_one_cycle(101, rise), rel=1e-9)


def test_one_cycle_starts_at_a_25th_and_its_peak_is_not_warmed_up_again() -> None:
    recipe = Recipe(lr=1e-3, lr_schedule="one_cycle", warmup=0.2)
    assert lr_at(recipe, 0.0) == pytest.approx(1e-3 / 25)
    assert lr_at(recipe, 0.1) == pytest.approx((1e-3 + 1e-3 / 25) / 2)
    assert lr_at(recipe, 0.2) == 1e-3
    assert lr_at(recipe, 1.0) == pytest.approx(1e-3 / 25 / 1e4)


def test_the_frozen_epochs_have_a_one_cycle_of_their_own() -> None:
    recipe = Recipe(lr=5.0, frozen_lr=1.0, frozen_epochs=1, lr_schedule="constant")
    assert [frozen_lr_at(recipe, i / 100) for i in range(101)] == pytest.approx(torch_one_cycle(101, 0.3), rel=1e-9)


@pytest.mark.parametrize("cycles", [1, 3, 4])
@pytest.mark.parametrize("decay", [1.0, 0.6])
def test_cosine_restarts_as_torch_s_with_lower_peaks(cycles: int, decay: float) -> None:
    recipe = Recipe(lr=1.0, lr_schedule="cosine_restarts", warmup=0.0, cycles=cycles, cycle_decay=decay)
    n = 12 * cycles
    rates = torch_rates(lambda o: lr_scheduler.CosineAnnealingWarmRestarts(o, T_0=12), n)
    expected = [rate * decay ** (i // 12) for i, rate in enumerate(rates)]
    assert [lr_at(recipe, i / n) for i in range(n)] == pytest.approx(expected, abs=1e-12)
    assert lr_at(recipe, 1.0) == pytest.approx(0.0, abs=1e-12)


def test_every_cycle_starts_at_its_peak_whatever_the_rounding() -> None:
    for cycles in range(1, 101):
        recipe = Recipe(lr=1.0, lr_schedule="cosine_restarts", warmup=0.0, cycles=cycles, cycle_decay=0.9)
        rates = [lr_at(recipe, c / cycles) for c in range(cycles)]
        assert rates == pytest.approx([0.9**c for c in range(cycles)], rel=1e-12)


def test_step_decays_after_each_epoch_as_torch_s() -> None:
    recipe = Recipe(lr=1.0, lr_schedule="step", warmup=0.0, lr_decay=0.8, epochs=7, frozen_epochs=2)
    for n_steps, build in (
        (1, lambda o: lr_scheduler.ExponentialLR(o, 0.8)),
        (6, lambda o: lr_scheduler.StepLR(o, step_size=6, gamma=0.8)),
    ):
        n = 5 * n_steps
        assert [lr_at(recipe, (i + 0.5) / n) for i in range(n)] == pytest.approx(torch_rates(build, n))


def test_every_epoch_has_its_step_whatever_the_rounding() -> None:
    for epochs in range(1, 101):
        recipe = Recipe(lr=1.0, lr_schedule="step", warmup=0.0, lr_decay=0.5, epochs=epochs)
        assert [lr_at(recipe, e / epochs) for e in range(epochs)] == [0.5**e for e in range(epochs)]


@pytest.mark.parametrize("patience", [0, 1, 3])
@pytest.mark.parametrize("decay", [0.1, 0.5])
def test_plateau_falls_when_torch_s_does(patience: int, decay: float) -> None:
    drawn = torch.rand(40, generator=torch.Generator().manual_seed(patience)).tolist()
    losses = (*(loss / (1 + i / 10) for i, loss in enumerate(drawn)), math.nan, 0.0, 0.0, 0.0, 0.0, 0.0)
    recipe = Recipe(lr=1.0, lr_schedule="plateau", warmup=0.0, patience=patience, lr_decay=decay)
    expected = torch_rates(
        lambda o: lr_scheduler.ReduceLROnPlateau(o, factor=decay, patience=patience, threshold=0, eps=0),
        len(losses) + 1,
        losses,
    )
    rates = [lr_at(recipe, i / len(losses), losses[:i]) for i in range(len(losses) + 1)]
    assert rates == pytest.approx(expected)
    assert 1 < len(set(rates)) < len(rates)


def test_warm_up_rises_in_a_straight_line() -> None:
    recipe = Recipe(lr=1.0, lr_schedule="constant", warmup=0.2, anneal_start=0.7)
    assert [lr_at(recipe, p) for p in (0.0, 0.05, 0.1, 0.2, 0.5)] == pytest.approx([0.0, 0.25, 0.5, 1.0, 1.0])


FALLS: dict[str, Callable[[torch.optim.Optimizer, int], Any]] = {
    "cosine": lambda o, n: lr_scheduler.CosineAnnealingLR(o, T_max=n),
    "linear": lambda o, n: lr_scheduler.LinearLR(o, 1.0, 0.0, total_iters=n),
    "cosine_restarts": lambda o, n: lr_scheduler.CosineAnnealingWarmRestarts(o, T_0=n // 3),
}


@pytest.mark.parametrize("n_rise", [6, 30, 54])
@pytest.mark.parametrize("name", FALLS)
def test_what_falls_at_once_rises_to_the_peak_first_as_torch_s(name: str, n_rise: int) -> None:
    n, cycles = 60, 3
    recipe = Recipe(lr=1.0, lr_schedule=name, warmup=n_rise / n, cycles=cycles)

    def both(optimizer: torch.optim.Optimizer) -> Any:
        rise = lr_scheduler.LinearLR(optimizer, 1e-9, 1.0, total_iters=n_rise)
        return lr_scheduler.SequentialLR(optimizer, [rise, FALLS[name](optimizer, n - n_rise)], milestones=[n_rise])

    rates = [lr_at(recipe, i / n) for i in range(n)]
    assert rates == pytest.approx(torch_rates(both, n), abs=1e-8)
    assert rates[n_rise] == 1.0


@pytest.mark.parametrize("name", ["flat_cosine", "constant", "step", "plateau"])
def test_the_other_schedules_run_over_the_whole_and_the_rise_multiplies_them(name: str) -> None:
    rising, whole = (
        Recipe(lr=1.0, lr_schedule=name, warmup=warmup, anneal_start=0.7, epochs=4) for warmup in (0.4, 0.0)
    )
    losses = (1.0, 2.0, 2.0)
    for i in range(101):
        expected = lr_at(whole, i / 100, losses) * min(1.0, i / 40)
        assert lr_at(rising, i / 100, losses) == pytest.approx(expected)


def test_a_misspelt_schedule_is_answered_with_the_nearest() -> None:
    with pytest.raises(ConfigError, match=r"unknown lr_schedule 'cosin'. Did you mean 'cosine'"):
        find_lr_schedule("cosin")
