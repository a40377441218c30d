"""Laws of the recipe: equal exactly when ids are equal, and the same after any round trip."""

import io
import json
from dataclasses import Field, fields
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from ruamel.yaml import YAML

from ichtune.labels import N_LABELS
from ichtune.recipe import Recipe, recipe_keys
from ichtune.recipe_file import read_recipe
from ichtune.windows import WINDOW_SETS

lawful = settings(derandomize=True, deadline=None, max_examples=80)

WINDOW = st.tuples(st.integers(-100, 600) | st.floats(-100, 600), st.integers(1, 3000) | st.floats(0.5, 3000))
NAMES = st.sampled_from(["resnet18", "true", "1e5", "no", "2019-01-01", "ä b"])


def _strategy(spec: Field[Any]) -> st.SearchStrategy[Any]:
    """Every value that the key's own line in the recipe allows."""
    kind = spec.metadata["kind"]
    if kind in ("number", "whole"):
        low, high = spec.metadata["bounds"]
        if kind == "whole":
            return st.integers(int(low), int(min(high, low + 1000)))
        numbers = st.floats(low, high) | st.sampled_from([low, high, -0.0 if low == 0 else low])
        return numbers | st.none() if spec.default is None else numbers
    kinds = {
        "one_of": lambda: st.sampled_from(spec.metadata["options"]),
        "switch": st.booleans,
        "name": lambda: NAMES,
        "label_weights": lambda: st.tuples(*[st.integers(1, 5) | st.floats(0.1, 9.0)] * N_LABELS),
    }
    return kinds[kind]()


TRANSFORMS = st.lists(
    st.dictionaries(NAMES, st.dictionaries(NAMES, st.integers() | st.booleans()), min_size=1, max_size=1), min_size=1
)
SPECIAL: dict[str, st.SearchStrategy[Any]] = {
    "windows": st.sampled_from(sorted(WINDOW_SETS)) | st.lists(WINDOW | st.just("dicom"), min_size=1, max_size=4),
    "pretrained": st.just(False),
    "warm_start": st.sampled_from(["", "0123456789ab", "/nowhere/a b.safetensors"]),
    "pseudo_labels": st.sampled_from(["", "0123456789ab", "/nowhere/a b.parquet"]),
    "augmentation": NAMES | TRANSFORMS,
    # keys that exclude or need others: narrowed to what goes together
    "anneal_start": st.floats(0.5, 1.0),
    "warmup": st.floats(0.0, 0.5),
    "epochs": st.integers(101, 1000),
    "frozen_epochs": st.integers(0, 100),
    "swa_start": st.just(1.0),
    "neighbour_use": st.just("stack"),
    "channel_layout": st.just("product"),
    "calibration": st.just("none"),
    "positive_weights": st.just((1.0,) * N_LABELS),
    "negative_share": st.just(1.0),
}
FIELDS: dict[str, st.SearchStrategy[Any]] = {
    spec.name: SPECIAL[spec.name] if spec.name in SPECIAL else _strategy(spec) for spec in fields(Recipe)
}
ALWAYS = ("epochs",)
VALUES = st.fixed_dictionaries(
    {key: FIELDS[key] for key in ALWAYS}, optional={key: FIELDS[key] for key in FIELDS if key not in ALWAYS}
)


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
    base = {"epochs": 500}
    a, b = Recipe(**base | {key: one}), Recipe(**base | {key: other})
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
