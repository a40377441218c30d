"""Reading a search space from YAML, with every mistake reported where it stands."""

from dataclasses import fields, replace
from pathlib import Path
from typing import Any, TypeVar

from ichtune.errors import ConfigError
from ichtune.recipe import Recipe, recipe_keys
from ichtune.space.conditions import parents_of
from ichtune.space.corners import candidates, check_corners, failure
from ichtune.space.domains import Choice, Domain
from ichtune.space.model import Parameter, Space
from ichtune.space.proposals import fixed_values
from ichtune.space.reading_conditions import read_condition
from ichtune.space.reading_parameters import Places, read_domain, start_value
from ichtune.space.settings import (
    EarlyStop,
    FoldSettings,
    MetricSettings,
    Resources,
    SearchSettings,
    SettingError,
    TrainSettings,
)
from ichtune.yaml_positions import YamlDocument, read_yaml

VERSION = 1
TOP_KEYS = ("version", "name", "metric", "search", "folds", "resources", "train", "parameters", "start_with")

#: Spellings that users bring from Ray, Optuna and others, by section.
_SYNONYMS: dict[str, dict[str, str]] = {
    "search": {"time": "time_s"},
    "early_stop": {"grace_period": "grace", "max_t": "max", "reduction_factor": "factor"},
    "metric": {"mode": "goal"},
}
#: Keys of a section that are written in another way than the attribute is called.
_UNWRITTEN = {"time_s"}

Settings = TypeVar("Settings", EarlyStop, SearchSettings, Resources, FoldSettings, MetricSettings, TrainSettings)


def read_space(path: Path) -> Space:
    """Read and check a search space.

    Every option and bound is tried by building a recipe from it, alone and with the others at their lowest
    and highest, so that a search does not die of a value an hour later.

    Args:
        path: the YAML file.

    Raises:
        ConfigError: the file, the line, the column, the key, what is wrong and the nearest valid name.
    """
    document = read_yaml(path)
    if not isinstance(document.value, dict):
        raise document.error(f"a search space maps keys to values; expected some of {', '.join(TOP_KEYS)}")
    document.check_keys(TOP_KEYS)
    _check_version(document)
    name = document.value.get("name", path.stem)
    if not isinstance(name, str) or not name:
        raise document.error(f"must be a name, got {name!r}", "name")
    parameters, places = _parameters(document)
    search = _section(document, SearchSettings, "search", early_stop=_early_stop(document, parameters))
    space = Space(
        name=name,
        parameters=parameters,
        metric=_section(document, MetricSettings, "metric"),
        search=search,
        resources=_section(document, Resources, "resources"),
        folds=_section(document, FoldSettings, "folds"),
        train=_section(document, TrainSettings, "train"),
        document=document,
        places=places,
    )
    check_corners(space)
    return replace(space, start_with=_start_with(space, document))


def _check_version(document: YamlDocument) -> None:
    version = document.value.get("version", VERSION)
    if version != VERSION or isinstance(version, bool):
        raise document.error(f"this ichtune reads version {VERSION} of the grammar, got {version!r}", "version")


def _section(document: YamlDocument, kind: type[Settings], *at: str, **ready: Any) -> Settings:
    """Read a mapping of settings into its dataclass; ``ready`` are values that were read before."""
    synonyms: dict[str, str] = _SYNONYMS.get(at[-1], {})
    known = [field.name for field in fields(kind)] + list(synonyms)
    document.check_keys([key for key in known if key not in _UNWRITTEN], *at)
    values: dict[str, Any] = {}
    written: dict[str, str] = {}
    for key, value in document.mapping(*at).items():
        attribute = synonyms.get(key, key)
        if attribute in written:
            raise document.error(f"says the same as {written[attribute]!r}; keep one of the two", *at, key)
        written[attribute], values[attribute] = key, value
    try:
        return kind(**(values | ready))
    except SettingError as error:
        key = synonyms.get(error.key, error.key)
        raise document.error(str(error), *at, written.get(key, error.key)) from None


def _early_stop(document: YamlDocument, parameters: tuple[Parameter, ...]) -> EarlyStop:
    at = ("search", "early_stop")
    document.mapping("search")
    written = document.get(*at)
    if isinstance(written, str) or written is None:
        settings = EarlyStop(type=written or "none")
    else:
        settings = _section(document, EarlyStop, *at)
    longest = _most_epochs(parameters)
    if settings.max is not None:
        if settings.type != "none" and settings.max < longest:
            raise document.error(
                f"must not be below the {longest} epochs of a trial, or every trial would end before its schedule "
                f"does, got {settings.max}; leave it out",
                *at,
                "max",
            )
        return settings
    if settings.grace > longest:
        raise document.error(f"must not exceed the {longest} epochs of a trial, got {settings.grace}", *at, "grace")
    return replace(settings, max=longest)


def _most_epochs(parameters: tuple[Parameter, ...]) -> int:
    """Return how long the longest trial is; where a condition on ``epochs`` fails, it is the recipe's default."""
    parameter = next((parameter for parameter in parameters if parameter.key == "epochs"), None)
    if parameter is None:
        return Recipe().epochs
    domain = parameter.domain
    longest = max(option.value for option in domain.options) if isinstance(domain, Choice) else domain.high
    return int(max(longest, Recipe().epochs) if parameter.when else longest)


def _parameters(document: YamlDocument) -> tuple[tuple[Parameter, ...], Places]:
    mapping = document.mapping("parameters")
    if not mapping:
        raise document.error(
            "expected at least one parameter, as in `lr: {low: 1e-4, high: 1e-2, log: true}`",
            "parameters",
        )
    document.check_keys(recipe_keys(), "parameters")
    places: Places = {}
    domains: dict[str, Domain] = {key: read_domain(document, key, places) for key in mapping}
    parameters = tuple(Parameter(key, domains[key], read_condition(document, key, domains)) for key in mapping)
    _check_cycles(document, parameters)
    _check_alone(document, parameters, places)
    return parameters, places


def _check_cycles(document: YamlDocument, parameters: tuple[Parameter, ...]) -> None:
    try:
        Space("", parameters).ordered  # noqa: B018 - ordering is what finds a cycle
    except ConfigError as error:
        first = next(p.key for p in parameters if parents_of(p.when) and f"{p.key} ->" in str(error))
        raise document.error(str(error), "parameters", first, "when") from None


def _check_alone(document: YamlDocument, parameters: tuple[Parameter, ...], places: Places) -> None:
    """Try each option and bound in a recipe beside defaults, and beside the first and last of the others."""
    ends = [{p.key: list(candidates(p))[end][1] for p in parameters} for end in (0, -1)]
    fixed = {p.key: next(candidates(p))[1] for p in parameters if p.is_fixed}
    for parameter in parameters:
        for _, value, place in candidates(parameter):
            errors = [failure({**beside, parameter.key: value}) for beside in ({}, fixed, *ends)]
            if all(errors):
                raise document.error(str(errors[0]), *places.get(place, ("parameters", parameter.key)))


def _start_with(space: Space, document: YamlDocument) -> tuple[dict[str, Any], ...]:
    written = document.get("start_with")
    if written is None:
        return ()
    if not isinstance(written, list):
        raise document.error(f"must be a list of recipes, as in `- {{lr: 3e-4}}`, got {written!r}", "start_with")
    starts: list[dict[str, Any]] = []
    for i, values in enumerate(written):
        if not isinstance(values, dict) or not values:
            raise document.error(f"must map parameters to values, got {values!r}", "start_with", i)
        starts.append({key: start_value(document, key, ("start_with", i, key)) for key in values})
        try:
            fixed_values(space, starts[i])
        except SettingError as error:
            raise document.error(str(error), "start_with", i, error.key) from None
        except ConfigError as error:
            raise document.error(str(error), "start_with", i) from None
    return tuple(starts)
