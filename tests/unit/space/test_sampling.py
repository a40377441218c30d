"""Random answers stay where they must, and random recipes differ and break no constraint."""

import math
from pathlib import Path

import pytest

from ichtune.errors import ConfigError
from ichtune.space import Chooser, Proposal, RandomChooser, Space, propose, random_proposals, read_space


def space_of(tmp_path: Path, text: str) -> Space:
    path = tmp_path / "space.yaml"
    path.write_text(text)
    return read_space(path)


def test_numbers_lie_within_bounds_and_on_their_grid() -> None:
    chooser = RandomChooser(1)
    reals = [chooser.real("x", 1e-4, 1e-1, log=True, step=None) for _ in range(400)]
    grid = [chooser.real("x", 0.0, 1.0, log=False, step=0.25) for _ in range(100)]
    whole = [chooser.integer("x", 8, 64, log=True, step=1) for _ in range(400)]
    steps = [chooser.integer("x", 128, 512, log=False, step=128) for _ in range(100)]

    assert 1e-4 <= min(reals) < 2e-4
    assert 5e-2 < max(reals) <= 1e-1
    assert sum(x < math.sqrt(1e-5) for x in reals) == pytest.approx(200, abs=50)
    assert set(grid) == {0.0, 0.25, 0.5, 0.75, 1.0}
    assert (min(whole), max(whole)) == (8, 64)
    assert sum(n < 23 for n in whole) == pytest.approx(200, abs=50)
    assert set(steps) == {128, 256, 384, 512}


def test_the_same_seed_answers_the_same_and_given_answers_change_no_other() -> None:
    def answers(chooser: RandomChooser) -> list[object]:
        return [
            chooser.categorical("a", ("x", "y", "z")),
            chooser.real("b", 0, 1, log=False, step=None),
            chooser.integer("c", 0, 99, log=False, step=1),
        ]

    free, given = answers(RandomChooser(3)), answers(RandomChooser(3, {"b": 7.0}))

    assert free == answers(RandomChooser(3))
    assert free != answers(RandomChooser(4))
    assert given == [free[0], 7.0, free[2]]


SMALL = "parameters:\n  batch_size: [8, 32]\n  image_px: [128, 512]\n"


def test_recipes_are_different_and_end_where_the_space_does(tmp_path: Path) -> None:
    space = space_of(tmp_path, SMALL + "constraints: [{batch_size: 8, when: {image_px: 512}}]\n")
    found = random_proposals(space, 10, seed=1)

    assert len({proposal.recipe.recipe_id for proposal in found}) == len(found) == 3
    assert all(proposal.violated is None for proposal in found)
    assert (32, 512) not in {(p.recipe.batch_size, p.recipe.image_px) for p in found}
    assert random_proposals(space, 2, seed=1) == found[:2]


def test_keys_without_effect_do_not_let_it_look_for_ever(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ichtune.space.sampling.N_TRIES", 50)
    space = space_of(tmp_path, "parameters:\n  neighbours: 0\n  neighbour_stride: [1, 2, 3]\n")

    assert len(random_proposals(space, 3, seed=1)) == 1


def test_values_that_exclude_each_other_between_the_corners_are_passed_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def picky(space: Space, chooser: Chooser) -> Proposal:
        proposal = propose(space, chooser)
        if proposal.recipe.batch_size == 32:
            raise ConfigError("batches of 32 exclude what else there is")
        return proposal

    monkeypatch.setattr("ichtune.space.sampling.propose", picky)
    found = random_proposals(space_of(tmp_path, SMALL), 4, seed=1)

    assert {proposal.recipe.batch_size for proposal in found} == {8}
    assert len(found) == 2
