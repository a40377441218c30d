"""Reading ``when``: mappings of parameters to what they must be."""

from typing import Any

from ichtune.errors import nearest
from ichtune.space.conditions import LIST_RELATIONS, ORDER_RELATIONS, RELATIONS, Condition, Test
from ichtune.space.domains import Choice, Domain, is_number
from ichtune.space.reading_parameters import canonical, is_one_value
from ichtune.yaml_positions import Keys, YamlDocument


def read_condition(document: YamlDocument, key: str, domains: dict[str, Domain]) -> Condition:
    """Read the condition of one parameter; empty where it has none.

    Args:
        document: the file.
        key: the parameter.
        domains: every parameter of the space.

    Raises:
        ConfigError: an unknown parent, relation or operand; with file, line, column and key.
    """
    at: Keys = ("parameters", key, "when")
    spec = document.get("parameters", key)
    if not isinstance(spec, dict) or "when" not in spec:
        return ()
    if isinstance(spec["when"], list) and spec["when"]:
        return tuple(_tests(document, (*at, i), domains) for i in range(len(spec["when"])))
    return (_tests(document, at, domains),)


def _tests(document: YamlDocument, at: Keys, domains: dict[str, Domain]) -> tuple[Test, ...]:
    mapping = document.get(*at)
    if not isinstance(mapping, dict) or not mapping:
        raise document.error(f"must map parameters to values, as in {{optimizer: sgd}}, got {mapping!r}", *at)
    tests: list[Test] = []
    for parent, wanted in mapping.items():
        if parent not in domains:
            raise document.error(f"unknown parent {parent!r}. {nearest(parent, domains)}", *at, parent)
        if isinstance(wanted, dict):
            tests += [_test(document, (*at, parent, relation), parent, relation, domains) for relation in wanted]
        elif isinstance(wanted, list) and not is_one_value(parent, wanted):
            tests.append(_test(document, (*at, parent), parent, "in", domains))
        else:
            tests.append(_test(document, (*at, parent), parent, "eq", domains))
    return tuple(tests)


def _test(document: YamlDocument, at: Keys, parent: str, relation: str, domains: dict[str, Domain]) -> Test:
    if relation not in RELATIONS:
        raise document.error(f"unknown relation {relation!r}. {nearest(relation, RELATIONS)}", *at)
    domain = domains[parent]
    if relation in ORDER_RELATIONS:
        return Test(parent, relation, _bound(document, at, parent, domain))
    if relation not in LIST_RELATIONS:
        return Test(parent, relation, _operand(document, at, parent, domain))
    operands = document.get(*at)
    if not isinstance(operands, list) or not operands:
        raise document.error(f"must be a list of values, got {operands!r}", *at)
    return Test(parent, relation, tuple(_operand(document, (*at, i), parent, domain) for i in range(len(operands))))


def _bound(document: YamlDocument, at: Keys, parent: str, domain: Domain) -> Any:
    value = document.get(*at)
    if not is_number(value):
        raise document.error(f"must be a number, got {value!r}", *at)
    if isinstance(domain, Choice) and not all(is_number(option.plain) for option in domain.options):
        raise document.error(f"{parent} is no number; name its values instead", *at)
    return value


def _operand(document: YamlDocument, at: Keys, parent: str, domain: Domain) -> Any:
    """Read a value that a parent may have; one that it can never have is a mistake."""
    written = document.get(*at)
    if not isinstance(domain, Choice):
        if not domain.contains(written):
            raise document.error(f"{parent} is never {written!r}: it lies in {domain.low:g} to {domain.high:g}", *at)
        return written
    if any(isinstance(option.value, tuple) and option.label == written for option in domain.options):
        return written
    value = canonical(document, parent, at)
    known = [option.plain for option in domain.options]
    if len(known) > 1 and value not in known:
        raise document.error(f"{parent} is never {written!r}. {nearest(str(value), domain.labels)}", *at)
    return value
