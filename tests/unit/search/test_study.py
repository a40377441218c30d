from dataclasses import replace

import pytest

from ichtune.errors import ConfigError, ConflictError, DataError
from ichtune.locks import only_one
from ichtune.search.cluster import Cluster
from ichtune.search.ledger import FAILED, FINISHED, INTERRUPTED, STOPPED
from ichtune.search.study import (
    SearchOptions,
    SearchResult,
    check_space,
    inputs_of,
    n_concurrent,
    run_search,
    trial_resources,
    wants_gpu,
)
from ichtune.space import FoldSettings, Resources, read_space
from ichtune.training.devices import best_device, device_for


def test_a_trial_asks_for_a_share_of_a_gpu_only_where_there_are_gpus():
    asked = Resources(gpu=0.5, cpu=2)

    assert trial_resources(asked, n_gpus=4) == {"gpu": 0.5, "cpu": 2.0}
    assert trial_resources(asked, n_gpus=0) == {"cpu": 2.0}


@pytest.mark.parametrize(
    ("asked", "cpus", "gpus", "fits"),
    [({"cpu": 0.5}, 2, 0, 4), ({"cpu": 0.1}, 1, 0, 10), ({"gpu": 0.5, "cpu": 4}, 16, 1, 2), ({"cpu": 2}, 3, 0, 1)],
)
def test_trials_at_a_time_are_what_the_scarcest_resource_holds(asked, cpus, gpus, fits):
    assert n_concurrent(asked, Cluster("", "", cpus, gpus, joined=False)) == fits


def test_a_trial_that_never_fits_is_refused_instead_of_waited_for():
    with pytest.raises(ConfigError, match=r"asks for \{'cpu': 8\.0\}, but the cluster has 2 CPUs"):
        n_concurrent({"cpu": 8.0}, Cluster("", "", 2, 0, joined=False))


def test_a_space_that_fits_the_workspace_passes(session_workspace, space):
    check_space(session_workspace, space)


def test_data_without_labels_is_refused_before_ray_is_started(fake_workspace, space):
    workspace = fake_workspace()
    workspace.slices["is_labelled"] = False

    with pytest.raises(DataError, match=r"no labelled slices.*--labels CSV"):
        run_search(workspace, space, SearchOptions())

    assert not workspace.layout.searches.exists()


def test_a_crop_that_was_not_prepared_is_refused_before_ray_is_started(fake_workspace, tmp_path):
    workspace = fake_workspace()
    path = tmp_path / "crops.yaml"
    path.write_text("version: 1\nparameters:\n  epochs: 3\n  crop: [none, head]\n")

    with pytest.raises(DataError, match=r"no cache with crop 'head'.*--size 224 --crop head --folds 3 --seed 7`"):
        run_search(workspace, read_space(path), SearchOptions())

    assert not workspace.layout.searches.exists()


@pytest.mark.parametrize(
    ("lines", "inputs"),
    [
        ("epochs: 3", [(224, "none")]),
        ("crop: head", [(224, "head")]),
        ("crop: [none, head]\n  image_px: [128, 256]", [(256, "head"), (256, "none")]),
        ("image_px: {low: 64, high: 320, step: 32}", [(320, "none")]),
        (
            "architecture: [tiny_convnet, resnet18]\n  crop: {value: head, when: {architecture: resnet18}}",
            [(224, "head"), (224, "none")],
        ),
        ("crop: [none, tight]\n  lr: [1e-3, 2e-3]\nstart_with:\n  - {crop: tight}", [(224, "none"), (224, "tight")]),
    ],
)
def test_the_inputs_of_a_space_are_all_that_it_may_ask_for(tmp_path, lines, inputs):
    path = tmp_path / "space.yaml"
    path.write_text(f"version: 1\nparameters:\n  {lines}\n")

    assert inputs_of(read_space(path)) == inputs


def test_a_search_that_runs_already_is_not_joined_by_a_second(fake_workspace, space):
    workspace = fake_workspace()
    folder = workspace.layout.searches / space.name

    with only_one(folder / ".lock", "held"), pytest.raises(ConflictError, match="is running already"):
        run_search(workspace, space, SearchOptions())


def test_a_trial_computes_where_it_asked_to():
    assert not wants_gpu({"cpu": 1.0})
    assert not wants_gpu({"gpu": 0.0, "cpu": 1.0})
    assert wants_gpu({"gpu": 0.5, "cpu": 1.0})
    assert device_for(False).type == "cpu"
    assert device_for(True) == best_device()


def test_other_folds_than_the_workspace_has_are_refused(session_workspace, space):
    with pytest.raises(ConfigError, match="asks for 5 folds"):
        check_space(session_workspace, replace(space, folds=FoldSettings(k=5)))


def test_a_fold_beyond_the_plan_is_refused(session_workspace, space):
    with pytest.raises(ConfigError, match=r"search_on names folds \[7\]"):
        check_space(session_workspace, replace(space, folds=FoldSettings(search_on=(7,))))


@pytest.mark.parametrize(
    ("weights", "place", "reason"),
    [
        ("true", r"space.yaml:4:\d+.*", "has no pretrained weights"),
        ("[false, nowhere.safetensors]", "", "no such file"),
    ],
)
def test_pretrained_weights_that_are_not_there_are_missed_before_a_trial(
    session_workspace, tmp_path, weights, place, reason
):
    path = tmp_path / "space.yaml"
    architecture = "tiny_convnet" if weights == "true" else "test_resnet"
    path.write_text(
        f"version: 1\nparameters:\n  architecture: {architecture}\n  pretrained: {weights}\n  image_px: 32\n"
    )

    with pytest.raises((ConfigError, DataError), match=rf"{place}{reason}"):
        check_space(session_workspace, read_space(path))


@pytest.mark.parametrize(
    ("line", "wrong", "meant"),
    [
        ("architecture: tiny_convnett", "tiny_convnett", "tiny_convnet"),
        ("architecture: [tiny_convnet, resnet188]", "resnet188", "resnet18"),
        ("lr_schedule: flat_cosin", "flat_cosin", "flat_cosine"),
        ("optimizer: [adamw, adammw]", "adammw", "adamw"),
        ("augmentation: affin", "affin", "affine"),
        ("tta: flipp", "flipp", "flip"),
        ("loss: bcee", "bcee", "bce"),
    ],
)
def test_a_name_that_no_table_knows_is_refused_where_it_stands(session_workspace, tmp_path, line, wrong, meant):
    path = tmp_path / "space.yaml"
    path.write_text(f"version: 1\nparameters:\n  epochs: 3\n  {line}\n")

    with pytest.raises(ConfigError, match=rf"space.yaml:4:\d+.*{wrong}.*Did you mean '{meant}'"):
        check_space(session_workspace, read_space(path))


def test_a_result_knows_its_best_trial_and_whether_it_is_complete(record):
    records = [record(0, [0.3, 0.2], FINISHED), record(1, [0.1], STOPPED), record(2, [0.05], FAILED)]

    assert SearchResult("x", records, 3).best.trial == 1
    assert SearchResult("x", records, 3).complete
    assert not SearchResult("x", records, 4).complete
    assert not SearchResult("x", [*records, record(3, [0.5], INTERRUPTED)], 4).complete
