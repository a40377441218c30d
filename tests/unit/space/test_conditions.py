"""Conditions: all tests of one alternative, any alternative, parents first, no cycles."""

import pytest

from ichtune.errors import ConfigError
from ichtune.space.conditions import RELATION_WORDS, RELATIONS, Reference, Test, is_active, parents_first, parents_of

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
    assert set(RELATION_WORDS) == set(RELATIONS)


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


BELOW = Test("warmup", "le", Reference("anneal_start"))


def test_an_operand_may_be_another_parameter() -> None:
    assert BELOW.holds({"warmup": 0.2, "anneal_start": 0.2})
    assert not BELOW.holds({"warmup": 0.3, "anneal_start": 0.2})
    assert BELOW.parameters == ("warmup", "anneal_start")
    assert parents_of(((BELOW, SGD),)) == ("warmup", "anneal_start", "optimizer")


def test_a_test_is_decided_where_all_that_it_compares_is_active() -> None:
    assert BELOW.is_decided({"warmup": 0.2, "anneal_start": 0.1})
    assert not BELOW.is_decided({"warmup": 0.2})
    assert not BELOW.holds({"warmup": 0.2})
    assert not BELOW.holds({"anneal_start": 0.2})


@pytest.mark.parametrize(
    ("test", "words"),
    [
        (SGD, "sgd"),
        (Test("optimizer", "ne", "sgd"), "other than sgd"),
        (Test("optimizer", "in", ("sgd", "radam")), "one of sgd, radam"),
        (Test("optimizer", "not_in", ("sgd", "radam")), "none of sgd, radam"),
        (Test("pretrained", "eq", True), "true"),
        (Test("lr", "ge", 1e-3), "at least 0.001"),
        (Test("lr", "gt", 1e-3), "above 0.001"),
        (Test("lr", "lt", 1e-3), "below 0.001"),
        (BELOW, "at most anneal_start"),
    ],
)
def test_what_is_wanted_in_words(test: Test, words: str) -> None:
    assert test.wanted == words
