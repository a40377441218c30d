"""Grid and quasi-random sequence: every point is found by its number alone."""

from collections import Counter
from pathlib import Path

import numpy as np
import optuna
import pytest

from ichtune.errors import ConfigError
from ichtune.search.optuna_terms import OptunaChooser
from ichtune.search.point_sets import grid_point, grid_points, quasi_random_point
from ichtune.space import RandomChooser, Space, propose, read_space, space_size


def space_of(tmp_path: Path, text: str) -> Space:
    path = tmp_path / "space.yaml"
    path.write_text(f"version: 1\n{text}")
    return read_space(path)


def recipe_of(space: Space, point: dict) -> str:
    return propose(space, OptunaChooser(optuna.trial.FixedTrial(point))).recipe.recipe_id


CONDITIONAL = """
parameters:
  optimizer: [adamw, sgd, lion]
  momentum: {low: 0.8, high: 0.95, step: 0.05, when: {optimizer: sgd}}
  beta1: {choices: [0.9, 0.95], when: {optimizer: {ne: sgd}}}
  batch_size: {low: 16, high: 48, step: 16}
"""


@pytest.mark.filterwarnings("error")  # Optuna warns of values beyond a range
@pytest.mark.parametrize(
    ("text", "n"),
    [
        ("parameters:\n  epochs: 3\n", 1),
        ("parameters:\n  lr: [1e-3, 2e-3]\n  windows: [brain, bone, subdural]\n", 6),
        ("parameters:\n  dropout: {low: 0.0, high: 0.5, step: 0.1}\n  neighbours: [0, 1]\n", 12),
        ("parameters:\n  frozen_epochs: {low: 1, high: 4}\n  epochs: 9\n", 4),
        ("parameters:\n  batch_size: {low: 8, high: 12, log: true}\n", 5),
        (
            "parameters:\n  windows:\n    - brain\n    - [[{low: 30, high: 50, step: 10}, 80], [80, 200]]\n",
            4,
        ),
        (CONDITIONAL, 3 * (4 + 2 * 2)),
        (CONDITIONAL + "constraints:\n  - {batch_size: {le: 32}, when: {optimizer: sgd}}\n", 3 * 4 + 2 * 4),
    ],
)
def test_a_grid_is_exactly_the_space(tmp_path, text, n):
    space = space_of(tmp_path, text)

    points = list(grid_points(space))

    assert len(points) == n == space_size(space).n
    assert len({recipe_of(space, point) for point in points}) == n
    assert [grid_point(space, number) for number in range(n)] == points
    assert grid_point(space, n) is None


def test_the_last_parameter_of_the_file_varies_fastest(tmp_path):
    space = space_of(tmp_path, "parameters:\n  neighbours: [0, 1]\n  dropout: {low: 0.0, high: 0.2, step: 0.1}\n")

    assert [(p["neighbours"], round(p["dropout"], 3)) for p in grid_points(space)] == [
        ("0", 0.0),
        ("0", 0.1),
        ("0", 0.2),
        ("1", 0.0),
        ("1", 0.1),
        ("1", 0.2),
    ]


@pytest.mark.parametrize(
    "line", ["lr: {low: 1e-4, high: 1e-2, log: true}", "windows: [brain, [[{low: 30.5, high: 60.5}, 80]]]"]
)
def test_a_continuous_parameter_has_no_grid(tmp_path, line):
    with pytest.raises(ConfigError, match=r"a grid needs choices or a step, got all numbers from"):
        grid_point(space_of(tmp_path, f"parameters:\n  {line}\n"), 0)


def test_points_whose_values_exclude_each_other_are_left_out(tmp_path, monkeypatch):
    space = space_of(tmp_path, "parameters:\n  lr: [1e-3, 2e-3, 3e-3]\n")

    def proposing(space, chooser):
        proposal = propose(space, chooser)
        if proposal.recipe.lr == 2e-3:
            raise ConfigError("they exclude each other")
        return proposal

    monkeypatch.setattr("ichtune.search.point_sets.propose", proposing)

    assert [point["lr"] for point in grid_points(space)] == ["0.001", "0.003"]


def test_a_quasi_random_point_is_a_function_of_its_number_and_the_seed(tmp_path):
    space = space_of(tmp_path, CONDITIONAL)

    points = [quasi_random_point(space, number, 7) for number in range(8)]

    assert [quasi_random_point(space, number, 7) for number in reversed(range(8))] == points[::-1]
    assert quasi_random_point(space, 3, 8) != points[3]


def test_given_values_stay_and_what_depends_on_them_is_asked_for(tmp_path):
    space = space_of(tmp_path, CONDITIONAL)

    points = [quasi_random_point(space, n, 7, {"optimizer": "sgd", "batch_size": 48}) for n in range(8)]

    assert all(p["optimizer"] == "sgd" and p["batch_size"] == 48 and 0.8 <= p["momentum"] <= 0.95 for p in points)
    assert all("beta1" not in p for p in points)
    assert len({p["momentum"] for p in points}) > 2


def test_a_space_of_one_recipe_has_one_point(tmp_path):
    assert quasi_random_point(space_of(tmp_path, "parameters:\n  epochs: 3\n"), 5, 7) == {}


def test_every_point_lies_in_its_space(tmp_path):
    space = space_of(
        tmp_path,
        "parameters:\n  lr: {low: 1e-4, high: 1e-2, log: true}\n  batch_size: {low: 1, high: 100, log: true}\n"
        "  dropout: {low: 0.1, high: 0.4}\n  weight_decay: {low: 0.0, high: 0.3, step: 0.1}\n  image_px: [64, 128]\n",
    )

    for number in range(64):
        point = quasi_random_point(space, number, 7)
        recipe = propose(space, OptunaChooser(optuna.trial.FixedTrial(point))).recipe
        assert 1e-4 <= recipe.lr <= 1e-2
        assert 1 <= recipe.batch_size <= 100
        assert 0.1 <= recipe.dropout <= 0.4
        assert recipe.weight_decay in (0.0, 0.1, 0.2, 0.3)


TWO = "parameters:\n  dropout: {low: 0.0, high: 0.5}\n  label_smoothing: {low: 0.0, high: 0.4}\n"
#: With a parent that is drawn first, and a child that is there half of the time.
NESTED = """parameters:
  optimizer: [adamw, sgd]
  dropout: {low: 0.0, high: 0.5}
  label_smoothing: {low: 0.0, high: 0.4, when: {optimizer: sgd}}
"""


def spread(space: Space, points: list[dict]) -> float:
    """Discrepancy of the two numbers among the points that have both: 0 is even."""
    from scipy.stats.qmc import discrepancy

    both = [(p["dropout"] / 0.5, p["label_smoothing"] / 0.4) for p in points if "label_smoothing" in p]
    return discrepancy(np.array(both))


@pytest.mark.parametrize("text", [TWO, NESTED])
def test_a_quasi_random_sequence_covers_a_space_better_than_chance(tmp_path, text):
    space = space_of(tmp_path, text)

    quasi = [spread(space, [quasi_random_point(space, n, seed) for n in range(64)]) for seed in range(3)]
    chance = []
    for seed in range(5):
        chooser = RandomChooser(seed)
        chance.append(spread(space, [propose(space, chooser).parameters for _ in range(64)]))

    assert max(quasi) < 0.6 * np.median(chance)


def test_choices_are_taken_equally_often(tmp_path):
    space = space_of(tmp_path, "parameters:\n  windows: [brain, bone, subdural]\n  lr: [1e-3, 2e-3]\n")

    points = [quasi_random_point(space, number, 7) for number in range(36)]

    assert set(Counter(p["windows"] for p in points).values()) <= {11, 12, 13}
    assert set(Counter(p["lr"] for p in points).values()) <= {17, 18, 19}
