"""Every shipped search space reads, proposes recipes, names what exists, and says what it is for."""

import random
from pathlib import Path

import pytest
import timm

from ichtune.models.architectures import ARCHITECTURES
from ichtune.shipped import shipped_files
from ichtune.space import Space, propose, read_space
from ichtune.space.domains import Choice

SPACES = shipped_files("search_spaces")


class RandomChooser:
    def __init__(self, seed: int) -> None:
        self._random = random.Random(seed)

    def categorical(self, name: str, choices: tuple[str, ...]) -> str:
        return self._random.choice(choices)

    def real(self, name: str, low: float, high: float, *, log: bool, step: float | None) -> float:
        return self._random.uniform(low, high)

    def integer(self, name: str, low: int, high: int, *, log: bool, step: int) -> int:
        return self._random.randrange(low, high + 1, step)


@pytest.fixture(params=sorted(SPACES))
def path(request: pytest.FixtureRequest) -> Path:
    return SPACES[request.param]


@pytest.fixture
def space(path: Path) -> Space:
    return read_space(path)


def test_there_are_some() -> None:
    assert {"windows", "demo", "seed"} <= set(SPACES)


def test_it_leaves_something_to_search(space: Space) -> None:
    assert space.searched
    recipes = {propose(space, RandomChooser(seed)).recipe.recipe_id for seed in range(20)}
    assert len(recipes) == 20


def test_every_architecture_exists(space: Space) -> None:
    parameter = space.parameter("architecture")
    assert parameter is not None
    assert isinstance(parameter.domain, Choice)
    known = set(ARCHITECTURES) | set(timm.list_models())
    assert set(parameter.domain.labels) <= known


def test_every_trial_ends_within_its_rungs(space: Space) -> None:
    early_stop = space.search.early_stop
    assert early_stop.max is not None
    assert all(propose(space, RandomChooser(seed)).recipe.epochs <= early_stop.max for seed in range(20))


def test_its_header_says_what_it_is(path: Path) -> None:
    header = [line for line in path.read_text().splitlines() if line.startswith("#")]
    for word in ("Purpose:", "Command:", "Cost:", "Result:"):
        assert any(word in line for line in header), f"{path.name} has no {word}"


def test_its_command_finds_it(path: Path) -> None:
    assert f"--space {path.name}" in path.read_text()
