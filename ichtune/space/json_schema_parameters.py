"""JSON Schemas of what stands under ``parameters``, in conditions and in constraints, one recipe key at a time."""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import Field
from typing import Any

from ichtune.labels import N_LABELS
from ichtune.recipe import ID_DIGITS
from ichtune.second_level_recipe import ALL
from ichtune.space.conditions import LIST_RELATIONS, ORDER_RELATIONS, RELATIONS
from ichtune.space.domains import label_of
from ichtune.space.levels import LEVELS, Level
from ichtune.space.reading_conditions import REFERENCE
from ichtune.space.reading_parameters import KINDS, SPELLINGS
from ichtune.windows import DICOM, WINDOW_SETS, window_set_name

Schema = dict[str, Any]
Names = Mapping[str, Sequence[str]]

_NUMERIC = ("number", "whole")
#: Forms of a parameter that is written as a mapping: the keys that it must have, and the kinds that go with it.
_FORMS = {
    "value": (("value",), ("value",)),
    "choices": (("choices",), ("choice",)),
    "range": (("low", "high"), ("float", "int", "range")),
}


def parameter_definitions(closed: Names, suggested: Names, level: Level = LEVELS[1]) -> dict[str, Schema]:
    """Return the definitions of every recipe key: its value, its entry under ``parameters`` and a test on it.

    Args:
        closed: for recipe keys all names that there are.
        suggested: for recipe keys some names that there are, beside others.
        level: of the recipes.
    """
    specs = level.specs.values()
    definitions: dict[str, Schema] = {
        "window": _pair({"type": "number"}),
        "range": _range({"type": "number"}, ()),
        "reference": mapping({REFERENCE: {"enum": list(level.keys)}}, [REFERENCE]),
        "step": {"type": "number", "exclusiveMinimum": 0},
    }
    for form, (keys, kinds) in _FORMS.items():
        definitions[f"form.{form}"] = {"allOf": [_one_spelling(key) for key in keys]}
        definitions[f"type.{form}"] = {"enum": [name for name, (kind, _) in KINDS.items() if kind in kinds]}
    for spec in specs:
        key = spec.name
        definitions[f"value.{key}"] = _value(spec, closed.get(key), suggested.get(key)) | {"description": _doc(spec)}
        definitions[f"option.{key}"] = _option(key)
        definitions[f"choices.{key}"] = some(ref("option", key), unique=True)
        definitions[f"parameter.{key}"] = _parameter(spec) | {"description": _doc(spec)}
        definitions[f"test.{key}"] = _test(spec)
    tests = {key: ref("test", key) for key in level.keys}
    definitions["tests"] = mapping(tests) | {"minProperties": 1}
    definitions["when"] = any_of(ref("tests"), some(ref("tests"))) | {
        "description": "active only where these tests on other parameters hold; of a list, where one of them does"
    }
    definitions["constraint"] = mapping(tests | {"when": ref("when")}) | {"not": {"propertyNames": {"const": "when"}}}
    definitions["recipe"] = mapping({key: ref("value", key) for key in level.keys})
    return definitions


def ref(*name: str) -> Schema:
    """Return the reference to a definition."""
    return {"$ref": f"#/$defs/{'.'.join(name)}"}


def any_of(*schemas: Schema) -> Schema:
    """Return the schema of what fits one of several."""
    return {"anyOf": list(schemas)}


def some(items: Schema, *, unique: bool = False) -> Schema:
    """Return the schema of a list of at least one entry."""
    return {"type": "array", "items": items, "minItems": 1} | ({"uniqueItems": True} if unique else {})


def mapping(properties: Mapping[str, Schema], required: Iterable[str] = ()) -> Schema:
    """Return the schema of a mapping of known keys."""
    needed = {"required": list(required)} if required else {}
    return {"type": "object", "properties": dict(properties), "additionalProperties": False} | needed


def _doc(spec: "Field[Any]") -> str:
    return f"{spec.metadata['doc'].replace('`', '')}; by default {_default_text(spec)}"


def _default_text(spec: "Field[Any]") -> str:
    default: Any = spec.default
    return window_set_name(default) if spec.name == "windows" else label_of(default) or "none"


def _value(spec: "Field[Any]", closed: Sequence[str] | None, suggested: Sequence[str] | None) -> Schema:
    kind = spec.metadata["kind"]
    if kind in _NUMERIC:
        number = _number(spec)
        return any_of(number, {"enum": [None, label_of(None)]}) if spec.default is None else number
    if spec.name in _SPECIAL:
        return _SPECIAL[spec.name](suggested or ())
    if kind == "one_of":
        return {"enum": list(spec.metadata["options"])}
    if kind == "switch":
        return {"type": "boolean"}
    if kind == "label_weights":
        return {"type": "array", "items": {"type": "number", "minimum": 0}} | _exactly(N_LABELS)
    if closed is not None:
        return {"enum": list(closed)}
    return _suggesting(suggested or ())


def _suggesting(names: Sequence[str]) -> Schema:
    return any_of({"enum": list(names)}, {"type": "string"}) if names else {"type": "string"}


def _augmentation(names: Sequence[str]) -> Schema:
    step = {"type": "object", "additionalProperties": {"type": ["object", "null"]}, "minProperties": 1}
    return any_of(*([{"enum": list(names)}] if names else []), {"type": "string"}, some(step | {"maxProperties": 1}))


#: A run that a recipe learns from: its recipe_id, or its recipe's name.
_RUN: Schema = {"type": "string", "minLength": 1, "examples": ["0" * ID_DIGITS]}
#: Values of the keys that the recipe checks itself.
_SPECIAL = {
    "windows": lambda names: any_of({"enum": list(WINDOW_SETS)}, some(any_of({"const": DICOM}, ref("window")))),
    "members": lambda names: any_of({"const": ALL}, some(_RUN)),
    "pretrained": lambda names: {"type": ["boolean", "string"]},
    "augmentation": _augmentation,
}


def _exactly(n: int) -> Schema:
    return {"minItems": n, "maxItems": n}


def _pair(number: Schema) -> Schema:
    return {"type": "array", "items": number} | _exactly(2)


def _number(spec: "Field[Any]") -> Schema:
    low, high = spec.metadata["bounds"]
    schema: Schema = {"type": "integer" if spec.metadata["kind"] == "whole" else "number", "minimum": low}
    return schema if math.isinf(high) else schema | {"maximum": high}


def _spellings(key: str) -> list[str]:
    return [spelling for spelling, meaning in SPELLINGS.items() if meaning == key]


def _one_spelling(key: str) -> Schema:
    """The key must stand there, in one of its spellings."""
    return {"oneOf": [{"required": [spelling]} for spelling in _spellings(key)]}


def _spelt(form: str, contents: Mapping[str, Schema], besides: Sequence[str]) -> Schema:
    """Return one form of a parameter, its keys spelt as people do."""
    properties = {spelling: schema for key, schema in contents.items() for spelling in _spellings(key)}
    properties |= dict.fromkeys(_spellings("type"), ref("type", form))
    properties |= {key: ref("when") for key in besides}
    return mapping(properties) | ref("form", form)


def _range(bound: Schema, besides: Sequence[str]) -> Schema:
    return _spelt("range", {"low": bound, "high": bound, "step": ref("step"), "log": {"type": "boolean"}}, besides)


def _option(key: str) -> Schema:
    """Return one choice of a parameter: a value, or a window set whose numbers are searched."""
    if key != "windows":
        return ref("value", key)
    number = any_of({"type": "number"}, ref("range"))
    return any_of(ref("value", key), some(any_of({"const": DICOM}, _pair(number))))


def _parameter(spec: "Field[Any]") -> Schema:
    option, choices = ref("option", spec.name), ref("choices", spec.name)
    forms = [
        option,
        choices,
        _spelt("value", {"value": option}, ("when",)),
        _spelt("choices", {"choices": choices}, ("when",)),
    ]
    if spec.metadata["kind"] in _NUMERIC:
        forms.append(_range(_number(spec), ("when",)))
    return any_of(*forms)


def _test(spec: "Field[Any]") -> Schema:
    is_number = spec.metadata["kind"] in _NUMERIC
    operand = ref("value", spec.name)
    if spec.metadata["kind"] == "label_weights" or spec.name in ("windows", "members"):
        operand = any_of(operand, {"type": "string"})  # the label that tables show
    relations: dict[str, Schema] = {}
    for relation in RELATIONS:
        if relation in LIST_RELATIONS:
            relations[relation] = some(operand)
        elif relation not in ORDER_RELATIONS:
            relations[relation] = any_of(operand, ref("reference"))
        elif is_number:
            relations[relation] = any_of({"type": "number"}, ref("reference"))
    return any_of(operand, some(operand), mapping(relations) | {"minProperties": 1})
