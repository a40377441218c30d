"""Reading the sections of a space that are settings, each into its dataclass."""

from dataclasses import fields, replace
from typing import Any, TypeVar

from ichtune.recipe import Recipe
from ichtune.second_level_recipe import AnyRecipe, SecondLevelRecipe
from ichtune.space.conditions import Condition, is_active
from ichtune.space.domains import Choice
from ichtune.space.levels import Level, level_of
from ichtune.space.model import Parameter
from ichtune.space.settings import (
    AUTO,
    NO_STOP,
    EarlyStop,
    FoldSettings,
    MetricSettings,
    Resources,
    SearchSettings,
    SettingError,
    TrainSettings,
)
from ichtune.yaml_positions import Keys, YamlDocument

#: Spellings that users bring from Ray, Optuna and others, by section.
SYNONYMS: dict[str, dict[str, str]] = {
    "search": {"time": "time_s"},
    "resources": {"gpu_memory": "gpu_memory_mb"},
    "early_stop": {"grace_period": "grace", "max_t": "max", "reduction_factor": "factor"},
    "metric": {"mode": "goal"},
}
#: Attributes of a section that are written in another way than they are called.
UNWRITTEN = {"time_s", "gpu_memory_mb", "auto"}
#: Sections that may be written as one word: the key that the word is the value of.
SHORTHANDS: dict[Keys, str] = {("search", "early_stop"): "type", ("resources",): "gpu"}

Settings = TypeVar("Settings", EarlyStop, SearchSettings, Resources, FoldSettings, MetricSettings, TrainSettings)


def written_keys(kind: type[Settings], section: str) -> list[str]:
    """Return every key under which a section's settings may be written."""
    known = [field.name for field in fields(kind)] + list(SYNONYMS.get(section, {}))
    return [key for key in known if key not in UNWRITTEN]


def read_section(document: YamlDocument, kind: type[Settings], *at: str, **ready: Any) -> Settings:
    """Read a mapping of settings into its dataclass.

    Args:
        document: the file.
        kind: the dataclass.
        at: keys of the section.
        ready: values that were read before.

    Raises:
        ConfigError: with file, line, column and key.
    """
    synonyms: dict[str, str] = SYNONYMS.get(at[-1], {})
    document.check_keys(written_keys(kind, at[-1]), *at)
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


def read_resources(document: YamlDocument) -> Resources:
    """Read what a trial asks for: the word ``auto``, or a mapping; GPUs are by default those of the level.

    Raises:
        ConfigError: a GPU for models that compute on none, or a value that it may not have; with file, line and column.
    """
    level = level_of(document)
    if isinstance(document.get("resources"), str):
        if document.get("resources") != AUTO:
            raise document.error(f"must be {AUTO}, or map gpu and cpu to numbers", "resources")
        resources = Resources(auto=True)
    else:
        unsaid = {} if "gpu" in document.mapping("resources") else {"gpu": level.gpu}
        resources = read_section(document, Resources, "resources", **unsaid)
    if level.gpu == 0 and resources.gpu > 0:
        raise document.error(
            f"{level.what} (level {level.number}) compute on CPU cores; write gpu: 0 or leave it out",
            "resources",
            "gpu",
        )
    return resources


def read_early_stop(document: YamlDocument, parameters: tuple[Parameter, ...], default: AnyRecipe) -> EarlyStop:
    """Read how trials are stopped; ``max`` is by default the length of the longest trial.

    Args:
        document: the file.
        parameters: of the space; ``epochs`` among them says how long trials are.
        default: the recipe that gives ``epochs`` where no parameter does.

    Raises:
        ConfigError: with file, line, column and key.
    """
    at = ("search", "early_stop")
    document.mapping("search")
    written = document.get(*at)
    if isinstance(written, str) or written is None:
        settings = EarlyStop(type=written or NO_STOP)
    else:
        settings = _effective(document, read_section(document, EarlyStop, *at), *at)
    _check_rungs(document, settings, level_of(document), *at)
    longest = _most_epochs(parameters, default)
    if settings.max is not None:
        if settings.max < longest:
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


def _check_rungs(document: YamlDocument, settings: EarlyStop, level: Level, *at: str) -> None:
    """Refuse rungs that the recipes of a level cannot be judged by."""
    for key, allowed in (("judge", level.judges), ("fidelity", level.fidelities)):
        value = getattr(settings, key)
        if value not in allowed:
            raise document.error(
                f"must be {' or '.join(allowed)} for {level.what} (level {level.number}), got {value!r}; leave it out",
                *at,
                key,
            )


def _effective(document: YamlDocument, settings: EarlyStop, *at: str) -> EarlyStop:
    """Return the settings with those at their defaults that have no effect; written by mistake, they are an error.

    An included file's are none, where it is this file that takes their effect away.
    """
    idle = settings.without_effect
    synonyms = SYNONYMS["early_stop"]
    for key in document.mapping(*at):
        cause = idle.get(synonyms.get(key, key))
        if cause is None:
            continue
        file, cause_file = (document.source(*at, one)[0].path for one in (key, cause))
        if file in (document.path, cause_file):
            value = getattr(settings, cause)
            unsaid = "" if cause in document.mapping(*at) else ", which is the default"
            raise document.error(f"has no effect with {cause} {value}{unsaid}; leave one of the two out", *at, key)
    return EarlyStop(**settings.effective)


def _most_epochs(parameters: tuple[Parameter, ...], default: AnyRecipe) -> int:
    """Return how long the longest trial is; where a condition on ``epochs`` fails, it is the default."""
    parameter = next((parameter for parameter in parameters if parameter.key == "epochs"), None)
    if parameter is None:
        return max(_lengths(parameters, default, ()))
    domain = parameter.domain
    longest = max(option.value for option in domain.options) if isinstance(domain, Choice) else domain.high
    return int(max(longest, *_lengths(parameters, default, parameter.when))) if parameter.when else int(longest)


def _lengths(parameters: tuple[Parameter, ...], default: AnyRecipe, when: Condition) -> list[int]:
    """Return how long trials are in which a condition on ``epochs`` fails, or that know none.

    Models of the second level that are fitted at once take one epoch, whatever ``epochs`` says.
    """
    if isinstance(default, Recipe):
        return [default.epochs]
    model = next((parameter for parameter in parameters if parameter.key == "model"), None)
    named = model.domain.labels if model is not None and isinstance(model.domain, Choice) else ()
    models = named if model is not None and not model.when else (*named, default.model)
    left = [name for name in models if not (when and is_active(when, {"model": name}))]
    return [SecondLevelRecipe(model=name, epochs=default.epochs).n_epochs for name in left] or [1]
