"""Recipes are checked before time is spent."""

from dataclasses import replace
from typing import Any

import pytest

from ichtune.errors import ConfigError, DataError
from ichtune.recipe import Recipe
from ichtune.training.checks import NAME_CHECKS, check_recipe, check_weights

RECIPE = Recipe(architecture="tiny_convnet", windows="brain", image_px=32)  # type: ignore[arg-type]


@pytest.mark.parametrize("key", NAME_CHECKS)
def test_a_name_that_no_table_knows_is_refused(key: str) -> None:
    check_recipe(RECIPE)
    with pytest.raises(ConfigError, match=rf"unknown {key} 'qqq'"):
        check_recipe(replace(RECIPE, **{key: "qqq"}))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"optimizer": "sgd", "beta1": 0.9}, "beta1"),
        ({"optimizer": "lion", "eps": 1e-8}, "eps"),
        ({"flip_slices": 0.5, "neighbours": 1, "neighbour_side": "below"}, "flip_slices"),
    ],
)
def test_keys_that_do_not_go_together_are_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        check_recipe(replace(RECIPE, **changes))


def test_weights_that_are_not_there_are_missed_before_anything_is_trained(monkeypatch: pytest.MonkeyPatch) -> None:
    check_weights(RECIPE)
    with pytest.raises(DataError, match=r"no such file"):
        check_weights(replace(RECIPE, architecture="test_resnet", pretrained="nowhere.safetensors"))
    with pytest.raises(ConfigError, match=r"has no pretrained weights"):
        check_weights(replace(RECIPE, pretrained=True))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
