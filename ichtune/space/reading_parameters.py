"""Reading one entry under ``parameters``: a range, a choice or a fixed value, in any spelling."""

from pathlib import Path
from typing import Any

from ichtune.errors import ConfigError, nearest
from ichtune.labels import N_LABELS
from ichtune.recipe import canonical_augmentation
from ichtune.recipe_file import RECIPE_REFERENCES, resolve_file, resolve_reference
from ichtune.second_level_recipe import ALL
from ichtune.space.domains import Choice, Domain, Integer, Option, Range, Real, is_number, label_of, option_of
from ichtune.space.levels import Level, level_of
from ichtune.windows import DICOM, plain_windows, resolve_windows
from ichtune.yaml_positions import Keys, YamlDocument, dotted

#: Every spelling of a key of a parameter, by the spelling that is used here.
SPELLINGS: dict[str, str] = {
    **dict.fromkeys(("value", "constant"), "value"),
    **dict.fromkeys(("choices", "values", "categories", "options", "grid_search"), "choices"),
    **dict.fromkeys(("low", "min", "lower"), "low"),
    **dict.fromkeys(("high", "max", "upper"), "high"),
    **dict.fromkeys(("step", "q"), "step"),
    **dict.fromkeys(("type", "distribution", "space"), "type"),
    "log": "log",
    "when": "when",
}
#: Every spelling of a kind of parameter: kind, and whether its scale is logarithmic (None: as ``log`` says).
KINDS: dict[str, tuple[str, bool | None]] = {
    **dict.fromkeys(("choice", "categorical", "grid_search"), ("choice", None)),
    **dict.fromkeys(("value", "constant", "fixed"), ("value", None)),
    **dict.fromkeys(("float", "real", "double"), ("float", None)),
    **dict.fromkeys(("uniform", "quniform", "q_uniform"), ("range", False)),
    **dict.fromkeys(("int", "integer", "randint", "qrandint", "int_uniform", "q_int_uniform"), ("int", None)),
    **dict.fromkeys(
        ("loguniform", "log_uniform", "log_uniform_values", "qloguniform", "q_log_uniform_values"),
        ("range", True),
    ),
    **dict.fromkeys(("lograndint", "qlograndint", "int_loguniform"), ("int", True)),
}
#: Kinds of the recipe's numbers, and whether they are whole ones.
_INTEGRAL = {"whole": True, "number": False}
_RANGE_KEYS = ("low", "high", "step", "log")

Places = dict[tuple[str, str], Keys]


def read_domain(document: YamlDocument, key: str, places: Places) -> Domain:
    """Read what one key of the recipe may be.

    Args:
        document: the file.
        key: a key of the recipe that stands under ``parameters``.
        places: receives the place of each option, ``low`` and ``high``.

    Raises:
        ConfigError: with file, line, column and key.
    """
    at: Keys = ("parameters", key)
    spec = document.get(*at)
    if not isinstance(spec, dict):
        whole = not isinstance(spec, list) or is_one_value(level_of(document), key, spec)
        return _choice(document, key, [(spec, at)] if whole else _entries(document, at), places)
    given = _spelled(document, at, allowed=SPELLINGS)
    form, log = _form(document, at, given)
    if form == "value":
        value_at = (*at, given["value"])
        return _choice(document, key, [(document.get(*value_at), value_at)], places)
    if form == "choices":
        return _choice(document, key, _entries(document, (*at, given["choices"])), places)
    integral = _INTEGRAL.get(level_of(document).kind(key))
    if integral is None:
        raise document.error(f"{key} has no range; expected a list of choices or one value", *at)
    return _range(document, at, given, form, log, integral, places, key)


def _spelled(document: YamlDocument, at: Keys, allowed: dict[str, str]) -> dict[str, str]:
    """Return for each canonical key of a mapping the spelling that stands in the file."""
    document.check_keys(tuple(allowed), *at)
    given: dict[str, str] = {}
    for spelling in document.mapping(*at):
        canonical = allowed[spelling]
        if canonical in given:
            raise document.error(f"says the same as {given[canonical]!r}; keep one of the two", *at, spelling)
        given[canonical] = spelling
    return given


def _form(document: YamlDocument, at: Keys, given: dict[str, str]) -> tuple[str, bool | None]:
    """Return ``value``, ``choices``, ``range``, ``int`` or ``float``, and whether the kind says log scale."""
    kind, log = "", None
    if "type" in given:
        name = document.get(*at, given["type"])
        if name not in KINDS:
            raise document.error(f"unknown kind of parameter {name!r}. {nearest(str(name), KINDS)}", *at, given["type"])
        kind, log = KINDS[name]
    forms = [f for f in ("value", "choices") if f in given] + (["range"] if {"low", "high"} & given.keys() else [])
    if len(forms) != 1:
        got = " and ".join(forms) or "neither"
        raise document.error(f"expected one of value, choices, or low and high; got {got}", *at)
    form = forms[0]
    if form == "range":
        if not {"low", "high"} <= given.keys():
            raise document.error("a range needs both low and high", *at)
    else:
        for extra in _RANGE_KEYS:
            if extra in given:
                raise document.error(f"belongs to a range, not to {form}; remove it", *at, given[extra])
    fits = {"": form, "choice": "choices", "value": "value"}.get(kind, "range")
    if fits != form:
        raise document.error(f"does not go with {form}", *at, given["type"])
    return (kind if kind in ("int", "float") else form), log


def _range(
    document: YamlDocument,
    at: Keys,
    given: dict[str, str],
    form: str,
    log: bool | None,
    integral: bool | None,
    places: Places,
    name: str,
) -> Range:
    """Read a range; ``integral`` None means that two whole numbers make an integer range."""
    got = {key: document.get(*at, given[key]) for key in _RANGE_KEYS if key in given}
    if not isinstance(got.setdefault("log", bool(log)), bool):
        raise document.error(f"must be true or false, got {got['log']!r}", *at, given["log"])
    if log is not None and got["log"] != log:
        raise document.error(f"contradicts {document.get(*at, given['type'])!r}; remove it", *at, given["log"])
    for key in ("low", "high"):
        places[name, key] = (*at, given[key])
        if not is_number(got[key]):
            raise document.error(f"must be a number, got {got[key]!r}", *at, given[key])
    whole = all(isinstance(got[key], int) for key in ("low", "high", "step") if key in got)
    as_integer = form == "int" or (form != "float" and (whole if integral is None else integral))
    try:
        return Integer(**got) if as_integer else Real(**got)
    except ConfigError as error:
        culprit = next((key for key in _RANGE_KEYS if str(error).startswith(key) and key in given), None)
        raise document.error(str(error), *at, *((given[culprit],) if culprit else ())) from None


def _entries(document: YamlDocument, at: Keys) -> list[tuple[Any, Keys]]:
    entries = document.get(*at)
    if not isinstance(entries, list) or not entries:
        raise document.error(f"must be a list of at least one choice, got {entries!r}", *at)
    return [(entry, (*at, i)) for i, entry in enumerate(entries)]


def _choice(document: YamlDocument, key: str, entries: list[tuple[Any, Keys]], places: Places) -> Choice:
    options: list[Option] = []
    for i, (_, at) in enumerate(entries):
        option = option_of(_value(document, key, at, f"{key}[{i}]", places))
        if option.label in [other.label for other in options]:
            raise document.error(f"stands among the choices twice ({option.label}); keep one", *at)
        places[key, option.label] = at
        options.append(option)
    return Choice(tuple(options))


def _value(document: YamlDocument, key: str, at: Keys, name: str, places: Places) -> Any:
    if key == "windows":
        return _window_set(document, at, name, places)
    if key == "members":
        return _members(document, at)
    if level_of(document).kind(key) == "label_weights":
        return _label_weights(document, at)
    value = document.get(*at)
    if key in level_of(document).optional and value in (None, label_of(None)):
        return None
    if value is None:
        raise document.error("has no value; write one or remove the key", *at)
    try:
        value = _resolved(key, value, document.source(*at)[0].path.parent)
    except ConfigError as error:
        raise document.error(str(error), *at) from None
    if isinstance(value, list | dict):
        raise document.error(f"must be one plain value, got {value!r}", *at)
    return value


def _resolved(key: str, value: Any, folder: Path) -> Any:
    """Return what a value stands for where it is written out, or names a file or a recipe; else the value itself."""
    if key == "augmentation" and isinstance(value, list):
        return canonical_augmentation(value)
    if key == "pretrained" and isinstance(value, str):
        return resolve_file(value, folder)
    if key in RECIPE_REFERENCES and isinstance(value, str):
        return resolve_reference(value, folder)
    return value


def start_value(document: YamlDocument, key: str, at: Keys) -> Any:
    """Return a value under ``start_with`` in the form in which the choices of its key are held.

    Window sets and weights stay as they are written: whoever compares them reads every form.
    """
    rewritten = key in level_of(document).rewritten
    return _value(document, key, at, dotted(at), {}) if rewritten else document.get(*at)


def _label_weights(document: YamlDocument, at: Keys) -> tuple[Any, ...]:
    value = document.get(*at)
    if not isinstance(value, list) or not all(is_number(number) for number in value):
        raise document.error(f"must be a list of {N_LABELS} numbers in label order, got {value!r}", *at)
    return tuple(float(number) for number in value)


def _members(document: YamlDocument, at: Keys) -> str | tuple[str, ...]:
    """Read which runs a recipe of the second level learns from; names of recipes become their recipe_ids."""
    value = document.get(*at)
    if value == ALL:
        return ALL
    if not isinstance(value, list) or not value or not all(isinstance(one, str) for one in value):
        raise document.error(
            f"must be {ALL}, or a list of recipe_ids or names of recipes in quotes, got {value!r}", *at
        )
    folder = document.source(*at)[0].path.parent
    try:
        return tuple(sorted({resolve_reference(one, folder) for one in value}))
    except ConfigError as error:
        raise document.error(str(error), *at) from None


def _window_set(document: YamlDocument, at: Keys, name: str, places: Places) -> tuple[Any, ...]:
    value = document.get(*at)
    if isinstance(value, list) and value and all(_is_window(entry) for entry in value):
        return tuple(
            entry
            if entry == DICOM
            else tuple(
                _window_number(document, (*at, i, j), f"{name}[{i}].{side}", places)
                for j, side in enumerate(("center", "width"))
            )
            for i, entry in enumerate(value)
        )
    try:
        windows = plain_windows(resolve_windows(value))
        return tuple(entry if entry == DICOM else tuple(entry) for entry in windows)
    except ConfigError as error:
        raise document.error(str(error), *at) from None


def _window_number(document: YamlDocument, at: Keys, name: str, places: Places) -> float | Range:
    value = document.get(*at)
    if not isinstance(value, dict):
        return float(value)
    allowed = {spelling: key for spelling, key in SPELLINGS.items() if key in (*_RANGE_KEYS, "type")}
    given = _spelled(document, at, allowed)
    form, log = _form(document, at, given)
    return _range(document, at, given, form, log, None, places, name)


def _is_window(entry: Any) -> bool:
    return entry == DICOM or _is_pair(entry)


def _is_pair(entry: Any) -> bool:
    return isinstance(entry, list) and len(entry) == 2 and all(is_number(n) or isinstance(n, dict) for n in entry)


def is_one_value(level: Level, key: str, entries: list[Any]) -> bool:
    """Say whether a bare list is one value written in full, where the recipe's value is a list itself.

    Args:
        level: of the space.
        key: a key of the recipe.
        entries: the list, under a parameter or in a condition on it.
    """
    if key == "windows":
        return any(_is_pair(entry) for entry in entries) and all(_is_window(entry) for entry in entries)
    if key == "augmentation":
        return bool(entries) and all(isinstance(entry, dict) for entry in entries)
    if key == "members":
        return ALL not in entries and not any(isinstance(entry, list) for entry in entries)
    return level.kind(key) == "label_weights" and bool(entries) and not isinstance(entries[0], list | str)


def canonical(document: YamlDocument, key: str, at: Keys) -> Any:
    """Return a value as conditions compare it: plain, or the label of a window set, of weights or of none."""
    return option_of(_value(document, key, at, dotted(at), {})).plain
