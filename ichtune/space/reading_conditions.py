"""Reading ``when`` and ``constraints``: mappings of parameters to what they must be."""

from typing import Any

from ichtune.errors import nearest
from ichtune.space.conditions import LIST_RELATIONS, ORDER_RELATIONS, RELATIONS, Condition, Reference, Test
from ichtune.space.constraints import Constraint
from ichtune.space.domains import Choice, Domain, is_number
from ichtune.space.levels import level_of
from ichtune.space.reading_parameters import canonical, is_one_value
from ichtune.yaml_positions import Keys, YamlDocument

#: Key of a mapping that stands for another parameter's value.
REFERENCE = "parameter"


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
    return _alternatives(document, at, domains)


def read_constraints(document: YamlDocument, domains: dict[str, Domain]) -> tuple[Constraint, ...]:
    """Read what must hold between parameters; empty where nothing must.

    Args:
        document: the file.
        domains: every parameter of the space.

    Raises:
        ConfigError: an unknown parameter, relation or operand; with file, line, column and key.
    """
    written = document.get("constraints")
    if written is None:
        return ()
    if not isinstance(written, list):
        example = "`- {batch_size: {le: 16}, when: {image_px: {ge: 384}}}`"
        raise document.error(f"must be a list of what must hold, as in {example}, got {written!r}", "constraints")
    constraints: list[Constraint] = []
    for i, entry in enumerate(written):
        at: Keys = ("constraints", i)
        conditional = isinstance(entry, dict) and "when" in entry
        must = _tests(document, at, domains, besides=("when",))
        when = _alternatives(document, (*at, "when"), domains) if conditional else ()
        constraints.append(Constraint(must, when))
    return tuple(constraints)


def _alternatives(document: YamlDocument, at: Keys, domains: dict[str, Domain]) -> Condition:
    written = document.get(*at)
    if isinstance(written, list) and written:
        return tuple(_tests(document, (*at, i), domains) for i in range(len(written)))
    return (_tests(document, at, domains),)


def _tests(
    document: YamlDocument, at: Keys, domains: dict[str, Domain], besides: tuple[str, ...] = ()
) -> tuple[Test, ...]:
    mapping = document.get(*at)
    parents = [key for key in mapping if key not in besides] if isinstance(mapping, dict) else []
    if not parents:
        raise document.error(f"must map parameters to values, as in {{optimizer: sgd}}, got {mapping!r}", *at)
    tests: list[Test] = []
    for parent in parents:
        wanted = mapping[parent]
        if parent not in domains:
            what = "parameter" if at[0] == "constraints" else "parent"
            raise document.error(f"unknown {what} {parent!r}. {nearest(parent, domains)}", *at, parent)
        if isinstance(wanted, dict):
            tests += [_test(document, (*at, parent, relation), parent, relation, domains) for relation in wanted]
        elif isinstance(wanted, list) and not is_one_value(level_of(document), parent, wanted):
            tests.append(_test(document, (*at, parent), parent, "in", domains))
        else:
            tests.append(_test(document, (*at, parent), parent, "eq", domains))
    return tuple(tests)


def _test(document: YamlDocument, at: Keys, parent: str, relation: str, domains: dict[str, Domain]) -> Test:
    if relation not in RELATIONS:
        raise document.error(f"unknown relation {relation!r}. {nearest(relation, RELATIONS)}", *at)
    domain = domains[parent]
    written = document.get(*at)
    if isinstance(written, dict):
        return Test(parent, relation, _reference(document, at, parent, relation, domains))
    operand: Any
    if relation in ORDER_RELATIONS:
        operand = _bound(document, at, parent, domain)
    elif relation not in LIST_RELATIONS:
        operand = _operand(document, at, parent, domain)
    else:
        operands = document.get(*at)
        if not isinstance(operands, list) or not operands:
            raise document.error(f"must be a list of values, got {operands!r}", *at)
        operand = tuple(_operand(document, (*at, i), parent, domain) for i in range(len(operands)))
    test = Test(parent, relation, operand)
    # a constraint does no harm where a space that includes it has narrowed the parameter so that it is always kept
    if at[0] == "parameters" and not _can_hold(test, domain):
        raise document.error(
            f"{parent} is never {test.wanted}: it {_extent(domain)}; so {at[1]} would never be searched", *at
        )
    return test


def _can_hold(test: Test, domain: Domain) -> bool:
    """Say whether a value of a parent passes a test; for one that is fixed, and no longer searched, whether or not."""
    if isinstance(domain, Choice):
        return len(domain.options) == 1 or any(test.holds({test.parent: option.plain}) for option in domain.options)
    if test.relation not in ORDER_RELATIONS:
        return True  # the operands lie in the range, and a range has other values
    return any(test.holds({test.parent: end}) for end in (domain.low, domain.high))


def _extent(domain: Domain) -> str:
    if isinstance(domain, Choice):
        return f"is one of {', '.join(domain.labels)}"
    return f"lies in {domain.low:g} to {domain.high:g}"


def _reference(document: YamlDocument, at: Keys, parent: str, relation: str, domains: dict[str, Domain]) -> Reference:
    written = document.get(*at)
    other = written.get(REFERENCE)
    if list(written) != [REFERENCE] or not isinstance(other, str):
        raise document.error(f"must be a value or {{{REFERENCE}: NAME}}, got {written!r}", *at)
    if other not in domains or other == parent:
        known = [name for name in domains if name != parent]
        raise document.error(f"unknown parameter {other!r} to compare with. {nearest(other, known)}", *at, REFERENCE)
    if relation in LIST_RELATIONS:
        raise document.error("must be a list of values", *at)
    for name in (parent, other):
        if relation in ORDER_RELATIONS and not _is_numeric(domains[name]):
            raise document.error(f"{name} is no number; name its values instead", *at)
    return Reference(other)


def _is_numeric(domain: Domain) -> bool:
    return not isinstance(domain, Choice) or all(is_number(option.plain) for option in domain.options)


def _bound(document: YamlDocument, at: Keys, parent: str, domain: Domain) -> Any:
    value = document.get(*at)
    if not is_number(value):
        raise document.error(f"must be a number, got {value!r}", *at)
    if not _is_numeric(domain):
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
