"""Every schedule in the table: a share of the peak, without jumps, reached through the warm-up."""

from itertools import pairwise

import pytest

from ichtune.recipe import Recipe
from ichtune.training.lr_schedules import LR_SCHEDULES, find_lr_schedule, lr_at

pytestmark = pytest.mark.parametrize("name", LR_SCHEDULES)
PROGRESS = [i / 1000 for i in range(1001)]


@pytest.mark.parametrize("anneal_start", [0.1, 0.7, 1.0])
def test_it_is_a_share_of_the_peak_and_never_jumps(name: str, anneal_start: float) -> None:
    recipe = Recipe(lr_schedule=name, anneal_start=anneal_start, warmup=0.1)
    shares = [find_lr_schedule(name)(p, recipe) for p in PROGRESS]
    assert max(shares) == 1.0
    assert min(shares) >= 0.0
    assert max(abs(b - a) for a, b in pairwise(shares)) < 0.02
    assert shares == sorted(shares, reverse=True)


def test_the_warm_up_starts_at_nothing_and_the_peak_is_the_recipe_s(name: str) -> None:
    recipe = Recipe(lr_schedule=name, lr=3e-3, warmup=0.1)
    rates = [lr_at(recipe, p) for p in PROGRESS]
    assert rates[0] == 0.0
    assert 0.9 * 3e-3 < max(rates) <= 3e-3
    assert min(rates) >= 0.0


def test_without_warm_up_it_starts_at_the_peak(name: str) -> None:
    assert lr_at(Recipe(lr_schedule=name, lr=3e-3, warmup=0.0), 0.0) == 3e-3
