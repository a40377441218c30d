"""The JSON Schema of a whole space: every section, what it means, and what is refused."""

import json
from functools import cache
from typing import Any

import pytest
from jsonschema import Draft202012Validator

from ichtune.space.including import TOP_KEYS
from ichtune.space.json_schema import DIALECT, schema_text, space_schema
from ichtune.space.settings import EarlyStop, FoldSettings, MetricSettings, Resources, SearchSettings, TrainSettings

CLOSED = {"algorithm": ("tpe", "random"), "early_stop": ("asha", "none"), "optimizer": ("adamw", "sgd")}
LR = {"parameters": {"lr": [1e-3, 1e-2]}}


@cache
def validator() -> Draft202012Validator:
    return Draft202012Validator(space_schema(CLOSED, {}))


@pytest.mark.slow  # takes seconds
def test_it_is_a_schema_of_every_key() -> None:
    schema = space_schema(CLOSED, {})

    Draft202012Validator.check_schema(schema)
    assert schema["$schema"] == DIALECT
    assert list(schema["properties"]) == list(TOP_KEYS)
    assert json.loads(schema_text(schema)) == schema
    assert schema_text(schema).endswith("}\n")
    assert schema_text(schema).count("\n") > len(schema["$defs"])


def test_every_setting_says_what_it_is() -> None:
    definitions = space_schema(CLOSED, {})["$defs"]
    for section in ("metric", "search", "early_stop", "folds", "resources", "train"):
        for key, schema in definitions[section]["properties"].items():
            assert schema["description"], (section, key)
    assert definitions["search"]["properties"]["time"]["description"].startswith("wall-clock seconds after which")
    gpu_memory = definitions["resources"]["properties"]["gpu_memory"]["description"]
    assert gpu_memory.endswith("Read from a number or from text such as 12GiB")


GOOD: list[dict[str, Any]] = [
    {},
    {"version": 1, "name": "mine"},
    {"search": {"algorithm": "tpe", "trials": 3, "time": "6h", "early_stop": "asha", "gpu_hours": 2.5}},
    {"search": {"time": None, "learn_from": "first", "until_no_gain": 3, "concurrent": None}},
    {"search": {"early_stop": {"type": "asha", "grace_period": 2, "max_t": 9, "judge": "short", "cooldown": 0.25}}},
    {"folds": {"k": 5, "seed": 7, "search_on": [0, 1]}},
    {"folds": {"search_on": 0}},
    {"resources": "auto"},
    {"resources": {"gpu": "auto", "cpu": 0.5, "gpu_memory": "12GiB"}},
    {"metric": {"name": "val_weighted_log_loss", "mode": "min"}},
    {"train": {"top": 3}, "constraints": [{"lr": {"le": 3}}], "base": "exp_00", "start_with": ["exp_00", {"lr": 1}]},
    {"base": {"lr": 3, "windows": [[40, 80]]}, "include": ["a.yaml"], "remove": ["lr", "constraints"]},
    {"base": None, "search": None, "start_with": None},
]
BAD: list[dict[str, Any]] = [
    {"version": 2},
    {"name": ""},
    {"name": "../../evil"},
    {"search": {"learn_from": ["a/b"]}},
    {"paramters": {}},
    {"search": {"algorithm": "tp"}},
    {"search": {"trials": 0}},
    {"search": {"trails": 3}},
    {"search": {"gpu_hours": "2h"}},
    {"search": {"early_stop": "asah"}},
    {"search": {"early_stop": {"judge": "cooldwn"}}},
    {"search": {"early_stop": {"cooldown": 9}}},
    {"search": {"early_stop": {"factor": 1}}},
    {"folds": {"search_on": []}},
    {"resources": "automatic"},
    {"resources": {"gpu": -1}},
    {"resources": {"gpu_memory_mb": 12}},
    {"resources": {"gpu_memory": 0}},
    {"metric": {"goal": "maximize"}},
    {"train": {"top": 0}},
    {"constraints": {"lr": 3}},
    {"constraints": [{"lrr": 3}]},
    {"base": {"lrr": 3}},
    {"base": 3},
    {"start_with": [{}]},
    {"start_with": [{"lr": -1}]},
    {"include": [3]},
    {"remove": ["search"]},
]


@pytest.mark.parametrize("text", GOOD)
def test_what_is_right_passes(text: dict[str, Any]) -> None:
    assert list(validator().iter_errors({**LR, **text})) == []


@pytest.mark.parametrize("text", BAD)
def test_what_is_wrong_does_not(text: dict[str, Any]) -> None:
    assert not validator().is_valid({**LR, **text})


def test_parameters_are_there_or_included() -> None:
    assert not validator().is_valid({"search": {"trials": 3}})
    assert validator().is_valid({"include": "demo"})


@pytest.mark.parametrize("kind", [SearchSettings, EarlyStop, Resources, FoldSettings, MetricSettings, TrainSettings])
def test_defaults_are_what_it_allows(kind: Any) -> None:
    name = {SearchSettings: "search", FoldSettings: "folds", TrainSettings: "train", MetricSettings: "metric"}
    section = name.get(kind) or {EarlyStop: "early_stop", Resources: "resources"}[kind]
    schema = space_schema(CLOSED, {})
    check = Draft202012Validator({"$ref": f"#/$defs/{section}", "$defs": schema["$defs"]})
    defaults = {
        key: getattr(kind(), key, None) for key in schema["$defs"][section]["properties"] if hasattr(kind(), key)
    }
    defaults = {key: list(value) if isinstance(value, tuple) else value for key, value in defaults.items()}
    if kind is SearchSettings:
        defaults["early_stop"] = "none"

    assert list(check.iter_errors(defaults)) == []
