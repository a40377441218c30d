"""What is refused before a search spends anything, where it stands in the file."""

from dataclasses import replace
from pathlib import Path

import pytest
import timm
from safetensors.torch import save_file

from ichtune.errors import ConfigError, DataError
from ichtune.recipe import Recipe
from ichtune.search.checks import check_data, check_space, inputs_of
from ichtune.space import EarlyStop, FoldSettings, Space, read_space
from ichtune.training.checks import check_weights


def test_a_space_that_fits_the_workspace_passes(session_workspace, space):
    check_space(session_workspace, space)


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


def write_space(tmp_path: Path, *lines: str) -> Space:
    path = tmp_path / "space.yaml"
    path.write_text("version: 1\nparameters:\n" + "".join(f"  {line}\n" for line in lines))
    return read_space(path)


@pytest.fixture
def weights_of_test_resnet(tmp_path: Path) -> str:
    save_file(timm.create_model("test_resnet").state_dict(), tmp_path / "weights.safetensors")
    return "weights.safetensors"


@pytest.mark.parametrize(
    "lines",
    [
        (
            "architecture: [tiny_convnet, test_resnet]",
            "pretrained: {choices: [WEIGHTS], when: {architecture: test_resnet}}",
        ),
        (
            "architecture: [tiny_convnet, test_resnet]",
            "pretrained: {choices: [false, WEIGHTS], when: {architecture: [test_resnet]}}",
        ),
        ("pretrained: [false, WEIGHTS]", "architecture: {value: test_resnet, when: {pretrained: WEIGHTS}}"),
        (
            "loss: [bce, focal]",
            "architecture: {choices: [test_resnet, tiny_convnet], when: {loss: [bce, focal]}}",
            "pretrained: {value: WEIGHTS, when: {loss: focal, architecture: {ne: tiny_convnet}}}",
        ),
    ],
)
def test_only_networks_and_weights_that_meet_are_tried(
    session_workspace, tmp_path, monkeypatch, weights_of_test_resnet, lines
):
    built = []
    monkeypatch.setattr(
        "ichtune.search.first_level.check_weights", lambda recipe: (built.append(recipe), check_weights(recipe))
    )
    written = [line.replace("WEIGHTS", weights_of_test_resnet) for line in lines]

    check_space(session_workspace, write_space(tmp_path, "image_px: 32", *written))

    assert [(recipe.architecture, recipe.pretrained) for recipe in built] == [
        ("test_resnet", str(tmp_path / weights_of_test_resnet))
    ]


def test_networks_and_weights_that_meet_under_some_condition_are_tried(
    session_workspace, tmp_path, weights_of_test_resnet
):
    space = write_space(
        tmp_path,
        "image_px: 32",
        "loss: [bce, focal]",
        "architecture: {choices: [tiny_convnet, test_resnet], when: {loss: focal}}",
        f"pretrained: {{value: {weights_of_test_resnet}, when: {{architecture: [test_resnet, tiny_convnet]}}}}",
    )
    with pytest.raises(ConfigError, match=r"space.yaml:6:\d+: parameters.pretrained.*'tiny_convnet' has no pretrained"):
        check_space(session_workspace, space)


def test_a_network_is_tried_at_a_size_that_it_is_used_with(
    session_workspace, tmp_path, monkeypatch, weights_of_test_resnet
):
    built = []
    monkeypatch.setattr("ichtune.search.first_level.check_weights", built.append)
    space = write_space(
        tmp_path,
        "architecture: [tiny_convnet, test_resnet]",
        "image_px: {choices: [64, 32, 96], when: {architecture: tiny_convnet}}",
        f"pretrained: [false, {weights_of_test_resnet}]",
    )

    check_space(session_workspace, space)

    assert {(recipe.architecture, recipe.image_px) for recipe in built} == {("tiny_convnet", 32), ("test_resnet", 224)}


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        (
            ("optimizer: [adamw, sgd]", "beta1: {low: 0.8, high: 0.95}"),
            r":3:22: parameters.optimizer\[1\]: excludes other values .*'beta1' is none that optimizer 'sgd' reads",
        ),
        (("epochs: 3", "optimizer: sgd", "eps: [null, 1e-6]"), r":4:14: parameters.optimizer: .*'eps' is none that"),
        (("flip_slices: 0.5", "lr: [1e-3, 1e-2]"), r":3:16: parameters.flip_slices: .*got neighbours 0"),
        (("neighbours: [1, 0]", "flip_slices: 0.5"), r":4:16: parameters.flip_slices: .*got neighbours 0"),
        (
            ("neighbours: 1", "neighbour_side: [both, above]", "flip_slices: {low: 0.0, high: 0.5}"),
            r":4:26: parameters.neighbour_side\[1\]: .*neighbour_side above",
        ),
    ],
)
def test_keys_that_contradict_each_other_are_refused_where_they_stand(session_workspace, tmp_path, lines, message):
    with pytest.raises(ConfigError, match=rf"space.yaml{message}"):
        check_space(session_workspace, write_space(tmp_path, *lines))


def test_keys_that_conditions_keep_apart_do_not_contradict_each_other(session_workspace, tmp_path):
    space = write_space(
        tmp_path,
        "optimizer: [adamw, sgd, lion]",
        "beta1: {choices: [null, 0.95], when: {optimizer: {ne: sgd}}}",
        "eps: {low: 1e-8, high: 1e-4, log: true, when: {optimizer: adamw}}",
        "neighbours: [0, 1]",
        "neighbour_side: {choices: [both, above], when: {neighbours: 1}}",
        "flip_slices: {low: 0.0, high: 0.5, when: {neighbours: 1, neighbour_side: both}}",
    )
    check_space(session_workspace, space)


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


def test_an_algorithm_and_a_scheduler_that_no_table_knows_are_refused_where_they_stand(session_workspace, tmp_path):
    path = tmp_path / "space.yaml"
    text = "version: 1\nsearch:\n  algorithm: tpee\n  early_stop: {type: ashaa, max: 3}\nparameters:\n  epochs: 3\n"
    path.write_text(text)
    with pytest.raises(ConfigError, match=r"space.yaml:3:\d+.*'tpee'.*Did you mean 'tpe'"):
        check_space(session_workspace, read_space(path))

    path.write_text(text.replace("tpee", "tpe"))
    with pytest.raises(ConfigError, match=r"space.yaml:4:\d+.*'ashaa'.*Did you mean 'asha'"):
        check_space(session_workspace, read_space(path))


def test_names_of_the_recipe_that_a_space_is_based_on_are_checked_too(session_workspace, space):
    with pytest.raises(ConfigError, match="Did you mean 'flat_cosine'"):
        check_space(session_workspace, replace(space, base=Recipe(lr_schedule="flat_cosin")))


def test_the_inputs_of_a_space_are_those_of_its_base_where_it_names_none(space):
    assert inputs_of(replace(space, base=Recipe(image_px=64, crop="head"))) == [(64, "head")]


@pytest.mark.parametrize("type_", ["asha", "hyperband", "median", "none"])
def test_every_scheduler_is_known_by_its_name(session_workspace, space, type_):
    stop = EarlyStop(type=type_, max=9)

    check_space(session_workspace, replace(space, search=replace(space.search, early_stop=stop)))


def test_data_without_labels_and_a_crop_that_was_not_prepared_are_refused(fake_workspace):
    workspace = fake_workspace()
    check_data(workspace, [(32, "none"), (64, "none")])
    with pytest.raises(DataError, match=r"no cache with crop 'head'"):
        check_data(workspace, [(32, "none"), (32, "head")])
    unlabelled = fake_workspace("unlabelled")
    unlabelled.slices["is_labelled"] = False
    with pytest.raises(DataError, match=r"no labelled slices.*--labels CSV"):
        check_data(unlabelled, [(32, "none")])
