"""The JSON Schema of one recipe key: its values, its entry under parameters, and tests on it."""

from functools import cache
from typing import Any

import pytest
from jsonschema import Draft202012Validator

from ichtune.recipe import recipe_keys
from ichtune.space.conditions import RELATIONS
from ichtune.space.json_schema_parameters import parameter_definitions

CLOSED = {"optimizer": ("adamw", "sgd")}
SUGGESTED = {"architecture": ("resnet18",), "augmentation": ("none",)}


@cache
def validator(*name: str) -> Draft202012Validator:
    definitions = parameter_definitions(CLOSED, SUGGESTED)
    return Draft202012Validator({"$defs": definitions, "$ref": f"#/$defs/{'.'.join(name)}"})


def test_every_key_is_defined_with_what_it_means() -> None:
    definitions = parameter_definitions({}, {})
    for key in recipe_keys():
        assert definitions[f"value.{key}"]["description"] == definitions[f"parameter.{key}"]["description"] != ""
        assert f"test.{key}" in definitions
    assert definitions["value.dropout"]["description"] == "dropout before the classifier; by default 0"


@pytest.mark.parametrize(
    ("key", "good", "bad"),
    [
        ("lr", [1e-3, 1], [0, -1, 1000, "1e-3", True, None, [1e-3]]),
        ("epochs", [1, 3.0], [0, 1.5, "3"]),
        ("beta1", [0.9, None, "none"], [1, "own"]),
        ("pooling", ["gem", "concat"], ["gemm", 3]),
        ("learnable_windows", [True], [1, "yes"]),
        ("loss_weights", [[2, 1, 1, 1, 1, 1]], [[2, 1, 1], [2, 1, 1, 1, 1, -1], 3]),
        ("optimizer", ["sgd"], ["sdg", 3]),
        ("loss", ["whatever"], [3]),
        ("architecture", ["resnet18", "tf_efficientnet_b3"], [3]),
        ("windows", ["brain", "dicom", [[40, 80]], ["dicom", [40, 80]]], ["brainn", [40, 80], [[40, 80, 3]], []]),
        ("pretrained", [True, "weights.safetensors"], [3]),
        ("augmentation", ["none", "own", [{"Affine": {"p": 0.5}}, {"Transpose": None}]], [3, [], [{"a": {}, "b": {}}]]),
    ],
)
def test_values(key: str, good: list[Any], bad: list[Any]) -> None:
    check = validator("value", key).is_valid
    assert [check(value) for value in good] == [True] * len(good)
    assert [check(value) for value in bad] == [False] * len(bad)


@pytest.mark.parametrize(
    ("key", "good", "bad"),
    [
        (
            "lr",
            [
                1e-3,
                [1e-3, 1e-2],
                {"value": 1e-3},
                {"choices": [1e-3], "when": {"optimizer": "sgd"}},
                {"low": 1e-4, "high": 1e-2, "log": True},
                {"min": 1e-4, "upper": 1e-2, "q": 1e-4, "distribution": "quniform"},
            ],
            [
                [],
                [1e-3, 1e-3],
                {"low": 1e-4},
                {"low": 1e-4, "min": 1e-4, "high": 1},
                {"low": 1e-4, "high": 1, "log": "yes"},
                {"low": 1e-4, "high": 1, "step": 0},
                {"lo": 1e-4, "high": 1},
                {"choices": [1e-3], "low": 1e-4},
                {"choices": [1e-3], "type": "uniform"},
                {"value": 1e-3, "when": {"optimizr": "sgd"}},
                {"low": 1e-4, "high": 1000},
            ],
        ),
        ("epochs", [{"low": 1, "high": 4, "step": 1}], [{"low": 1.5, "high": 4}]),
        ("optimizer", ["sgd", ["sgd", "adamw"]], [{"low": 1, "high": 2}, ["sgd", "sdg"]]),
        (
            "windows",
            ["brain", ["brain", [[40, 80]]], [[40, 80]], ["brain", [[{"low": 30, "high": 60}, 80], "dicom"]]],
            [["brainn"], [[[{"low": 30}, 80]]], [[[{"low": 30, "high": 60, "when": {}}, 80]]]],
        ),
        ("loss_weights", [[2, 1, 1, 1, 1, 1], {"choices": [[2, 1, 1, 1, 1, 1]]}], [[2, 1]]),
    ],
)
def test_parameters(key: str, good: list[Any], bad: list[Any]) -> None:
    check = validator("parameter", key).is_valid
    assert [check(value) for value in good] == [True] * len(good)
    assert [check(value) for value in bad] == [False] * len(bad)


def test_conditions_and_constraints() -> None:
    when, constraint = validator("when").is_valid, validator("constraint").is_valid
    good = [
        {"optimizer": "sgd"},
        {"optimizer": ["sgd", "adamw"], "lr": {"ge": 1e-3, "lt": 500}},
        {"windows": "41/80"},
        {"loss_weights": [2, 1, 1, 1, 1, 1]},
        {"beta1": None},
        {"warmup": {"le": {"parameter": "anneal_start"}}},
        {"optimizer": {"not_in": ["sgd"]}},
    ]
    bad = [
        {},
        {"optimizr": "sgd"},
        {"optimizer": "sdg"},
        {"optimizer": {"ge": 1}},
        {"lr": {"above": 1}},
        {"lr": {}},
        {"lr": {"ge": "fast"}},
        {"lr": {"in": 1e-3}},
        {"warmup": {"le": {"parameter": "annealstart"}}},
        {"warmup": {"le": {"other": "anneal_start"}}},
        "sgd",
    ]
    assert [when(value) for value in good] == [True] * len(good) == [constraint(value) for value in good]
    assert [when(value) for value in bad] == [False] * len(bad) == [constraint(value) for value in bad]
    assert when(good)
    assert not when([])
    assert constraint({"lr": {"ge": 1e-3}, "when": {"optimizer": "sgd"}})
    assert not constraint({"when": {"optimizer": "sgd"}})


def test_every_relation_is_known() -> None:
    definitions = parameter_definitions({}, {})
    assert set(definitions["test.lr"]["anyOf"][-1]["properties"]) == set(RELATIONS)
