"""``members: all``: fixed to the runs that there are, and then as if they had been named."""

from pathlib import Path

import pytest

from ichtune.errors import ConfigError
from ichtune.space import RandomChooser, Space, propose, read_space, space_size
from ichtune.space.members import learns_from_all, members_named, with_members

A, B, C = "aaaaaaaaaaaa", "bbbbbbbbbbbb", "cccccccccccc"


def read(tmp_path: Path, parameters: str, more: str = "") -> Space:
    path = tmp_path / "space.yaml"
    path.write_text(f"level: 2\nparameters: {{model: [gru, lstm], {parameters}}}\n{more}")
    return read_space(path)


def members_of(space: Space) -> set[object]:
    return {propose(space, RandomChooser(seed)).recipe.members for seed in range(20)}


@pytest.mark.parametrize(
    ("parameters", "more"), [("", ""), ("members: all", ""), ("members: [all]", ""), ("", "base: {members: all}\n")]
)
def test_all_are_the_runs_that_there_are(tmp_path: Path, parameters: str, more: str) -> None:
    space = read(tmp_path, parameters, more)
    settled = with_members(space, [B, A])

    assert learns_from_all(space)
    assert not learns_from_all(settled)
    assert members_of(settled) == {(A, B)}
    assert members_named(settled) == {A, B}
    assert with_members(settled, [A, B, C]) == settled


def test_a_space_that_names_the_runs_is_the_same_search(tmp_path: Path) -> None:
    settled = with_members(read(tmp_path, ""), [B, A])

    assert settled.space_id == read(tmp_path, f"members: [{B}, {A}]").space_id
    assert settled.space_id != with_members(read(tmp_path, ""), [B, A, C]).space_id
    assert read(tmp_path, "").space_id != settled.space_id


def test_runs_may_be_searched(tmp_path: Path) -> None:
    space = read(tmp_path, f"members: [all, [{A}], [{B}, {A}]]")

    assert space_size(space).n == 6
    assert members_of(with_members(space, [A, B, C])) == {(A, B, C), (A,), (A, B)}
    assert members_of(with_members(space, [A, B])) == {(A,), (A, B)}
    assert space_size(with_members(space, [A, B])).n == 4  # what is the same is tried once


def test_conditions_constraints_and_starts_go_along(tmp_path: Path) -> None:
    space = read(
        tmp_path,
        f"members: [all, [{A}]], hidden: {{choices: [16, 32], when: {{members: all}}}}",
        "constraints: [{model: gru, when: {members: {in: [all]}}}]\nstart_with: [{members: all, model: gru}]\n",
    )
    settled = with_members(space, [A, B])
    proposals = [propose(settled, RandomChooser(seed)) for seed in range(30)]

    assert {len(p.recipe.members) for p in proposals if "hidden" in p.parameters} == {2}
    assert {len(p.recipe.members) for p in proposals if "hidden" not in p.parameters} == {1}
    assert {(p.recipe.model, len(p.recipe.members)) for p in proposals if p.violated} == {("lstm", 2)}
    assert settled.start_with == ({"members": (A, B), "model": "gru"},)


def test_where_a_condition_fails_the_default_is_meant(tmp_path: Path) -> None:
    space = read(tmp_path, f"members: {{value: [{A}], when: {{model: lstm}}}}")

    assert learns_from_all(space)
    assert members_of(with_members(space, [A, B])) == {(A,), (A, B)}


def test_names_of_recipes_become_their_ids(tmp_path: Path) -> None:
    from ichtune.recipe_file import read_recipe

    assert members_named(read(tmp_path, f"members: [exp_00, {A}]")) == {A, read_recipe("exp_00").recipe_id}
    with pytest.raises(ConfigError, match=r"space.yaml:2:\d+: parameters.members: .*exp_0x"):
        read(tmp_path, "members: [exp_0x]")


@pytest.mark.parametrize("value", ["[]", "everything", "3", f"[{A}, 12]", "[[]]"])
def test_anything_else_is_refused(tmp_path: Path, value: str) -> None:
    with pytest.raises(ConfigError, match=r"space.yaml:2:\d+: parameters.members"):
        read(tmp_path, f"members: {value}")


def test_a_space_of_networks_has_none(tmp_path: Path) -> None:
    path = tmp_path / "space.yaml"
    path.write_text("parameters: {lr: [1e-3, 1e-2]}\n")
    with pytest.raises(TypeError, match="none of the second level"):
        learns_from_all(read_space(path))
