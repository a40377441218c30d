"""What each trial of a search asks for: as the space says, or as was measured."""

import json
from dataclasses import replace

import pytest

from ichtune.errors import ConfigError
from ichtune.recipe import Recipe
from ichtune.search import packer
from ichtune.search.nodes import Node
from ichtune.search.packer import MEMORY_FILE, Packer, packing_here, sampled_recipes
from ichtune.space import Resources
from ichtune.workspace import Workspace

SMALL = Recipe(architecture="tiny_convnet", epochs=9, batch_size=16)
LARGE = replace(SMALL, batch_size=64)
GIB = 1024.0


@pytest.fixture
def cluster(monkeypatch):
    """Instead of a connected Ray: nodes as the test says; returns whether their GPUs were asked for their memory."""
    asked = []

    def use(*nodes):
        monkeypatch.setattr(packer, "look_at_nodes", lambda gpu_memory: asked.append(gpu_memory) or list(nodes))
        return asked

    return use


@pytest.fixture
def packed(tmp_path):
    def make(resources: Resources, *recipes: Recipe) -> Packer:
        return Packer(Workspace(tmp_path), resources, tmp_path, recipes, 0)

    return make


def test_without_gpus_a_trial_asks_for_its_cores_and_pins_as_many_threads(cluster, packed):
    asked = cluster(Node(n_cpus=8))
    made = packed(Resources(cpu=2))

    assert made.n_concurrent == 4
    assert made.request(SMALL) == {
        "resources": {"cpu": 2.0},
        "n_threads": 2,
        "wants_gpu": False,
        "gpu_memory_mb": None,
    }
    assert asked == [False]


def test_with_gpus_trials_share_them(cluster, packed):
    cluster(Node(n_cpus=16, n_gpus=2))
    made = packed(Resources(gpu=0.5, cpu=1))

    assert made.n_concurrent == 4
    assert made.request(SMALL)["resources"] == {"gpu": 0.5, "cpu": 1.0}
    assert made.request(SMALL)["wants_gpu"]


def test_a_trial_that_never_fits_is_refused(cluster, packed):
    cluster(Node(n_cpus=2))

    with pytest.raises(ConfigError, match="asks for"):
        packed(Resources(cpu=8))


@pytest.fixture
def measured(monkeypatch):
    """Instead of probes: 4 GiB for a small batch, 12 for a large one; returns the recipes that were measured."""
    recipes = []

    def measure(table, work, asked, fold, node, stage=None):
        recipes.extend(asked)
        for recipe in asked:
            table.put(recipe, (4 if recipe.batch_size == 16 else 12) * GIB)
        return ["one could not be measured"]

    monkeypatch.setattr(packer, "measure", measure)
    return recipes


def test_auto_measures_once_and_packs_by_what_each_recipe_takes(cluster, packed, measured, tmp_path):
    asked = cluster(Node(n_cpus=16, n_gpus=1, gpu_name="H", gpu_memory_mb=16 * GIB))

    made = packed(Resources(gpu="auto", cpu=1), SMALL, LARGE)

    assert asked == [True]
    assert {recipe.batch_size for recipe in measured} == {16, 64}
    assert [made.request(recipe)["resources"]["gpu"] for recipe in (SMALL, LARGE)] == [0.25, 1.0]
    assert made.n_concurrent == 1  # of middling size
    assert made.notes == ["one could not be measured"]
    assert len(json.loads((tmp_path / MEMORY_FILE).read_text())["peaks"]) == 2
    measured.clear()
    packed(Resources(gpu="auto", cpu=1), SMALL, LARGE)
    assert measured == [], "what was measured in an earlier run of the search was measured again"


def test_gpus_that_are_only_declared_are_not_measured(cluster, packed, measured):
    cluster(Node(n_cpus=16, n_gpus=1))

    made = packed(Resources(gpu="auto", cpu=1), SMALL)

    assert measured == made.notes == []
    assert made.request(SMALL)["resources"]["gpu"] == 1.0


def test_recipes_of_a_space_are_drawn_by_its_seed(space):
    drawn = sampled_recipes(space)

    assert drawn == sampled_recipes(space)
    assert 1 < len({recipe.recipe_id for recipe in drawn}) <= packer.N_DRAWN
    assert drawn != sampled_recipes(replace(space, search=replace(space.search, seed=8)))


def test_this_machine_says_what_it_would_run(monkeypatch):
    n, text = packing_here(Resources(cpu=1))

    assert n >= 1
    assert "1 CPU" in text
    assert "measured" in packing_here(Resources(gpu="auto"))[1]
