"""Space: what a search may vary and how it goes about it, read from one YAML file."""

import hashlib
import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from functools import cached_property
from typing import Any

from ichtune.errors import ConfigError
from ichtune.space.conditions import Condition, parents_first, parents_of
from ichtune.space.domains import Choice, Domain, Integer, Range, Real
from ichtune.space.settings import FoldSettings, MetricSettings, Resources, SearchSettings, TrainSettings
from ichtune.yaml_positions import Keys, YamlDocument

ID_DIGITS = 12


@dataclass(frozen=True)
class Parameter:
    """One key of the recipe: what it may be, and when it is active.

    An inactive parameter takes the recipe's default.
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

    def parameter(self, key: str) -> Parameter | None:
        """Return the parameter of a recipe key, None if the space leaves it at its default."""
        return next((parameter for parameter in self.parameters if parameter.key == key), None)

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

    @property
    def space_id(self) -> str:
        """Hash of what decides which recipes are proposed and how they are judged.

        Left out are name, budget (trials, time), resources and what follows, so that a search can be renamed,
        extended or moved to another machine and still be the same search.
        """
        plain = self.resolved()
        search = {key: plain["search"][key] for key in ("algorithm", "seed", "early_stop")}
        identity = {key: plain[key] for key in ("metric", "folds", "parameters", "start_with")} | {"search": search}
        text = json.dumps(identity, sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(text.encode()).hexdigest()[:ID_DIGITS]

    def resolved(self) -> dict[str, Any]:
        """Return the space as plain values in canonical spelling; reading them again gives an equal space."""
        search = asdict(self.search)
        search["time"] = search.pop("time_s")
        return {
            "version": 1,
            "name": self.name,
            "metric": asdict(self.metric),
            "search": search,
            "folds": {**asdict(self.folds), "search_on": list(self.folds.search_on)},
            "resources": asdict(self.resources),
            "train": asdict(self.train),
            "parameters": {p.key: _resolved_parameter(p) for p in self.parameters},
            "start_with": [dict(start) for start in self.start_with],
        }


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


def _resolved_tests(tests: tuple[Any, ...]) -> dict[str, Any]:
    plain: dict[str, Any] = {}
    for test in tests:
        operand = list(test.operand) if isinstance(test.operand, tuple) else test.operand
        plain.setdefault(test.parent, {})[test.relation] = operand
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
