"""The seam between a search and the levels of recipes: each level is there, whole, and found by its recipes."""

import pytest

from ichtune.recipe import Recipe
from ichtune.search.levels import SearchLevel, search_level, search_level_of
from ichtune.second_level_recipe import SecondLevelRecipe
from ichtune.shipped import find_yaml
from ichtune.space import read_space
from ichtune.space.levels import LEVELS


@pytest.mark.parametrize("number", LEVELS)
def test_every_level_of_a_space_can_be_searched(number: int) -> None:
    level = search_level(number)

    assert isinstance(level, SearchLevel)
    assert read_space(find_yaml(level.example, "search_spaces")).level == number
    assert level.command
    assert level.timed
    assert type(search_level_of(LEVELS[number].build({}))) is type(level)


def test_levels_differ_in_what_they_read() -> None:
    assert search_level_of(Recipe(image_px=64, crop="head")).pixels([Recipe(image_px=64, crop="head")]) == {
        (64, "head")
    }
    assert search_level_of(SecondLevelRecipe()).pixels([SecondLevelRecipe()]) == frozenset()
