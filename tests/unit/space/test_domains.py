"""Ranges and choices: what they hold, what they refuse, how they are named."""

import math
from typing import Any

import pytest

from ichtune.errors import ConfigError
from ichtune.space.domains import Choice, Integer, Option, Real, label_of, option_of


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"low": 1, "high": 1}, "low must be less than high, got low 1 and high 1"),
        ({"low": 2, "high": 1}, "low must be less than high"),
        ({"low": 0, "high": 1, "log": True}, "log: true needs low above 0, got 0"),
        ({"low": 0, "high": 1, "step": 0}, "step must be a number above 0"),
        ({"low": 1, "high": 2, "step": 0.5, "log": True}, "exclude each other"),
        ({"low": 0, "high": 1, "step": 0.3}, r"set high to 0\.9 or 1\.2"),
        ({"low": "a", "high": 1}, "low must be a number, got 'a'"),
        ({"low": 0, "high": math.inf}, "high must be a number, got inf"),
    ],
)
def test_a_range_that_makes_no_sense_is_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        Real(**settings)


def test_an_integer_range_takes_whole_numbers_only() -> None:
    assert Integer(1, 4.0) == Integer(1, 4)  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match=r"high must be a whole number here, got 4\.5"):
        Integer(1, 4.5)  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="set high to 448 or 512"):
        Integer(256, 500, step=64)


def test_number_of_values() -> None:
    assert Real(0, 1).n_values == math.inf
    assert Real(0, 1, step=0.1).n_values == 11
    assert Real(0, 0.5, step=0.25).values() == [0.0, 0.25, 0.5]
    assert Real(0, 1, step=0.1).values() == [0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0]
    assert Integer(256, 512, step=64).values() == [256, 320, 384, 448, 512]
    assert Integer(1, 100, log=True).n_values == 100


def test_contains_knows_bounds_grid_and_kind() -> None:
    assert Integer(256, 512, step=64).contains(320.0)
    assert not Integer(256, 512, step=64).contains(300)
    assert not Integer(1, 3).contains(True)
    assert not Integer(1, 3).contains("2")
    assert Real(0, 1, step=0.1).contains(0.7)
    assert not Real(0, 1, step=0.1).contains(0.75)
    assert not Real(0, 1).contains(math.nan)


@pytest.mark.parametrize(
    ("value", "label"),
    [
        ("resnet34", "resnet34"),
        (1e-4, "0.0001"),
        (3, "3"),
        (3.0, "3"),
        (True, "true"),
        (None, "none"),
        ((2.0, 1.0, 0.5), "2,1,0.5"),
        (((40.0, 80.0),), "brain"),
        (((41.0, 80.0), (80.0, 200.0)), "41/80+80/200"),
        (((40.0000001, 80.0),), "40.0000001/80"),
        (((Integer(30, 60), 80.0), (80.0, Real(90, 200))), "30..60/80+80/90..200"),
    ],
)
def test_labels_follow_from_the_value_alone(value: Any, label: str) -> None:
    assert label_of(value) == label


def test_numbers_inside_an_option_have_flat_names_and_are_filled_in() -> None:
    option = option_of(((Integer(30, 60), Integer(60, 120)), (80.0, 200.0)))
    ranges = option.ranges("windows[1]")
    assert ranges == {"windows[1][0].center": Integer(30, 60), "windows[1][0].width": Integer(60, 120)}
    filled = option.filled("windows[1]", {"windows[1][0].center": 35, "windows[1][0].width": 70})
    assert filled == ((35, 70), (80.0, 200.0))


def test_an_option_without_numbers_inside_is_filled_with_itself() -> None:
    assert option_of((2.0, 1.0)).filled("loss_weights[0]", {}) == (2.0, 1.0)
    assert option_of("sgd").ranges("optimizer[0]") == {}


def test_a_choice_counts_the_numbers_inside_its_options() -> None:
    choice = Choice((option_of(((40.0, 80.0),)), option_of(((Integer(30, 39), Integer(60, 61)),))))
    assert choice.n_values == 1 + 10 * 2
    assert choice.labels == ("brain", "30..39/60..61")


def test_plain_is_the_value_where_it_is_plain() -> None:
    assert Option(3, "3").plain == 3
    assert Option((2.0, 1.0), "2,1").plain == "2,1"
    assert Option(None, "none").plain == "none"


class Answer:
    """Answers one number, whatever it is asked."""

    def __init__(self, number: float) -> None:
        self._number = number

    def real(self, name: str, low: float, high: float, *, log: bool, step: float | None) -> float:
        return self._number

    def integer(self, name: str, low: int, high: int, *, log: bool, step: int) -> int:
        return int(self._number)


def test_a_drawn_number_lies_exactly_on_the_grid() -> None:
    draw = Real(0.0, 1.0, step=0.1).draw
    assert [draw("x", Answer(number)) for number in (0.1 * 3, 0.7000000001, 1.0)] == [0.3, 0.7, 1.0]  # type: ignore[arg-type]
    assert Real(0.0, 1.0).draw("x", Answer(0.1 * 3)) == 0.1 * 3  # type: ignore[arg-type]
    assert Integer(8, 64, step=8).draw("x", Answer(16.0)) == 16  # type: ignore[arg-type]
