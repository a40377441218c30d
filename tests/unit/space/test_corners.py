"""The extremes of a space: every one is tried, contradictions are placed, and only values that do meet are paired."""

from pathlib import Path

import pytest

from ichtune.errors import ConfigError
from ichtune.recipe import Recipe
from ichtune.space import Space, check_corners, combinations, propose, read_space
from ichtune.space.corners import allowed_draw, candidates, check_alone, check_constraints, failure
from ichtune.space.domains import Choice, Integer, option_of
from ichtune.space.model import Parameter


def space_of(tmp_path: Path, parameters: str, constraints: str = "[]") -> Space:
    path = tmp_path / "space.yaml"
    lines = "".join(f"  {line}\n" for line in parameters.strip().splitlines())
    path.write_text(f"parameters:\n{lines}constraints: {constraints}\n")
    return read_space(path)


def refuse_wide_sgd(recipe: Recipe) -> None:
    """Stands for a check of a floor above: two keys that do not go together."""
    if recipe.optimizer == "sgd" and recipe.image_px > 250:
        raise ConfigError("sgd and image_px above 250 do not go together")


def test_candidates_are_every_option_and_bound_and_the_numbers_inside() -> None:
    windows = Choice((option_of(((40.0, 80.0),)), option_of(((Integer(30, 60), 80.0),))))

    assert [value for _, value, _ in candidates(Parameter("epochs", Integer(2, 9)))] == [2, 9]
    assert [(value, place) for _, value, place in candidates(Parameter("windows", windows))] == [
        (((40.0, 80.0),), ("windows", "brain")),
        (((30, 80.0),), ("windows", "30..60/80")),
        (((30, 80.0),), ("windows[1][0].center", "low")),
        (((60, 80.0),), ("windows[1][0].center", "high")),
    ]


def test_a_failure_is_the_recipe_s_or_the_check_s() -> None:
    space = Space("any", ())
    assert failure(space, {"lr": 1e-3}) is None
    assert "between" in str(failure(space, {"lr": -1.0}))
    assert failure(space, {"optimizer": "sgd", "image_px": 300}) is None
    assert "do not go together" in str(failure(space, {"optimizer": "sgd", "image_px": 300}, refuse_wide_sgd))
    wide = Space("wide", (), base=Recipe(image_px=300))
    assert "do not go together" in str(failure(wide, {"optimizer": "sgd"}, refuse_wide_sgd))


def test_a_check_sees_every_option_and_bound_beside_the_extremes_of_the_others(tmp_path: Path) -> None:
    space = space_of(tmp_path, "epochs: {low: 2, high: 9}\nbatch_size: [8, 16, 32]")
    seen: set[tuple[int, int]] = set()

    check_corners(space, lambda recipe: seen.add((recipe.epochs, recipe.batch_size)))

    assert seen == {(2, 8), (2, 16), (2, 32), (9, 8), (9, 16), (9, 32)}


@pytest.mark.parametrize(
    ("parameters", "place"),
    [
        ("optimizer: [adamw, sgd]\nimage_px: [64, 300]", r":2:22: parameters\.optimizer\[1\]"),
        ("image_px: [64, 300, 96]\noptimizer: [adamw, sgd]", r":2:18: parameters\.image_px\[1\]"),
        ("lr: [1e-3, 1e-2]\noptimizer: sgd\nimage_px: {low: 64, high: 300}", r":3:14: parameters\.optimizer"),
        ("lr: [1e-3, 1e-2]\nimage_px: 300\noptimizer: sgd", r":3:13: parameters\.image_px"),
    ],
)
def test_a_contradiction_is_placed_at_a_value_without_which_the_rest_would_do(
    tmp_path: Path, parameters: str, place: str
) -> None:
    space = space_of(tmp_path, parameters)
    with pytest.raises(ConfigError, match=rf"space\.yaml{place}: excludes other values .*do not go together.*`when`"):
        check_corners(space, refuse_wide_sgd)


def test_a_condition_that_keeps_values_apart_resolves_a_contradiction(tmp_path: Path) -> None:
    optimizer = "image_px: [64, 300]\noptimizer: {choices: [adamw, sgd], when: {image_px: %s}}"

    check_corners(space_of(tmp_path, optimizer % 64), refuse_wide_sgd)
    with pytest.raises(ConfigError, match="do not go together"):
        check_corners(space_of(tmp_path, optimizer % 300), refuse_wide_sgd)


PAIRS: list[tuple[list[str], list[tuple[str | None, str | None]]]] = [
    (
        ["optimizer: [adamw, sgd]", "tta: [none, flip]"],
        [("adamw", "none"), ("adamw", "flip"), ("sgd", "none"), ("sgd", "flip")],
    ),
    (
        ["optimizer: [adamw, sgd]", "tta: {choices: [none, flip], when: {optimizer: sgd}}"],
        [("adamw", None), ("sgd", "none"), ("sgd", "flip")],
    ),
    (["optimizer: [adamw, sgd]", "lr: [1e-3, 1e-2]"], [("adamw", None), ("sgd", None)]),
    (
        [
            "loss: [bce, focal]",
            "optimizer: {choices: [adamw, sgd], when: {loss: focal}}",
            "tta: {value: flip, when: {loss: bce}}",
        ],
        [(None, "flip"), ("adamw", None), ("sgd", None)],
    ),
    (
        [
            "epochs: {low: 1, high: 9}",
            "optimizer: {value: sgd, when: {epochs: 5}}",
            "tta: {value: flip, when: {epochs: {in: [5, 6]}}}",
        ],
        [(None, None), ("sgd", "flip"), (None, "flip")],
    ),
    (
        [
            "epochs: {low: 1, high: 9}",
            "loss: {choices: [bce, focal], when: {epochs: {ge: 5}}}",
            "tta: {value: flip, when: {loss: focal}}",
        ],
        [(None, None), (None, "flip")],
    ),
]


@pytest.mark.parametrize(("parameters", "pairs"), PAIRS)
def test_combinations_are_the_values_that_meet_in_a_recipe(
    tmp_path: Path, parameters: list[str], pairs: list[tuple[str | None, str | None]]
) -> None:
    found = combinations(space_of(tmp_path, "\n".join(parameters)), ("optimizer", "tta"))

    assert sorted(map(str, ((one.get("optimizer"), one.get("tta")) for one in found))) == sorted(map(str, pairs))
    assert all(None not in one.values() for one in found)


def test_combinations_end_somewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ichtune.space.corners.MAX_COMBINATIONS", 3)
    space = space_of(tmp_path, "optimizer: [adamw, sgd]\ntta: [none, flip]")

    assert len(combinations(space, ("optimizer", "tta"))) == 3


def test_a_space_of_one_recipe_has_one_corner(tmp_path: Path) -> None:
    seen: list[Recipe] = []
    space = space_of(tmp_path, "epochs: 3")

    check_corners(space, seen.append)

    assert set(seen) == {Recipe(epochs=3)}
    assert combinations(space, ("epochs",)) == [{"epochs": 3}]
    assert propose(space, None).recipe == Recipe(epochs=3)  # type: ignore[arg-type]  (there is nothing to ask)


def test_what_a_constraint_excludes_is_not_tried(tmp_path: Path) -> None:
    parameters = "optimizer: [adamw, sgd]\nimage_px: [64, 300]"
    seen: list[Recipe] = []
    space = space_of(tmp_path, parameters, "[{image_px: {le: 64}, when: {optimizer: sgd}}]")

    check_corners(space, lambda recipe: seen.append(recipe) or refuse_wide_sgd(recipe))  # type: ignore[func-returns-value]

    assert {(r.optimizer, r.image_px) for r in seen} == {("adamw", 64), ("adamw", 300), ("sgd", 64)}
    with pytest.raises(ConfigError, match="or say under `constraints`"):
        check_corners(space_of(tmp_path, parameters), refuse_wide_sgd)


def test_beside_a_value_others_are_looked_for_that_constraints_allow(tmp_path: Path) -> None:
    parameters = "batch_size: {low: 1, high: 256}\nimage_px: {low: 16, high: 512}\nepochs: {low: 1, high: 9}"
    middle = "{batch_size: {gt: 1, lt: 256}}"
    space = space_of(tmp_path, parameters, f"[{middle}]")

    drawn = allowed_draw(space, {"image_px": 512}, last=True)
    assert drawn is not None
    assert drawn.plain["image_px"] == 512
    assert 1 < drawn.plain["batch_size"] < 256
    assert allowed_draw(space, {"batch_size": 256}, last=True) is None

    seen: set[int] = set()
    check_corners(space, lambda recipe: seen.add(recipe.image_px))
    assert {16, 512} <= seen


def test_a_value_is_tried_beside_what_constraints_allow(tmp_path: Path) -> None:
    """Beside the first and the last of the others 5 snapshots fail; the constraint brings enough epochs."""
    parameters = "snapshots: [1, 5]\nepochs: [4, 6, 3]"
    with pytest.raises(ConfigError, match="'snapshots' must not exceed"):
        space_of(tmp_path, parameters)
    space = space_of(tmp_path, parameters, "[{epochs: 6, when: {snapshots: 5}}]")
    check_alone(space)


NOTHING = [
    (
        "batch_size: [8, 16]",
        "[{batch_size: {ge: 32}}]",
        r"constraints\[0\]: leaves nothing to search.*batch_size must be",
    ),
    (
        "lr: {low: 1e-4, high: 1e-2}\nweight_decay: {low: 0.1, high: 1.0}",
        "[{lr: {le: 1e-2}}, {weight_decay: {le: {parameter: lr}}}]",
        r"constraints\[1\]: leaves nothing to search.*weight_decay must be at most lr",
    ),
    (
        "batch_size: [8, 16]\nimage_px: [64, 128]",
        "[{batch_size: 8, when: {image_px: 64}}, {batch_size: 16, when: {image_px: 64}}, {image_px: 64}]",
        r":4:14: constraints: leave nothing to search: of 4 combinations none satisfies them all",
    ),
    ("optimizer: adamw", "[{optimizer: sgd}]", r"constraints\[0\]: leaves nothing to search"),
]


@pytest.mark.parametrize(("parameters", "constraints", "message"), NOTHING)
def test_constraints_that_leave_nothing_are_refused(
    tmp_path: Path, parameters: str, constraints: str, message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        space_of(tmp_path, parameters, constraints)


@pytest.mark.parametrize(
    ("parameters", "constraints"),
    [
        (
            "warmup: {low: 0.0, high: 0.5}\nanneal_start: {low: 0.1, high: 0.8}",
            "[{warmup: {le: {parameter: anneal_start}}}]",
        ),
        ("optimizer: [adamw, sgd]\nmomentum: {value: 0.9, when: {optimizer: sgd}}", "[{momentum: {le: 0.5}}]"),
        ("epochs: {low: 1, high: 100000}\nsnapshots: [1, 2]", "[{snapshots: 1, when: {epochs: {lt: 90000}}}]"),
    ],
)
def test_constraints_that_leave_something_are_fine(tmp_path: Path, parameters: str, constraints: str) -> None:
    check_constraints(space_of(tmp_path, parameters, constraints))


def test_combinations_are_those_that_constraints_allow(tmp_path: Path) -> None:
    parameters = "optimizer: [adamw, sgd]\nimage_px: {low: 64, high: 300}\nbatch_size: [8, 16]\ntta: [none, flip]"
    constraints = (
        "[{image_px: {le: 100}, when: {optimizer: sgd}}, {tta: none, when: {batch_size: 16}}, {batch_size: 16}]"
    )
    space = space_of(tmp_path, parameters, constraints)

    assert sorted((one["optimizer"], one["image_px"]) for one in combinations(space, ("optimizer", "image_px"))) == [
        ("adamw", 64),
        ("adamw", 100),
        ("adamw", 300),
        ("sgd", 64),
        ("sgd", 100),
    ]
    assert combinations(space, ("tta",)) == [{"tta": "none"}]


def test_a_base_stands_for_what_is_no_parameter(tmp_path: Path) -> None:
    path = tmp_path / "space.yaml"
    path.write_text("base: {optimizer: sgd}\nparameters:\n  image_px: [64, 300]\n")
    with pytest.raises(ConfigError, match=r":3:18: parameters\.image_px\[1\]: excludes other values"):
        check_corners(read_space(path), refuse_wide_sgd)
