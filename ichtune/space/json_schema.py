"""The grammar of a search space as a JSON Schema, for editors: made from where the grammar is defined, never by hand.

A schema sees one value at a time. That values go together, that the parameter of a condition is there, that files
exist: all that is found by reading the space.
"""

import inspect
import json
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import Field, fields
from typing import Any

from ichtune.space.including import REMOVABLE, TOP_KEYS, VERSION
from ichtune.space.json_schema_parameters import Names, Schema, any_of, mapping, parameter_definitions, ref, some
from ichtune.space.levels import LEVELS, Level
from ichtune.space.reading_settings import SYNONYMS, written_keys
from ichtune.space.setting_fields import AUTO, SEARCH_NAME
from ichtune.space.settings import (
    METRIC_NAME,
    MODES,
    EarlyStop,
    FoldSettings,
    MetricSettings,
    Resources,
    SearchSettings,
    TrainSettings,
)

DIALECT = "https://json-schema.org/draft/2020-12/schema"
_SECTIONS: dict[str, Any] = {
    "metric": MetricSettings,
    "search": SearchSettings,
    "folds": FoldSettings,
    "resources": Resources,
    "train": TrainSettings,
}
_NAME: Schema = {"type": "string", "minLength": 1}
_SEARCH: Schema = {"type": "string", "pattern": f"^{SEARCH_NAME}$"}
_FOLD: Schema = {"type": "integer", "minimum": 0}
#: What the keys of the top mean that are no settings.
_DOCS = {
    "version": "of the grammar",
    "level": "of the recipes: " + "; ".join(f"{level.number}, {level.what}" for level in LEVELS.values()),
    "name": "of the space; the file's by default",
    "include": "spaces whose sections are defaults for this file's: files beside it, or shipped ones by name",
    "remove": "parameters and sections of the included files that this space does without",
    "base": "the recipe that gives every key which is no active parameter: a name, a file, or keys and values",
    "parameters": "keys of the recipe, and what each may be",
    "constraints": "what must hold between parameters; of a recipe that breaks one nothing is tried",
    "start_with": "recipes that are tried first: keys and values, or the name or the file of a recipe",
}


def space_schema(closed: Names, suggested: Names) -> Schema:
    """Return the JSON Schema (draft 2020-12) of a search space's file.

    Args:
        closed: for recipe keys, ``algorithm`` and ``early_stop`` all names that there are.
        suggested: for recipe keys some names that there are, beside others.
    """
    definitions: dict[str, Schema] = {}
    for level in LEVELS.values():
        found = parameter_definitions(closed, suggested, level)
        definitions |= {_name_of(level, name): _referring(level, schema) for name, schema in found.items()}
    definitions["early_stop"] = _section(EarlyStop, "early_stop", closed)
    for section, kind in _SECTIONS.items():
        definitions[section] = _section(kind, section, closed)
    told = {key: {"description": _DOCS[key]} if key in _DOCS else {} for key in TOP_KEYS}
    first, second = (_of_level(level) for level in (LEVELS[1], LEVELS[2]))
    properties = {key: told[key] if key in first else _top(key) | told[key] for key in TOP_KEYS}
    return {
        "$schema": DIALECT,
        "title": "ichtune search space",
        **mapping(properties),
        "anyOf": [{"required": ["parameters"]}, {"required": ["include"]}],
        "if": {"properties": {"level": {"const": 2}}, "required": ["level"]},
        "then": {"properties": second},
        "else": {"properties": first},
        "$defs": definitions,
    }


def _name_of(level: Level, definition: str) -> str:
    """Return how a definition is called that each level has of its own."""
    return definition if level.number == 1 else f"level_{level.number}.{definition}"


def _referring(level: Level, schema: Any) -> Any:
    """Return a schema whose references are to the definitions of a level."""
    if isinstance(schema, list):
        return [_referring(level, one) for one in schema]
    if not isinstance(schema, dict):
        return schema
    return {
        key: ref(_name_of(level, value.rpartition("/")[2]))["$ref"] if key == "$ref" else _referring(level, value)
        for key, value in schema.items()
    }


def schema_text(schema: Schema) -> str:
    """Return a schema as a file: JSON with a line for each definition."""
    *head, (_, definitions) = schema.items()
    lines = [f"  {json.dumps(key)}: {_compact(value)}," for key, value in head]
    defined = ",\n".join(f"    {json.dumps(key)}: {_compact(value)}" for key, value in definitions.items())
    return "{\n" + "\n".join(lines) + '\n  "$defs": {\n' + defined + "\n  }\n}\n"


def _compact(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, allow_nan=False)


def _top(key: str) -> Schema:
    forms: Mapping[str, Schema] = {
        "version": {"const": VERSION},
        "level": {"enum": list(LEVELS)},
        "name": _SEARCH,
        "include": any_of(_NAME, some(_NAME)),
        "resources": any_of(ref("resources"), {"const": AUTO}),
    }
    schema = forms.get(key) or ref(key)
    return schema if key in ("version", "level", "name") else _or_nothing(schema)


def _of_level(level: Level) -> dict[str, Schema]:
    """Return the keys of the top that hold keys of a recipe."""
    forms: Mapping[str, Schema] = {
        "remove": _one_or_some({"enum": [*level.keys, *REMOVABLE]}),
        "base": any_of(_NAME, ref("recipe")),
        "parameters": mapping({name: ref("parameter", name) for name in level.keys}),
        "constraints": {"type": "array", "items": ref("constraint")},
        "start_with": {"type": "array", "items": any_of(_NAME, ref("recipe") | {"minProperties": 1})},
    }
    return {key: _referring(level, _or_nothing(schema)) for key, schema in forms.items()}


def _or_nothing(schema: Schema) -> Schema:
    return any_of(schema, {"type": "null"})


def _one_or_some(items: Schema) -> Schema:
    return any_of(items, {"type": "array", "items": items, "uniqueItems": True})


def _section(kind: Any, section: str, closed: Names) -> Schema:
    docs, specs = _attribute_docs(kind), {spec.name: spec for spec in fields(kind)}
    properties: dict[str, Schema] = {}
    for key in written_keys(kind, section):
        attribute = SYNONYMS.get(section, {}).get(key, key)
        schema = _setting(specs[attribute], section, closed)
        if specs[attribute].default is None:
            schema = any_of(schema, {"type": "null"})
        properties[key] = schema | {"description": docs[attribute]}
    return mapping(properties)


def _setting(spec: "Field[Any]", section: str, closed: Names) -> Schema:
    special: Mapping[tuple[str, str], Schema] = {
        ("metric", "name"): {"const": METRIC_NAME},
        ("metric", "goal"): {"enum": [name for name, mode in MODES.items() if mode == "min"]},
        ("search", "algorithm"): _known(closed.get("algorithm")),
        ("search", "early_stop"): any_of(ref("early_stop"), _known(closed.get("early_stop")), {"type": "null"}),
        ("early_stop", "type"): _known(closed.get("early_stop")),
        ("resources", "gpu"): any_of({"type": "number", "minimum": 0}, {"const": AUTO}),
        ("folds", "search_on"): any_of(_FOLD, some(_FOLD, unique=True)),
    }
    kinds: Mapping[str, Schema] = {
        "time": any_of({"type": "number", "exclusiveMinimum": 0}, _NAME),
        "memory": any_of({"type": "number", "exclusiveMinimum": 0}, _NAME),
        "names": _one_or_some(_SEARCH),
        "name": _NAME,
    }
    return special.get((section, spec.name)) or kinds.get(spec.metadata["kind"]) or _bounded(spec)


def _known(names: Sequence[str] | None) -> Schema:
    return _NAME if names is None else {"enum": list(names)}


def _bounded(spec: "Field[Any]") -> Schema:
    if spec.metadata["kind"] == "one_of":
        return {"enum": list(spec.metadata["options"])}
    low, high = spec.metadata["bounds"]
    lowest = "exclusiveMinimum" if spec.metadata["kind"] == "above_zero" else "minimum"
    schema: Schema = {"type": "integer" if spec.metadata["kind"] == "whole" else "number", lowest: low}
    return schema if math.isinf(high) else schema | {"maximum": high}


def _attribute_docs(kind: Any) -> dict[str, str]:
    """Return what the docstring of a dataclass says of each attribute, on one line and without its code marks."""
    attributes = (inspect.getdoc(kind) or "").partition("Attributes:\n")[2]
    found = re.findall(r"^    (\w+): (.+(?:\n {8,}.+)*)", attributes, re.MULTILINE)
    return {name: re.sub(r"\s+", " ", text).replace("``", "").rstrip(".") for name, text in found}
