import json
import math
from dataclasses import fields, replace

import pytest

from ichtune.errors import DataError
from ichtune.recipe import Recipe
from ichtune.search.memory_table import UNMEASURED_MARGIN, MemoryTable, memory_facts, probe

RECIPE = Recipe(architecture="resnet18", image_px=64, batch_size=16)


@pytest.fixture
def path(tmp_path):
    return tmp_path / "search" / "memory.json"


def test_a_peak_is_kept_for_all_recipes_that_take_the_same(path):
    MemoryTable(path, "cpu").put(RECIPE, 812.5)

    again = MemoryTable(path, "cpu")
    assert again.measured(replace(RECIPE, lr=1e-5, epochs=30, seed=8)) == 812.5
    assert again.need_mb(replace(RECIPE, flip=0.1)) == 812.5
    assert again.measured(replace(RECIPE, batch_size=32)) is None
    assert MemoryTable(path, "a GPU").measured(RECIPE) is None


@pytest.mark.parametrize(
    "change",
    [
        {"architecture": "resnet34"},
        {"image_px": 96},
        {"batch_size": 8},
        {"accumulation": 2},
        {"optimizer": "sgd"},
        {"compile": True},
        {"windows": "brain"},
        {"neighbours": 1},
        {"ema_decay": 0.9},
        {"snapshots": 2},
        {"mixup": 0.2},
        {"learnable_windows": True},
        {"pooling": "gem"},
    ],
)
def test_what_decides_memory_is_told_apart(change):
    assert memory_facts(replace(RECIPE, **change)) != memory_facts(RECIPE)


def test_a_peak_that_is_put_again_replaces_the_first(path):
    table = MemoryTable(path, "cpu")
    table.put(RECIPE, 100.0)
    table.put(RECIPE, math.inf)

    assert table.measured(RECIPE) == math.inf
    peaks = json.loads(path.read_text())["peaks"]
    assert [peak["peak_mb"] for peak in peaks] == [None]


def test_what_was_not_measured_is_bounded_by_what_was(path):
    table = MemoryTable(path, "cpu")
    assert table.need_mb(RECIPE) is None

    table.put(RECIPE, 1000.0)
    table.put(replace(RECIPE, batch_size=64), 2500.0)

    margin = 1 + UNMEASURED_MARGIN
    assert table.need_mb(replace(RECIPE, batch_size=32)) == pytest.approx(2000.0 * margin)
    assert table.need_mb(replace(RECIPE, batch_size=48)) == pytest.approx(2500.0 * margin)
    assert table.need_mb(replace(RECIPE, batch_size=64, image_px=128)) == pytest.approx(4 * 2500.0 * margin)
    assert table.need_mb(replace(RECIPE, batch_size=128, accumulation=8)) == pytest.approx(1000.0 * margin)
    assert table.need_mb(replace(RECIPE, batch_size=2)) == pytest.approx(1000.0 * margin)
    assert table.need_mb(replace(RECIPE, architecture="resnet34")) is None


def test_what_is_larger_than_what_did_not_fit_does_not_fit(path):
    table = MemoryTable(path, "cpu")
    table.put(RECIPE, 1000.0)
    table.put(replace(RECIPE, batch_size=64), math.inf)

    assert table.need_mb(replace(RECIPE, batch_size=65)) == math.inf
    assert table.need_mb(replace(RECIPE, batch_size=32)) < math.inf


def test_of_each_architecture_the_ends_are_probed_and_only_once(path):
    table = MemoryTable(path, "cpu")
    sizes = [replace(RECIPE, batch_size=n, lr=n * 1e-4) for n in (16, 4, 64, 32)]
    other = Recipe(architecture="tiny_convnet")

    assert table.to_probe([*sizes, other, replace(other, lr=0.1)]) == [sizes[1], sizes[2], other]
    table.put(sizes[2], 100.0)
    assert table.to_probe([*sizes, other]) == [sizes[1], other]
    assert table.to_probe([]) == []


@pytest.mark.parametrize("text", ["{", '{"peaks": [3]}', "[]", '{"peaks": 3}'])
def test_a_damaged_file_is_named(path, text):
    path.parent.mkdir()
    path.write_text(text)

    with pytest.raises(DataError, match=r"cannot read .*memory.json .*; remove it"):
        MemoryTable(path, "cpu").measured(RECIPE)


def test_peaks_of_a_version_that_knew_other_facts_are_left_out(path):
    table = MemoryTable(path, "cpu")
    table.put(RECIPE, 100.0)
    about = json.loads(path.read_text())
    about["peaks"][0]["recipe"]["a_new_fact"] = 1
    path.write_text(json.dumps(about))

    assert MemoryTable(path, "cpu").measured(RECIPE) is None


def test_a_probe_needs_none_of_the_runs_that_a_recipe_starts_from(session_workspace):
    recipe = Recipe(
        architecture="tiny_convnet",
        image_px=32,
        batch_size=8,
        epochs=3,
        frozen_epochs=1,
        warm_start="0123456789ab",
        pseudo_labels="0123456789ab",
    )

    peak_mb = probe(str(session_workspace.layout.root), recipe.to_dict(), 0, wants_gpu=False)

    assert 100 < peak_mb < 20_000  # all that a process with torch in it holds


def test_facts_are_of_keys_that_recipes_have():
    computed = {"n_slices", "n_channels", "has_average", "mixes"}
    assert set(memory_facts(RECIPE)) - computed <= {spec.name for spec in fields(Recipe)}
