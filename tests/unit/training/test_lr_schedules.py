"""Schedules: where they are flat, where they fall, and the warm-up before."""

import pytest

from ichtune.errors import ConfigError
from ichtune.recipe import Recipe
from ichtune.training.lr_schedules import find_lr_schedule, lr_at


def test_flat_cosine_is_flat_and_then_falls_to_nothing() -> None:
    recipe = Recipe(lr=1e-3, lr_schedule="flat_cosine", anneal_start=0.6, warmup=0.0)
    assert [lr_at(recipe, p) for p in (0.0, 0.3, 0.6)] == [1e-3] * 3
    assert lr_at(recipe, 0.8) == pytest.approx(0.5e-3)
    assert lr_at(recipe, 1.0) == pytest.approx(0.0, abs=1e-15)


def test_flat_cosine_without_annealing_is_constant() -> None:
    recipe = Recipe(lr=1e-3, anneal_start=1.0, warmup=0.0)
    assert lr_at(recipe, 1.0) == 1e-3


def test_cosine_falls_from_the_start() -> None:
    recipe = Recipe(lr=2.0, lr_schedule="cosine", warmup=0.0)
    assert [round(lr_at(recipe, p), 12) for p in (0.0, 0.5, 1.0)] == [2.0, 1.0, 0.0]


def test_constant_stays() -> None:
    recipe = Recipe(lr=2.0, lr_schedule="constant", warmup=0.0)
    assert [lr_at(recipe, p) for p in (0.0, 0.5, 1.0)] == [2.0] * 3


def test_warm_up_rises_in_a_straight_line() -> None:
    recipe = Recipe(lr=1.0, lr_schedule="constant", warmup=0.2, anneal_start=0.7)
    assert [lr_at(recipe, p) for p in (0.0, 0.05, 0.1, 0.2, 0.5)] == pytest.approx([0.0, 0.25, 0.5, 1.0, 1.0])


def test_a_misspelt_schedule_is_answered_with_the_nearest() -> None:
    with pytest.raises(ConfigError, match=r"unknown lr_schedule 'cosin'. Did you mean 'cosine'"):
        find_lr_schedule("cosin")
