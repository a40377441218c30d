"""Laws of the recipe: equal exactly when ids are equal, and the same after any round trip."""

import io
import json
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from ruamel.yaml import YAML

from ichtune.labels import N_LABELS
from ichtune.recipe import CROPS, Recipe, recipe_keys
from ichtune.recipe_file import read_recipe
from ichtune.windows import WINDOW_SETS

lawful = settings(derandomize=True, deadline=None, max_examples=80)

WINDOW = st.tuples(st.integers(-100, 600) | st.floats(-100, 600), st.integers(1, 3000) | st.floats(0.5, 3000))
NAMES = st.sampled_from(["resnet18", "true", "1e5", "no", "2019-01-01", "ä b"])
FIELDS: dict[str, st.SearchStrategy[Any]] = {
    "architecture": NAMES,
    "windows": st.sampled_from(sorted(WINDOW_SETS)) | st.lists(WINDOW, min_size=1, max_size=4),
    "image_px": st.integers(16, 2048),
    "crop": st.sampled_from(CROPS),
    "neighbours": st.integers(0, 8),
    "loss": NAMES,
    "loss_weights": st.tuples(*[st.integers(1, 5) | st.floats(0.1, 9.0)] * N_LABELS),
    "optimizer": NAMES,
    "lr": st.floats(1e-8, 100.0),
    "weight_decay": st.sampled_from([0, 0.0, -0.0, 1e-2]) | st.floats(0.0, 10.0),
    "momentum": st.floats(0.0, 0.9999),
    "lr_schedule": NAMES,
    "anneal_start": st.floats(0.5, 1.0),
    "warmup": st.floats(0.0, 0.5),
    "epochs": st.integers(1, 1000),
    "batch_size": st.integers(1, 4096),
    "ema_decay": st.floats(0.0, 0.99999),
    "dropout": st.floats(0.0, 0.95),
    "augmentation": NAMES,
    "pretrained": st.booleans() | NAMES,
    "seed": st.integers(0, 2**31 - 1),
}
VALUES = st.fixed_dictionaries({}, optional=FIELDS)


def test_every_field_is_varied_here() -> None:
    assert set(FIELDS) == set(recipe_keys())


@lawful
@given(VALUES, VALUES)
def test_recipes_are_equal_exactly_when_their_ids_are(one: dict[str, Any], other: dict[str, Any]) -> None:
    a, b = Recipe(**one), Recipe(**other)
    assert (a == b) == (a.recipe_id == b.recipe_id)
    assert a.recipe_id == Recipe(**one).recipe_id


@lawful
@given(st.sampled_from(sorted(FIELDS)).flatmap(lambda key: st.tuples(st.just(key), FIELDS[key], FIELDS[key])))
def test_one_field_decides_as_all_do(case: tuple[str, Any, Any]) -> None:
    key, one, other = case
    a, b = Recipe(**{key: one}), Recipe(**{key: other})
    assert (a == b) == (a.recipe_id == b.recipe_id)


@lawful
@given(VALUES)
def test_json_gives_the_recipe_again(values: dict[str, Any]) -> None:
    recipe = Recipe(**values)
    again = Recipe.from_dict(json.loads(json.dumps(recipe.to_dict())))
    assert again == recipe
    assert again.recipe_id == recipe.recipe_id
    assert again.to_dict() == recipe.to_dict()


@settings(lawful, max_examples=25)
@given(VALUES)
def test_yaml_gives_the_recipe_again(values: dict[str, Any]) -> None:
    recipe = Recipe(**values)
    text = io.StringIO()
    YAML(typ="safe", pure=True).dump(recipe.to_dict(), text)
    with TemporaryDirectory() as folder:
        path = Path(folder) / "recipe.yaml"
        path.write_text(text.getvalue(), encoding="utf-8")
        assert read_recipe(str(path)) == recipe
