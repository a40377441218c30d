"""Every schedule in the table: a share of the peak, reached through the warm-up, the same wherever the run stops."""

from itertools import pairwise

import pytest

from ichtune.recipe import Recipe
from ichtune.training.lr_schedules import LR_SCHEDULES, find_lr_schedule, lr_at

pytestmark = pytest.mark.parametrize("name", LR_SCHEDULES)
PROGRESS = [i / 1000 for i in range(1001)]
LOSSES = [0.9, 0.5, 0.6, 0.4, 0.45, 0.44, 0.43, 0.3]
#: Those that fall at once, by a restart or from epoch to epoch, by intention.
JUMPS = {"cosine_restarts", "step", "plateau"}


def recipe_of(name: str, **settings: object) -> Recipe:
    return Recipe.from_dict({"lr_schedule": name, "lr": 3e-3, "cycles": 3, "cycle_decay": 0.7, **settings})


def rates_of(recipe: Recipe, n_epochs: int, n_of_all: int = 8, n_steps: int = 5) -> list[float]:
    """Return the rates of a run's steps up to ``n_epochs`` of ``n_of_all``, as the loop asks for them."""
    return [
        lr_at(recipe, (epoch * n_steps + step + 0.5) / (n_of_all * n_steps), LOSSES[:epoch])
        for epoch in range(n_epochs)
        for step in range(n_steps)
    ]


@pytest.mark.parametrize("anneal_start", [0.1, 0.7, 1.0])
def test_it_is_a_share_of_the_peak_that_it_reaches(name: str, anneal_start: float) -> None:
    recipe = recipe_of(name, anneal_start=anneal_start, warmup=0.1)
    for losses in ([], LOSSES):
        shares = [find_lr_schedule(name)(p, recipe, losses) for p in PROGRESS]
        assert max(shares) <= 1.0
        assert min(shares) >= 0.0
        if not losses:
            assert max(shares) == 1.0
        if name not in JUMPS:
            assert max(abs(b - a) for a, b in pairwise(shares)) < 0.02
            assert shares[100:] == sorted(shares[100:], reverse=True)


def test_the_warm_up_starts_low_and_the_peak_is_the_recipe_s(name: str) -> None:
    recipe = recipe_of(name, warmup=0.1)
    rates = [lr_at(recipe, p) for p in PROGRESS]
    assert 0.0 <= rates[0] < 0.05 * 3e-3
    assert max(rates) == pytest.approx(3e-3, rel=1e-3)
    assert max(rates) <= 3e-3
    assert rates[100] == max(rates)
    assert rates[:101] == sorted(rates[:101])
    assert min(rates) >= 0.0


def test_without_warm_up_it_starts_at_the_peak_and_is_the_schedule_to_the_bit(name: str) -> None:
    recipe = recipe_of(name, warmup=0.0)
    assert lr_at(recipe, 0.0) == 3e-3
    for losses in ([], LOSSES):
        shares = [find_lr_schedule(name)(p, recipe, losses) for p in PROGRESS]
        assert [lr_at(recipe, p, losses) for p in PROGRESS] == [3e-3 * share for share in shares]


def test_what_is_stopped_early_followed_the_curve_of_the_whole_run(name: str) -> None:
    recipe = recipe_of(name, epochs=8, patience=1)
    whole = rates_of(recipe, 8)
    for n_epochs in range(9):
        assert rates_of(recipe, n_epochs) == whole[: 5 * n_epochs]


def test_it_is_the_same_whatever_the_steps_of_an_epoch(name: str) -> None:
    recipe = recipe_of(name, epochs=8)
    fine = rates_of(recipe, 8, n_steps=15)
    assert rates_of(recipe, 8, n_steps=5) == pytest.approx(fine[1::3])


def test_the_peak_scales_every_rate(name: str) -> None:
    small, large = (rates_of(recipe_of(name, lr=lr), 8) for lr in (1e-3, 1e-1))
    assert large == pytest.approx([100 * rate for rate in small])
