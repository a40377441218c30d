"""A search that is played through: what it comes to lies between its bounds, whatever order trials come in."""

import pytest

from ichtune.recipe import Recipe
from ichtune.search.playing import Amount, play
from ichtune.space import EarlyStop, Space, TrainSettings
from ichtune.space.settings import SearchSettings

RECIPES = [Recipe(architecture="tiny_convnet", image_px=32, epochs=9, lr=1e-3 * (n + 1)) for n in range(3)]


def space_of(early_stop: EarlyStop, top: int = 1) -> Space:
    return Space("mine", (), search=SearchSettings(early_stop=early_stop), train=TrainSettings(top))


@pytest.mark.parametrize("seconds", [[1.0, 1.0, 1.0], [1.0, 100.0, 1.0], [300.0, 2.0, 1.0], [1.0, 2.0, 300.0]])
@pytest.mark.parametrize("n_trials", [1, 3, 6, 20])
def test_what_is_expected_lies_within_the_bounds(n_trials: int, seconds: list[float]) -> None:
    """Whether the dear recipes are the good ones decides as much as in which order trials come."""
    for factor in (2, 3):
        stop = EarlyStop("asha", grace=1, max=9, factor=factor, judge="last")
        for amount in play(space_of(stop), RECIPES, seconds, n_trials, 120):
            assert amount.at_least <= amount.expected <= amount.at_most


def test_a_search_that_stops_nobody_comes_to_the_same_in_every_order() -> None:
    epochs, computing_s = play(space_of(EarlyStop(max=9)), RECIPES, [1.0, 2.0, 3.0], 3, 120)

    assert epochs == Amount(27, 27, 27)
    assert computing_s == Amount(54, 54, 54)


def test_those_that_are_trained_on_in_the_end_are_counted() -> None:
    stop = EarlyStop("asha", grace=3, max=9, factor=9, judge="last")
    one, two = (play(space_of(stop, top), RECIPES, [1.0] * 3, 4, 120)[0] for top in (1, 2))

    assert (one.at_least, two.at_least) == (4 * 3 + 6, 4 * 3 + 2 * 6)


def test_a_larger_search_is_scaled() -> None:
    stop = EarlyStop("asha", grace=1, max=9, factor=3, judge="last")

    assert play(space_of(stop), RECIPES, [1.0] * 3, 900, 9)[0].at_least == pytest.approx(100 * (9 + 3 * 2 + 6))


def test_an_amount_in_other_units() -> None:
    assert Amount(2, 4, 6).divided(2) == Amount(1, 2, 3)
