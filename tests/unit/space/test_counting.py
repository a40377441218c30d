"""How many recipes there are: conditions and constraints count, and what cannot be counted is called a bound."""

import math
from itertools import product
from pathlib import Path

import pytest

from ichtune.space import Space, SpaceSize, read_space, space_size
from ichtune.space.counting import n_branches, plain_combinations


def space_of(tmp_path: Path, parameters: str, constraints: str = "") -> Space:
    path = tmp_path / "space.yaml"
    path.write_text("parameters:\n" + "".join(f"  {line}\n" for line in parameters.strip().splitlines()) + constraints)
    return read_space(path)


@pytest.mark.parametrize(
    ("parameters", "n"),
    [
        ("epochs: 3", 1),
        ("epochs: {low: 1, high: 4}\nneighbours: [0, 1]", 8),
        ("optimizer: [adamw, sgd, radam]\nmomentum: {low: 0.8, high: 0.9, step: 0.05, when: {optimizer: sgd}}", 2 + 3),
        ("optimizer: [adamw, sgd, radam]\nmomentum: {low: 0.8, high: 0.9, when: {optimizer: sgd}}", math.inf),
        (
            "windows: [brain, [[{low: 30, high: 39}, 80]]]\nneighbours: {choices: [0, 1], when: {windows: brain}}",
            2 + 10,
        ),
        ("epochs: {low: 1, high: 4}\nneighbours: {choices: [0, 1, 2], when: {epochs: {ge: 3}}}", 2 + 2 * 3),
    ],
)
def test_configurations_are_counted_with_their_conditions(tmp_path: Path, parameters: str, n: float) -> None:
    space = space_of(tmp_path, parameters)

    assert space_size(space) == SpaceSize(n)


PLAIN = "batch_size: [8, 16, 32]\nimage_px: {low: 128, high: 512, step: 128}\nneighbours: [0, 1, 2]"
FEW_AT_LARGE = "constraints:\n  - {batch_size: {le: 16}, when: {image_px: {ge: 384}}}\n"


def test_what_constraints_forbid_is_not_counted(tmp_path: Path) -> None:
    space = space_of(tmp_path, PLAIN, FEW_AT_LARGE)
    allowed = [(b, px) for b, px in product((8, 16, 32), (128, 256, 384, 512)) if b <= 16 or px < 384]

    assert space_size(space) == SpaceSize(3 * len(allowed))


def test_a_constraint_on_an_inactive_parameter_forbids_nothing(tmp_path: Path) -> None:
    parameters = "optimizer: [adamw, sgd]\nmomentum: {choices: [0.8, 0.9], when: {optimizer: sgd}}"
    space = space_of(tmp_path, parameters, "constraints: [{momentum: 0.9}]\n")

    assert space_size(space) == SpaceSize(1 + 1)


def test_of_a_continuous_space_constraints_leave_a_continuous_one(tmp_path: Path) -> None:
    parameters = "lr: {low: 1e-4, high: 1e-2}\n" + PLAIN
    assert math.isinf(space_size(space_of(tmp_path, parameters, FEW_AT_LARGE)).n)

    warmup = "warmup: {low: 0.0, high: 0.5}\nanneal_start: {low: 0.1, high: 0.9}"
    space = space_of(tmp_path, warmup, "constraints: [{warmup: {le: {parameter: anneal_start}}}]\n")
    assert math.isinf(space_size(space).n)


def test_more_than_can_be_looked_at_is_an_upper_bound(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    conditional = PLAIN + "\nneighbour_use: {choices: [stack, mean], when: {neighbours: {ge: 1}}}"
    space = space_of(tmp_path, conditional, FEW_AT_LARGE)
    assert space_size(space) == SpaceSize(10 * (1 + 2 * 2))

    monkeypatch.setattr("ichtune.space.counting.MAX_ENUMERATED", 5)
    assert space_size(space) == SpaceSize(3 * 4 * (1 + 2 * 2), is_exact=False)
    monkeypatch.setattr("ichtune.space.counting.MAX_ENUMERATED", 2)
    assert space_size(space) == SpaceSize(3 * 4 * 3 * 2, is_exact=False)
    assert space_size(space).text == "at most 72 configurations"


def test_the_size_in_words() -> None:
    assert SpaceSize(1).text == "1 configuration"
    assert SpaceSize(2e18).text == "2.0e+18 configurations"


def test_combinations_are_those_of_active_parameters(tmp_path: Path) -> None:
    space = space_of(tmp_path, "optimizer: [adamw, sgd]\nmomentum: {choices: [0.8, 0.9], when: {optimizer: sgd}}")

    assert list(plain_combinations(space)) == [
        {"optimizer": "adamw"},
        {"optimizer": "sgd", "momentum": 0.8},
        {"optimizer": "sgd", "momentum": 0.9},
    ]
    assert n_branches(space, {"optimizer", "momentum"}) == 4
