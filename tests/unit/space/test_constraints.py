"""Constraints: what must hold where, what an inactive parameter decides, and how it is said."""

import pytest

from ichtune.space.conditions import Reference, Test
from ichtune.space.constraints import Constraint

FEW = Test("batch_size", "le", 16)
LARGE = Test("image_px", "ge", 384)
BELOW = Test("warmup", "le", Reference("anneal_start"))


def test_what_holds_is_not_violated() -> None:
    assert Constraint((FEW,)).violated({"batch_size": 16}) is None
    assert Constraint((FEW,), ((LARGE,),)).violated({"batch_size": 64, "image_px": 256}) is None
    assert Constraint((BELOW,)).violated({"warmup": 0.1, "anneal_start": 0.1}) is None


@pytest.mark.parametrize(
    ("constraint", "values", "sentence"),
    [
        (Constraint((FEW,)), {"batch_size": 32}, "batch_size must be at most 16, got batch_size 32"),
        (
            Constraint((BELOW,)),
            {"warmup": 0.3, "anneal_start": 0.2},
            "warmup must be at most anneal_start, got warmup 0.3 and anneal_start 0.2",
        ),
        (
            Constraint((FEW,), ((LARGE, Test("optimizer", "eq", "sgd")), (Test("neighbours", "gt", 1),))),
            {"batch_size": 32, "image_px": 128, "optimizer": "sgd", "neighbours": 2},
            "batch_size must be at most 16 where image_px is at least 384 and optimizer is sgd, or neighbours is above "
            "1, got batch_size 32 and image_px 128 and optimizer sgd and neighbours 2",
        ),
    ],
)
def test_what_does_not_hold_is_said_with_the_values(
    constraint: Constraint, values: dict[str, object], sentence: str
) -> None:
    assert constraint.violated(values) == sentence


def test_every_test_must_hold() -> None:
    both = Constraint((FEW, Test("optimizer", "eq", "sgd")))

    assert both.violated({"batch_size": 8, "optimizer": "sgd"}) is None
    assert "optimizer must be sgd" in str(both.violated({"batch_size": 8, "optimizer": "adamw"}))
    assert "batch_size must be" in str(both.violated({"batch_size": 32, "optimizer": "sgd"}))


def test_inactive_parameters_decide_nothing() -> None:
    assert Constraint((BELOW,)).violated({"warmup": 0.3}) is None
    assert Constraint((BELOW,)).violated({"anneal_start": 0.3}) is None
    assert Constraint((FEW,), ((LARGE,),)).violated({"batch_size": 64}) is None
    assert Constraint((FEW, BELOW)).violated({"batch_size": 64, "warmup": 0.3}) is not None


def test_it_names_the_parameters_that_it_asks_about() -> None:
    assert Constraint((BELOW, FEW), ((LARGE,), (FEW,))).parameters == (
        "warmup",
        "anneal_start",
        "batch_size",
        "image_px",
    )
