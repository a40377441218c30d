"""Space: what a search may vary and how it goes about it, read from one YAML file."""

import hashlib
import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property
from typing import Any

from ichtune.errors import ConfigError
from ichtune.second_level_recipe import AnyRecipe
from ichtune.space.conditions import Condition, Reference, Test, parents_first, parents_of
from ichtune.space.constraints import Constraint
from ichtune.space.domains import Choice, Domain, Integer, Range, Real
from ichtune.space.levels import LEVELS, level_of_recipe
from ichtune.space.settings import AUTO, FoldSettings, MetricSettings, Resources, SearchSettings, TrainSettings
from ichtune.yaml_positions import Keys, YamlDocument

ID_DIGITS = 12


@dataclass(frozen=True)
class Parameter:
    """One key of the recipe: what it may be, and when it is active.

    An inactive parameter takes the value of the space's ``default`` recipe.
    """

    key: str
    domain: Domain
    when: Condition = ()

    @property
    def is_fixed(self) -> bool:
        """Whether there is nothing to choose."""
        return self.domain.n_values == 1


@dataclass(frozen=True)
class Space:
    """A search space.

    Attributes:
        name: the file's name without ``.yaml``, unless the file gives one.
        metric: what is minimised.
        search: how the space is searched.
        resources: what one trial asks for.
        folds: which folds trials are judged on.
        train: what follows the search.
        parameters: keys of the recipe and what they may be, in the order of the file.
        start_with: recipes, whole or in part, that are tried first.
        base: the recipe that gives every key which is no active parameter; None for the defaults of a recipe.
        constraints: what must hold between parameters.
        level: of the recipes, a key of ``LEVELS``.
        document: the file, for errors that are found later; no part of what the space is.
        places: for each parameter's option, ``low`` or ``high`` the keys under which it stands in the file.
    """

    name: str
    parameters: tuple[Parameter, ...]
    metric: MetricSettings = field(default_factory=MetricSettings)
    search: SearchSettings = field(default_factory=SearchSettings)
    resources: Resources = field(default_factory=Resources)
    folds: FoldSettings = field(default_factory=FoldSettings)
    train: TrainSettings = field(default_factory=TrainSettings)
    start_with: tuple[dict[str, Any], ...] = ()
    base: AnyRecipe | None = None
    constraints: tuple[Constraint, ...] = ()
    level: int = 1
    document: YamlDocument | None = field(default=None, compare=False, repr=False)
    places: Mapping[tuple[str, str], Keys] = field(default_factory=dict, compare=False, repr=False)

    @cached_property
    def ordered(self) -> tuple[Parameter, ...]:
        """The parameters, each after those that its condition asks about."""
        by_key = {parameter.key: parameter for parameter in self.parameters}
        return tuple(by_key[key] for key in parents_first({p.key: parents_of(p.when) for p in self.parameters}))

    @property
    def searched(self) -> tuple[Parameter, ...]:
        """The parameters that leave something to choose."""
        return tuple(parameter for parameter in self.parameters if not parameter.is_fixed)

    @property
    def default(self) -> AnyRecipe:
        """The recipe whose values every key takes that is no active parameter."""
        return LEVELS[self.level].build({}) if self.base is None else self.base

    @cached_property
    def _base_values(self) -> dict[str, Any]:
        return _changes(self.default)

    def recipe(self, values: Mapping[str, Any]) -> AnyRecipe:
        """Build a recipe; absent keys take the values of ``default``.

        Raises:
            ConfigError: values that are out of range, or exclude each other.
        """
        return LEVELS[self.level].build({**self._base_values, **values})

    def violated(self, values: Mapping[str, Any]) -> str | None:
        """Return in one sentence what the first constraint that does not hold asks for; None where all hold.

        Args:
            values: plain value of each active parameter, by key; a window set, weights of labels and none by their
                label.
        """
        return next(filter(None, (constraint.violated(values) for constraint in self.constraints)), None)

    def parameter(self, key: str) -> Parameter | None:
        """Return the parameter of a recipe key, None if the space leaves it at its default."""
        return next((parameter for parameter in self.parameters if parameter.key == key), None)

    def part(self, keys: Iterable[str]) -> "Space":
        """Return the space of some parameters, and of those that conditions and constraints tie them to."""
        wanted = {parameter.key for parameter in self.parameters} & set(keys)
        while True:
            more = {name for p in self.parameters if p.key in wanted for name in parents_of(p.when)}
            more |= {name for c in self.constraints if wanted & set(c.parameters) for name in c.parameters}
            if more <= wanted:
                break
            wanted |= more
        parameters = tuple(parameter for parameter in self.parameters if parameter.key in wanted)
        constraints = tuple(one for one in self.constraints if wanted >= set(one.parameters))
        return replace(self, parameters=parameters, constraints=constraints)

    def error(self, message: str, *keys: str | int) -> ConfigError:
        """Return the error to raise for something in the file, with its place where the file is known."""
        return self.document.error(message, *keys) if self.document else ConfigError(message)

    @contextmanager
    def at(self, *keys: str | int) -> Iterator[None]:
        """Give a ConfigError that is raised inside the place of these keys in the file.

        Example:
            >>> with Space("mine", ()).at("search", "algorithm"):
            ...     pass  # look up the searcher by its name
        """
        try:
            yield
        except ConfigError as error:
            raise self.error(str(error), *keys) from None

    def check_names(self, checks: Mapping[str, Callable[[Any], object]]) -> None:
        """Check names that this floor does not know, such as architectures, where they stand in the file.

        Names that the base recipe gives are checked too.

        Args:
            checks: for a recipe key a function that raises ConfigError for a value that it does not know.

        Raises:
            ConfigError: the check's message, with file, line and column.
        """
        for key, check in checks.items():
            parameter = self.parameter(key)
            options = parameter.domain.options if parameter and isinstance(parameter.domain, Choice) else ()
            for option in options:
                with self.at(*self.places.get((key, option.label), (key,))):
                    check(option.value)
            if self.base is not None and (parameter is None or parameter.when):
                with self.at("base"):
                    check(getattr(self.base, key))

    @property
    def space_id(self) -> str:
        """Hash of what decides which recipes are proposed and how they are judged.

        Left out are name, budget (trials, time, GPU hours, trials without gain), resources and what follows, so that a
        search can be renamed, extended or moved to another machine and still be the same search.
        """
        plain = self.resolved()
        search = {key: plain["search"][key] for key in ("algorithm", "seed", "early_stop", "learn_from")}
        decisive = ("metric", "folds", "base", "parameters", "constraints", "start_with")
        identity = {key: plain[key] or None for key in decisive} | {"search": search}
        identity |= {} if self.level == 1 else {"level": self.level}  # left out, so that a first level keeps its ids
        text = json.dumps(identity, sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(text.encode()).hexdigest()[:ID_DIGITS]

    def resolved(self) -> dict[str, Any]:
        """Return the space as plain values in canonical spelling; reading them again gives an equal space."""
        search = asdict(self.search) | {"early_stop": self.search.early_stop.effective}
        search["time"] = search.pop("time_s")
        search["learn_from"] = list(self.search.learn_from)
        return {
            "version": 1,
            "level": self.level,
            "name": self.name,
            "metric": asdict(self.metric),
            "search": search,
            "folds": {**asdict(self.folds), "search_on": list(self.folds.search_on)},
            "resources": _resolved_resources(self.resources),
            "train": asdict(self.train),
            "base": None if self.base is None else _changes(self.base),
            "parameters": {p.key: _resolved_parameter(p) for p in self.parameters},
            "constraints": [_resolved_constraint(constraint) for constraint in self.constraints],
            "start_with": [dict(start) for start in self.start_with],
        }


def _changes(recipe: AnyRecipe) -> dict[str, Any]:
    """Return the keys of a recipe that are not at their defaults, as plain values."""
    defaults = level_of_recipe(recipe).build({}).to_dict()
    return {key: value for key, value in recipe.to_dict().items() if value != defaults.get(key)}


def _resolved_resources(resources: Resources) -> dict[str, Any]:
    gpu = AUTO if resources.auto else resources.gpu
    return {"gpu": gpu, "cpu": resources.cpu, "gpu_memory": resources.gpu_memory_mb}


def _resolved_parameter(parameter: Parameter) -> dict[str, Any]:
    domain = parameter.domain
    plain: dict[str, Any]
    if isinstance(domain, Range):
        plain = _resolved_value(domain)
    elif len(domain.options) == 1:
        plain = {"value": _resolved_value(domain.options[0].value)}
    else:
        plain = {"choices": [_resolved_value(option.value) for option in domain.options]}
    if parameter.when:
        plain["when"] = [_resolved_tests(tests) for tests in parameter.when]
    return plain


def _resolved_constraint(constraint: Constraint) -> dict[str, Any]:
    when = {"when": [_resolved_tests(tests) for tests in constraint.when]} if constraint.when else {}
    return _resolved_tests(constraint.must) | when


def _resolved_tests(tests: tuple[Test, ...]) -> dict[str, Any]:
    plain: dict[str, Any] = {}
    for test in tests:
        operand = test.operand
        if isinstance(operand, Reference):
            operand = {"parameter": operand.parameter}
        plain.setdefault(test.parent, {})[test.relation] = list(operand) if isinstance(operand, tuple) else operand
    return plain


def _resolved_value(value: Any) -> Any:
    if isinstance(value, tuple):
        return [_resolved_value(entry) for entry in value]
    if not isinstance(value, Range):
        return value
    plain: dict[str, Any] = {"type": "int" if isinstance(value, Integer) else "float"}
    plain |= {"low": value.low, "high": value.high}
    if value.log:
        plain["log"] = True
    if (isinstance(value, Real) and value.step is not None) or (isinstance(value, Integer) and value.step != 1):
        plain["step"] = value.step
    return plain
