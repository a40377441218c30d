"""Recipe: identity, round trips, and one clear refusal for each thing that is no recipe."""

import dataclasses
import json
import math
from typing import Any

import pytest

from ichtune.errors import ConfigError
from ichtune.recipe import ID_DIGITS, Recipe, recipe_keys
from ichtune.windows import WINDOW_SETS, Window

#: For every field a value that is not the default.
OTHER: dict[str, Any] = {
    "architecture": "resnet34",
    "windows": "brain",
    "image_px": 256,
    "crop": "head",
    "neighbours": 1,
    "loss": "focal",
    "loss_weights": (1, 1, 1, 1, 1, 1),
    "optimizer": "sgd",
    "lr": 2e-3,
    "weight_decay": 0.0,
    "momentum": 0.8,
    "lr_schedule": "cosine",
    "anneal_start": 0.3,
    "warmup": 0.0,
    "epochs": 5,
    "batch_size": 32,
    "ema_decay": 0.99,
    "dropout": 0.1,
    "augmentation": "none",
    "pretrained": True,
    "seed": 8,
}


def test_every_field_counts_in_the_identity() -> None:
    assert set(OTHER) == set(recipe_keys())
    recipes = [Recipe(), *(Recipe(**{key: value}) for key, value in OTHER.items())]
    assert len({recipe.recipe_id for recipe in recipes}) == len(recipes)
    assert len(set(recipes)) == len(recipes)


@pytest.mark.parametrize(
    "spelling",
    [
        {"windows": [[40, 80], [80, 200], [600, 2800]]},
        {"windows": [Window(40, 80), Window(80, 200), Window(600, 2800)]},
        {"loss_weights": [2, 1, 1, 1, 1, 1]},
        {"epochs": 4.0, "lr": 1e-3, "warmup": 0.05},
        {"ema_decay": -0.0, "dropout": 0},
    ],
)
def test_the_same_choice_spelt_otherwise_is_the_same_recipe(spelling: dict[str, Any]) -> None:
    assert Recipe(**spelling) == Recipe()
    assert Recipe(**spelling).recipe_id == Recipe().recipe_id


def test_the_id_is_short_hexadecimal_and_stays_from_release_to_release() -> None:
    assert len(Recipe().recipe_id) == ID_DIGITS
    assert int(Recipe().recipe_id, 16) >= 0
    assert Recipe().recipe_id == "db2d9938e715"


def test_a_recipe_cannot_be_changed() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        Recipe().lr = 1.0  # type: ignore[misc]


@pytest.mark.parametrize("key", OTHER)
def test_plain_values_give_the_recipe_again(key: str) -> None:
    recipe = Recipe(**{key: OTHER[key]})
    assert Recipe.from_dict(json.loads(json.dumps(recipe.to_dict()))) == recipe


def test_named_windows_are_written_by_name_and_others_in_full() -> None:
    assert Recipe(windows=WINDOW_SETS["brain"]).to_dict()["windows"] == "brain"
    assert Recipe(windows=((41, 80),)).to_dict()["windows"] == [[41.0, 80.0]]  # type: ignore[arg-type]


def test_channels_are_windows_times_slices() -> None:
    assert Recipe(windows="brain_subdural_bone", neighbours=2).n_channels == 15  # type: ignore[arg-type]


def test_the_summary_tells_recipes_apart() -> None:
    recipe = Recipe(architecture="resnet34", windows="brain", neighbours=1, lr=3e-4)  # type: ignore[arg-type]
    assert recipe.summary == "resnet34|brain|±1|224px|lr=3.0e-04"
    assert "±" not in Recipe().summary
    assert "none" not in Recipe().summary
    assert Recipe(crop="head").summary == Recipe().summary.replace("224px", "224px head")


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("lr", "1e-3", "must be a number, got '1e-3'"),
        ("lr", True, "must be a number, got True"),
        ("lr", 0, "between 1e-08 and 100, got 0"),
        ("lr", math.nan, "must be a number, got nan"),
        ("lr", math.inf, "between 1e-08 and 100, got inf"),
        ("lr", 10**400, "between 1e-08 and 100"),
        ("epochs", 2.5, "must be a whole number, got 2.5"),
        ("epochs", 0, "at least 1, got 0"),
        ("epochs", math.inf, "must be a whole number, got inf"),
        ("epochs", 10**400, "at least 1"),
        ("image_px", 8, "between 16 and 2048, got 8"),
        ("neighbours", -1, "between 0 and 8, got -1"),
        ("architecture", None, "must be a name, got None"),
        ("crop", None, "must be a name, got None"),
        ("crop", "heads", "must be one of none, head, tight. Did you mean 'head'"),
        ("pretrained", 1, "must be true, false or a path, got 1"),
        ("loss_weights", [1, 1, 1], "6 numbers of at least 0"),
        ("loss_weights", [0] * 6, "6 numbers of at least 0"),
        ("loss_weights", [1, 1, 1, 1, 1, -1], "6 numbers of at least 0"),
        ("loss_weights", [1, 1, 1, 1, 1, math.nan], "6 numbers of at least 0"),
        ("loss_weights", "211111", "6 numbers of at least 0"),
        ("loss_weights", [True] * 6, "6 numbers of at least 0"),
        ("loss_weights", 7, "6 numbers of at least 0"),
        ("windows", "brian", "Did you mean 'brain'"),
        ("anneal_start", 0.01, "must not lie before the end of 'warmup'"),
    ],
)
def test_a_value_that_cannot_be_used_is_named_with_its_key(key: str, value: Any, message: str) -> None:
    with pytest.raises(ConfigError, match=message) as caught:
        Recipe(**{key: value})
    assert key in str(caught.value) or key == "windows"


def test_an_unknown_key_is_answered_with_the_nearest() -> None:
    with pytest.raises(ConfigError, match=r"unknown recipe key 'learning_rate'"):
        Recipe.from_dict({"learning_rate": 1})
    with pytest.raises(ConfigError, match=r"unknown recipe key 'image_size'. Did you mean 'image_px'"):
        Recipe.from_dict({"image_size": 224})
