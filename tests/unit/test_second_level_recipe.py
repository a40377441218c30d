"""SecondLevelRecipe: one id for equal runs, plain values and back, mistakes told by their key."""

from dataclasses import fields, replace
from typing import Any

import pytest

from ichtune.errors import ConfigError
from ichtune.recipe import Recipe
from ichtune.second_level_recipe import (
    KERNELS,
    MODELS,
    SecondLevelRecipe,
    _without_effect,
    recipe_from_dict,
    second_level_keys,
)

ONE, TWO = "aaaaaaaaaaaa", "bbbbbbbbbbbb"
#: Another value than the default for every key.
OTHERS: dict[str, Any] = {
    "model": "lstm",
    "members": (ONE,),
    "deltas": False,
    "spacing": False,
    "embeddings": 8,
    "metadata": True,
    "metadata_only": True,
    "hidden": 32,
    "layers": 1,
    "heads": 2,
    "dropout": 0.1,
    "epochs": 3,
    "lr": 1e-3,
    "weight_decay": 0.1,
    "batch_size": 8,
    "subsample": 0.0,
    "reverse": 0.0,
    "tta": False,
    "loss_weights": (1.0,) * 6,
    "neighbours": 2,
    "aggregates": False,
    "rounds": 10,
    "learning_rate": 0.1,
    "leaves": 7,
    "min_slices": 5,
    "l2": 2.0,
    "feature_share": 1.0,
    "kernel": "1-2-1",
    "seed": 8,
}


def test_every_key_is_tried() -> None:
    assert tuple(OTHERS) == second_level_keys()


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("key", [key for key in OTHERS if key not in ("model", "metadata_only")])
def test_a_key_changes_the_id_exactly_where_the_model_reads_it(model: str, key: str) -> None:
    plain = SecondLevelRecipe(model=model)
    changed = replace(plain, **{key: OTHERS[key]})
    idle = key in _without_effect(plain)
    assert (changed == plain) is idle
    assert (changed.recipe_id == plain.recipe_id) is idle


def test_every_key_is_read_by_some_model() -> None:
    for key, value in OTHERS.items():
        assert any(
            replace(SecondLevelRecipe(model=model), **{key: value}) != SecondLevelRecipe(model=model)
            for model in MODELS
            if not (key == "metadata_only" and model in ("kernel", "gaussian"))
        ), key


@pytest.mark.parametrize("model", MODELS)
def test_it_goes_through_plain_values_and_back(model: str) -> None:
    keys = {key: value for key, value in OTHERS.items() if key not in ("model", "metadata_only")}
    recipe = SecondLevelRecipe(**{**keys, "model": model})
    told = recipe.to_dict()
    assert next(iter(told)) == "level"
    assert recipe_from_dict(told) == SecondLevelRecipe.from_dict(told) == recipe
    assert recipe_from_dict(told).recipe_id == recipe.recipe_id


def test_members_are_a_set() -> None:
    recipes = [SecondLevelRecipe(members=members) for members in ((ONE, TWO), (TWO, ONE), (TWO, ONE, TWO))]
    assert len({recipe.recipe_id for recipe in recipes}) == 1
    assert recipes[1].members == (ONE, TWO)
    assert SecondLevelRecipe().recipe_id != recipes[0].recipe_id


def test_an_id_is_never_that_of_a_network() -> None:
    assert SecondLevelRecipe().recipe_id != Recipe().recipe_id
    assert SecondLevelRecipe().recipe_id == SecondLevelRecipe.from_dict({"level": 2}).recipe_id


def test_no_two_kernels_are_the_same_weights() -> None:
    shares = {tuple(round(weight / sum(weights), 9) for weight in weights) for weights in KERNELS.values()}
    assert len(shares) == len(KERNELS)


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"model": "grru"}, r"'model' must be one of gru, .* got 'grru'. Did you mean 'gru'"),
        ({"members": "some"}, r"'members' must be `all` or a list of recipe_ids of 12 digits in quotes, got 'some'"),
        ({"members": []}, r"'members' must be `all`"),
        ({"members": ["exp_00"]}, r"'members' must be `all`"),
        ({"members": [123456789012]}, r"in quotes, got \[123456789012\]"),
        ({"model": "transformer", "hidden": 30}, r"'heads' must divide 'hidden', got heads 4 and hidden 30"),
        ({"model": "gaussian", "metadata_only": True}, r"'metadata_only' has no meaning for gaussian"),
        ({"hidden": 2}, r"'hidden' must be between 4 and 1024, got 2"),
        ({"hiden": 2}, r"unknown recipe key 'hiden' of the second level. Did you mean 'hidden'"),
        ({"level": 1}, r"'level' must be 2 here, got 1"),
        ({"level": True}, r"'level' must be 2 here, got True"),
    ],
)
def test_a_mistake_is_told_by_its_key(keys: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        SecondLevelRecipe.from_dict(keys)


def test_the_level_tells_the_kinds_apart() -> None:
    assert recipe_from_dict({}) == recipe_from_dict({"level": 1}) == Recipe()
    assert recipe_from_dict({"level": 2}) == SecondLevelRecipe()
    with pytest.raises(ConfigError, match="'level' must be 2 here, got 3"):
        recipe_from_dict({"level": 3})


def test_a_summary_says_what_learns_from_how_many() -> None:
    assert SecondLevelRecipe().summary == "gru on all runs|hidden=64|lr=2.0e-03"
    assert SecondLevelRecipe(model="kernel", members=(ONE,)).summary == "kernel on 1 run|1-3-1"
    assert SecondLevelRecipe(model="lightgbm", members=(ONE, TWO)).summary == (
        "lightgbm on 2 runs|±5|leaves=6|rounds=60"
    )
    assert all(len(SecondLevelRecipe(model=model).summary) < 60 for model in MODELS)


def test_every_key_says_what_it_means() -> None:
    assert all(spec.metadata["doc"] for spec in fields(SecondLevelRecipe))
