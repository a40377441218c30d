"""Conditions: all tests of one alternative, any alternative, parents first, no cycles."""

import pytest

from ichtune.errors import ConfigError
from ichtune.space.conditions import RELATIONS, Test, is_active, parents_first, parents_of

SGD = Test("optimizer", "eq", "sgd")
FAST = Test("lr", "ge", 0.1)


@pytest.mark.parametrize(
    ("relation", "operand", "holds_for"),
    [
        ("eq", 2, {2}),
        ("ne", 2, {1, 3}),
        ("in", (1, 2), {1, 2}),
        ("not_in", (1, 2), {3}),
        ("ge", 2, {2, 3}),
        ("gt", 2, {3}),
        ("le", 2, {1, 2}),
        ("lt", 2, {1}),
    ],
)
def test_every_relation(relation: str, operand: object, holds_for: set[int]) -> None:
    assert {value for value in (1, 2, 3) if Test("p", relation, operand).holds({"p": value})} == holds_for


def test_the_relations_above_are_all_there_are() -> None:
    assert set(RELATIONS) == {"eq", "ne", "in", "not_in", "ge", "gt", "le", "lt"}


def test_tests_are_and_alternatives_are_or() -> None:
    both, either = ((SGD, FAST),), ((SGD,), (FAST,))
    assert is_active(both, {"optimizer": "sgd", "lr": 0.2})
    assert not is_active(both, {"optimizer": "sgd", "lr": 0.01})
    assert is_active(either, {"optimizer": "sgd", "lr": 0.01})
    assert not is_active(either, {"optimizer": "adamw", "lr": 0.01})
    assert is_active((), {})


def test_no_test_holds_on_an_inactive_parent() -> None:
    assert not Test("optimizer", "ne", "sgd").holds({})
    assert not is_active(((SGD,),), {"lr": 1.0})


def test_parents_of_names_each_once() -> None:
    assert parents_of(((SGD, FAST), (SGD,))) == ("optimizer", "lr")


def test_parents_come_first_and_else_the_order_stays() -> None:
    assert parents_first({"momentum": ["optimizer"], "lr": [], "optimizer": []}) == [
        "optimizer",
        "momentum",
        "lr",
    ]


def test_a_cycle_is_spelt_out() -> None:
    with pytest.raises(ConfigError, match="a -> b -> c -> a"):
        parents_first({"a": ["b"], "b": ["c"], "c": ["a"]})
