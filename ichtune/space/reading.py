"""Reading a search space from YAML, with every mistake reported where it stands."""

from dataclasses import replace
from pathlib import Path

from ichtune.errors import ConfigError
from ichtune.space.conditions import parents_of
from ichtune.space.corners import check_alone, check_constraints, check_corners
from ichtune.space.domains import Domain
from ichtune.space.including import read_including
from ichtune.space.levels import level_of
from ichtune.space.model import Parameter, Space
from ichtune.space.reading_conditions import read_condition, read_constraints
from ichtune.space.reading_parameters import Places, read_domain
from ichtune.space.reading_recipes import read_base, read_starts
from ichtune.space.reading_settings import read_early_stop, read_resources, read_section
from ichtune.space.setting_fields import SettingError, check_search_name
from ichtune.space.settings import FoldSettings, MetricSettings, SearchSettings, TrainSettings
from ichtune.yaml_positions import YamlDocument


def read_space(path: Path) -> Space:
    """Read and check a search space, with the files that it includes and the recipe that it is based on.

    Every option and bound is tried by building a recipe from it, alone and with the others at their lowest
    and highest, so that a search does not die of a value an hour later.

    Args:
        path: the YAML file.

    Raises:
        ConfigError: the file, the line, the column, the key, what is wrong and the nearest valid name.
    """
    document = read_including(path)
    name = _name(document, path)
    parameters, places = _parameters(document)
    space = Space(
        name=name,
        level=level_of(document).number,
        parameters=parameters,
        metric=read_section(document, MetricSettings, "metric"),
        resources=read_resources(document),
        folds=read_section(document, FoldSettings, "folds"),
        train=read_section(document, TrainSettings, "train"),
        base=read_base(document),
        constraints=read_constraints(document, {parameter.key: parameter.domain for parameter in parameters}),
        document=document,
        places=places,
    )
    check_constraints(space)
    check_alone(space)
    early_stop = read_early_stop(document, parameters, space.default)
    space = replace(space, search=read_section(document, SearchSettings, "search", early_stop=early_stop))
    check_corners(space)
    return replace(space, start_with=read_starts(document, space))


def _name(document: YamlDocument, path: Path) -> str:
    try:
        return check_search_name("name", document.value.get("name", path.stem))
    except SettingError as error:
        hint = "" if "name" in document.value else "; it is the file's own: rename the file, or give a name in it"
        raise document.error(f"{error}{hint}", "name") from None


def _parameters(document: YamlDocument) -> tuple[tuple[Parameter, ...], Places]:
    mapping = document.mapping("parameters")
    if not mapping:
        raise document.error(
            "expected at least one parameter, as in `lr: {low: 1e-4, high: 1e-2, log: true}`",
            "parameters",
        )
    document.check_keys(level_of(document).keys, "parameters")
    places: Places = {}
    domains: dict[str, Domain] = {key: read_domain(document, key, places) for key in mapping}
    parameters = tuple(Parameter(key, domains[key], read_condition(document, key, domains)) for key in mapping)
    _check_cycles(document, parameters)
    return parameters, places


def _check_cycles(document: YamlDocument, parameters: tuple[Parameter, ...]) -> None:
    try:
        Space("", parameters).ordered  # noqa: B018 - ordering is what finds a cycle
    except ConfigError as error:
        first = next(p.key for p in parameters if parents_of(p.when) and f"{p.key} ->" in str(error))
        raise document.error(str(error), "parameters", first, "when") from None
