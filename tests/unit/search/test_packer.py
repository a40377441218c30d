"""What each trial of a search asks for: as the space says, or as was measured."""

import json
import time
from contextlib import nullcontext
from dataclasses import replace

import pytest

from ichtune.errors import ConfigError
from ichtune.recipe import Recipe
from ichtune.search import packer
from ichtune.search.memory_table import PROBE_TIMEOUT_S
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
        monkeypatch.setattr(packer, "look_at_nodes", lambda gpu_memory=False: asked.append(gpu_memory) or list(nodes))
        return asked

    return use


@pytest.fixture
def packed(tmp_path):
    def make(resources: Resources, *recipes: Recipe, **options) -> Packer:
        return Packer(Workspace(tmp_path), resources, tmp_path, recipes, 0, **options)

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

    def measure(table, work, asked, fold, node, stage=None, timeout_s=None):
        assert 0.0 <= timeout_s <= PROBE_TIMEOUT_S
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
    assert sampled_recipes(replace(space, level=2, parameters=(), start_with=())) == []  # nothing to measure

    assert drawn == sampled_recipes(space)
    assert 1 < len({recipe.recipe_id for recipe in drawn}) <= packer.N_DRAWN
    assert drawn != sampled_recipes(replace(space, search=replace(space.search, seed=8)))


HEAD = Node(n_cpus=0)


@pytest.fixture
def no_gpu_comes(monkeypatch):
    """Instead of waiting for a GPU: none comes; returns what was said and how long it would have been waited for."""
    waited = []
    monkeypatch.setattr(packer, "wait_for_gpu", lambda note, timeout_s: waited.append(timeout_s) or note("none came"))
    return waited


@pytest.mark.parametrize("nodes", [[HEAD], [HEAD, Node(n_cpus=8)]])
def test_on_a_cluster_that_grows_a_trial_asks_for_what_the_space_says_whatever_is_there_yet(cluster, packed, nodes):
    cluster(*nodes)
    made = packed(Resources(gpu=0.5, cpu=2), grows=True)

    assert made.request(SMALL)["resources"] == {"gpu": 0.5, "cpu": 2.0}
    assert made.n_concurrent == 0  # no node with a GPU is there yet, and none is waited for here
    assert packed(Resources(gpu=0, cpu=2), grows=True).request(SMALL)["resources"] == {"cpu": 2.0}
    with pytest.raises(ConfigError, match="asks for") if nodes == [HEAD] else nullcontext():
        packed(Resources(gpu=0.5, cpu=2))  # one that cannot grow has the CPUs that it has, and says so at once


def test_what_fits_is_looked_at_anew_where_nodes_come_and_go(cluster, packed):
    cluster(HEAD)
    made = packed(Resources(gpu=0.5, cpu=1), grows=True)
    assert made.n_that_fit() == 0

    cluster(HEAD, Node(n_cpus=4, n_gpus=1), Node(n_cpus=4, n_gpus=1))
    assert made.n_that_fit() == 4


def test_to_measure_on_a_gpu_one_is_waited_for(cluster, packed, measured, monkeypatch):
    cluster(HEAD)
    waited = []

    def comes(note, timeout_s):
        waited.append(timeout_s)
        cluster(HEAD, Node(n_cpus=16, n_gpus=1, gpu_name="H", gpu_memory_mb=16 * GIB))
        return True

    monkeypatch.setattr(packer, "wait_for_gpu", comes)
    made = packed(Resources(gpu="auto", cpu=1), SMALL, LARGE, grows=True, ends_s=time.monotonic() + 70.0)

    assert waited == [pytest.approx(70.0, abs=30.0)]
    assert {recipe.batch_size for recipe in measured} == {16, 64}
    assert made.request(SMALL)["resources"]["gpu"] == 0.25


@pytest.mark.parametrize("resources", [Resources(gpu="auto", cpu=1), Resources(gpu_memory_mb=4 * GIB)])
def test_where_no_gpu_comes_each_trial_asks_for_a_whole_one(cluster, packed, measured, no_gpu_comes, resources):
    cluster(HEAD)
    said = []
    made = packed(resources, SMALL, grows=True, note=said.append)

    assert said == ["none came"]
    assert no_gpu_comes == [PROBE_TIMEOUT_S]
    assert measured == []
    assert made.request(SMALL)["resources"] == {"gpu": 1.0, "cpu": 1.0}


def test_this_machine_says_what_it_would_run(monkeypatch):
    n, text = packing_here(Resources(cpu=1))

    assert n >= 1
    assert "1 CPU" in text
    assert "measured" in packing_here(Resources(gpu="auto"))[1]


@pytest.mark.parametrize(
    ("resources", "asked"),
    [(Resources(gpu=0, cpu=4), "4 CPU"), (Resources(gpu_memory_mb=80 * GIB), "1 GPU and 1 CPU, at most 81920 MiB")],
)
def test_what_this_machine_does_not_hold_is_said_and_no_error(monkeypatch, resources, asked):
    monkeypatch.setattr(packer, "_this_machine", lambda: Node(n_cpus=2, n_gpus=1, gpu_memory_mb=16 * GIB))

    n, text = packing_here(resources)

    assert n == 1
    assert text.startswith(asked)
    assert "which this machine does not have: a cluster may" in text
