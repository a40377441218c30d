"""When a parameter is active: tests on other parameters, as data."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from ichtune.errors import ConfigError
from ichtune.space.domains import label_of

#: How a parent's value is compared with the operand, by the name that YAML uses.
RELATIONS: dict[str, Callable[[Any, Any], bool]] = {
    "eq": lambda value, operand: value == operand,
    "ne": lambda value, operand: value != operand,
    "in": lambda value, operand: value in operand,
    "not_in": lambda value, operand: value not in operand,
    "ge": lambda value, operand: value >= operand,
    "gt": lambda value, operand: value > operand,
    "le": lambda value, operand: value <= operand,
    "lt": lambda value, operand: value < operand,
}
#: How each relation is said in a sentence, after "must be" or "is".
RELATION_WORDS = {
    "eq": "",
    "ne": "other than ",
    "in": "one of ",
    "not_in": "none of ",
    "ge": "at least ",
    "gt": "above ",
    "le": "at most ",
    "lt": "below ",
}
#: Relations between numbers.
ORDER_RELATIONS = ("ge", "gt", "le", "lt")
#: Relations whose operand is a list.
LIST_RELATIONS = ("in", "not_in")


@dataclass(frozen=True)
class Reference:
    """An operand that is another parameter's value."""

    parameter: str


@dataclass(frozen=True)
class Test:
    """One comparison of a parent parameter with an operand (a tuple for ``in`` and ``not_in``) or with a parameter."""

    __test__ = False  # not a test case, whatever pytest thinks of its name

    parent: str
    relation: str
    operand: Any

    @property
    def parameters(self) -> tuple[str, ...]:
        """The parameters that it compares."""
        return (self.parent, self.operand.parameter) if isinstance(self.operand, Reference) else (self.parent,)

    def is_decided(self, values: Mapping[str, Any]) -> bool:
        """Say whether every parameter that it compares is active (in ``values``)."""
        return all(name in values for name in self.parameters)

    def holds(self, values: Mapping[str, Any]) -> bool:
        """Say whether the test holds; never where a parameter that it compares is inactive (absent from ``values``)."""
        if not self.is_decided(values):
            return False
        operand = values[self.operand.parameter] if isinstance(self.operand, Reference) else self.operand
        return RELATIONS[self.relation](values[self.parent], operand)

    @property
    def wanted(self) -> str:
        """What the parent is asked to be, in words: ``at most 16``, ``one of sgd, radam``."""
        operands = self.operand if isinstance(self.operand, tuple) else (self.operand,)
        names = (one.parameter if isinstance(one, Reference) else label_of(one) for one in operands)
        return RELATION_WORDS[self.relation] + ", ".join(names)


#: Alternatives, one of which must hold; each a tuple of tests that must all hold. Empty: always active.
Condition = tuple[tuple[Test, ...], ...]


def is_active(condition: Condition, values: Mapping[str, Any]) -> bool:
    """Say whether a condition holds, given the values of the active parameters so far."""
    return not condition or any(all(test.holds(values) for test in tests) for tests in condition)


def parents_of(condition: Condition) -> tuple[str, ...]:
    """Return the parameters that a condition asks about, each once, in order."""
    return tuple(dict.fromkeys(name for tests in condition for test in tests for name in test.parameters))


def parents_first(parents: Mapping[str, Iterable[str]]) -> list[str]:
    """Order parameters so that each comes after its parents and otherwise as given.

    Args:
        parents: for each parameter the ones that it depends on; all of them keys of the mapping.

    Raises:
        ConfigError: a cycle; the message spells it out.
    """
    ordered: dict[str, None] = {}
    for name in parents:
        _visit(name, parents, ordered, ())
    return list(ordered)


def _visit(name: str, parents: Mapping[str, Iterable[str]], ordered: dict[str, None], path: tuple[str, ...]) -> None:
    if name in ordered:
        return
    if name in path:
        circle = " -> ".join([*path[path.index(name) :], name])
        raise ConfigError(f"conditions form a cycle: {circle}; drop one of these `when`")
    for parent in parents[name]:
        _visit(parent, parents, ordered, (*path, name))
    ordered[name] = None
