"""How a recipe's keys are declared: every kind accepts what it says and refuses the rest."""

import math
from dataclasses import dataclass, fields
from typing import Any

import pytest

from ichtune.errors import ConfigError
from ichtune.recipe import Recipe
from ichtune.recipe_fields import checked, label_weights, name, number, one_of, special, switch, whole


@dataclass
class Example:
    share: float = number(0.5, 0.0, 1.0, "a share")
    maybe: float | None = number(None, 0.0, 1.0, "a share or none")
    count: int = whole(1, 1, math.inf, "a count")
    colour: str = one_of("red", ("red", "green"), "a colour")
    label: str = name("x", "any name")
    on: bool = switch(False, "on or off")
    weights: tuple[float, ...] = label_weights((1.0,) * 6, "six weights")
    free: Any = special(None, "anything")  # noqa: RUF009  (a declaration, as dataclasses.field is)


SPECS = {spec.name: spec for spec in fields(Example)}


@pytest.mark.parametrize(
    ("key", "value", "expected"),
    [
        ("share", 1, 1.0),
        ("share", -0.0, 0.0),
        ("maybe", None, None),
        ("count", 3.0, 3),
        ("colour", "green", "green"),
        ("label", "anything", "anything"),
        ("on", True, True),
        ("weights", [1, 2, 3, 4, 5, 6], (1.0, 2.0, 3.0, 4.0, 5.0, 6.0)),
        ("free", {"a": 1}, {"a": 1}),
    ],
)
def test_a_good_value_takes_its_canonical_form(key: str, value: Any, expected: Any) -> None:
    got = checked(SPECS[key], value)
    assert got == expected
    assert type(got) is type(expected)
    assert str(got) == str(expected)  # minus zero is zero


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("share", 1.5, r"'share' must be between 0 and 1, got 1.5"),
        ("share", None, r"'share' must be a number, got None"),
        ("maybe", "none", r"'maybe' must be a number, got 'none'"),
        ("count", 0, r"'count' must be at least 1, got 0"),
        ("count", True, r"'count' must be a whole number, got True"),
        ("colour", "gren", r"'colour' must be one of red, green, got 'gren'. Did you mean 'green'"),
        ("label", 3, r"'label' must be a name, got 3"),
        ("on", 1, r"'on' must be true or false, got 1"),
        ("weights", [1] * 5, r"'weights' must be 6 numbers of at least 0 in label order"),
    ],
)
def test_a_bad_value_is_refused_with_its_key(key: str, value: Any, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        checked(SPECS[key], value)


def test_every_key_of_the_recipe_says_what_it_means() -> None:
    for spec in fields(Recipe):
        assert len(spec.metadata["doc"]) > 10, spec.name
