"""Space: identity, canonical form, and checks that other rooms bring."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from ichtune.errors import ConfigError
from ichtune.recipe import Recipe
from ichtune.space import EarlyStop, Space, read_space

BASE = """\
search: {trials: 10, seed: 7}
parameters:
  architecture: [resnet18, resnet34]
  lr: {low: 1e-4, high: 1e-2, log: true}
"""


def write(tmp_path: Path, text: str, name: str = "space") -> Space:
    path = tmp_path / f"{name}.yaml"
    path.write_text(text)
    return read_space(path)


@pytest.mark.parametrize(
    "change",
    [
        lambda text: text.replace("trials: 10", "trials: 90, time: 3h, concurrent: 2, gpu_hours: 3, until_no_gain: 9"),
        lambda text: text + "resources: auto\n",
        lambda text: text + "resources: {gpu: 0.5}\ntrain: {top: 5}\n",
        lambda text: text.replace("low: 1e-4, high: 1e-2, log: true", "min: 0.0001, max: 0.01, type: loguniform"),
        lambda text: text.replace("[resnet18, resnet34]", "{choices: [resnet18, resnet34]}"),
        lambda text: text + "name: another\n",
    ],
)
def test_what_decides_nothing_leaves_the_id(tmp_path: Path, change: Callable[[str], str]) -> None:
    assert write(tmp_path, change(BASE)).space_id == write(tmp_path, BASE).space_id


@pytest.mark.parametrize(
    "change",
    [
        lambda text: text.replace("1e-4", "1e-5"),
        lambda text: text.replace("resnet34", "resnet50"),
        lambda text: text.replace("log: true", "log: false"),
        lambda text: text.replace("seed: 7", "seed: 8"),
        lambda text: text.replace("seed: 7", "algorithm: random"),
        lambda text: text.replace("seed: 7", "early_stop: asha"),
        lambda text: text.replace("seed: 7", "learn_from: [earlier]"),
        lambda text: text + "folds: {search_on: [1]}\n",
        lambda text: text + "start_with: [{lr: 1e-3}]\n",
        lambda text: text + "constraints: [{lr: {le: 1e-3}}]\n",
        lambda text: text + "base: {epochs: 9}\n",
        lambda text: text + "  epochs: 9\n",
    ],
)
def test_what_decides_something_changes_the_id(tmp_path: Path, change: Callable[[str], str]) -> None:
    assert write(tmp_path, change(BASE)).space_id != write(tmp_path, BASE).space_id


@pytest.mark.parametrize(
    "more", ["grace: 2", "factor: 3", "judge: short", "judge: cooldown, cooldown: 1", "fidelity: patients"]
)
def test_how_trials_are_stopped_changes_the_id(tmp_path: Path, more: str) -> None:
    def searched(early_stop: str) -> str:
        return write(tmp_path, BASE.replace("seed: 7", f"seed: 7, early_stop: {early_stop}")).space_id

    assert searched(f"{{type: asha, {more}}}") != searched("asha")


def test_what_has_no_effect_does_not_change_the_id(tmp_path: Path) -> None:
    space = write(tmp_path, BASE)
    ids = {
        replace(
            space, search=replace(space.search, early_stop=EarlyStop("asha", max=4, judge="last", cooldown=c))
        ).space_id
        for c in (0.5, 3.0)
    }
    assert len(ids) == 1


def test_settings_can_be_replaced_from_the_command_line(tmp_path: Path) -> None:
    space = write(tmp_path, BASE)
    assert replace(space, search=replace(space.search, trials=3)).space_id == space.space_id


def test_searched_leaves_out_what_is_fixed(tmp_path: Path) -> None:
    space = write(tmp_path, BASE + "  epochs: 9\n  windows: [brain]\n")
    assert [parameter.key for parameter in space.searched] == ["architecture", "lr"]
    assert space.parameter("epochs") is not None
    assert space.parameter("dropout") is None


def test_a_check_of_another_room_fails_where_the_name_stands(tmp_path: Path) -> None:
    def check(name: str) -> None:
        if name != "resnet18":
            raise ConfigError(f"unknown architecture {name!r}")

    space = write(tmp_path, BASE)
    with pytest.raises(ConfigError, match=r"space\.yaml:3:28: .*architecture\[1\]: unknown architecture 'resnet34'"):
        space.check_names({"architecture": check, "optimizer": check})


def test_an_error_inside_at_gets_the_place(tmp_path: Path) -> None:
    space = write(tmp_path, BASE)
    with pytest.raises(ConfigError, match=r"space\.yaml:1:18: search\.trials: too many"), space.at("search", "trials"):
        raise ConfigError("too many")


def test_an_error_without_a_file_still_has_its_message() -> None:
    assert str(Space("x", ()).error("no such searcher", "search", "algorithm")) == "no such searcher"


def test_lists_and_none_in_choices_and_conditions_read_back_as_the_same_space(tmp_path: Path) -> None:
    space = write(
        tmp_path,
        """\
parameters:
  beta1: [null, 0.95]
  eps: null
  windows: [brain, [dicom, [40, 80]]]
  positive_weights: {choices: [[1, 1, 1, 1, 1, 1], [2, 1, 1, 1, 1, 1]]}
  calibration: prior_shift
  augmentation: [none, [{Affine: {p: 0.5}}]]
  dropout: {choices: [0.1, 0.2], when: [{windows: [dicom, [40, 80]]}, {beta1: null, eps: null}]}
  lr:
    choices: [1e-3, 1e-2]
    when: {positive_weights: [2, 1, 1, 1, 1, 1], augmentation: [{Affine: {p: 0.5}}], beta1: {not_in: [null]}}
start_with:
  - {beta1: null, augmentation: [{Affine: {p: 0.5}}], windows: [dicom, [40, 80]]}
""",
    )
    again = tmp_path / "space.yaml"
    again.write_text(json.dumps(space.resolved()))

    assert read_space(again) == space
    assert read_space(again).space_id == space.space_id


TIED = """\
parameters:
  optimizer: [adamw, sgd]
  momentum: {low: 0.8, high: 0.9, when: {optimizer: sgd}}
  lr: {low: 1e-4, high: 1e-2}
  batch_size: [8, 16]
  image_px: [64, 128]
  epochs: [2, 3]
constraints:
  - {lr: {le: 1e-3}, when: {optimizer: sgd}}
  - {batch_size: 8, when: {image_px: 128}}
"""


def test_a_part_of_a_space_holds_what_decides_about_it(tmp_path: Path) -> None:
    space = write(tmp_path, TIED)

    momentum, size, epochs = (space.part([key]) for key in ("momentum", "image_px", "epochs"))

    assert [p.key for p in momentum.parameters] == ["optimizer", "momentum", "lr"]
    assert momentum.constraints == space.constraints[:1]
    assert [p.key for p in size.parameters] == ["batch_size", "image_px"]
    assert size.constraints == space.constraints[1:]
    assert ([p.key for p in epochs.parameters], epochs.constraints) == (["epochs"], ())
    assert space.part(["dropout"]).parameters == ()


def test_the_first_constraint_that_does_not_hold_is_told(tmp_path: Path) -> None:
    space = write(tmp_path, TIED)

    assert space.violated({"optimizer": "adamw", "lr": 0.01, "batch_size": 8, "image_px": 128}) is None
    assert "batch_size must be 8" in str(space.violated({"optimizer": "adamw", "batch_size": 16, "image_px": 128}))
    both = {"optimizer": "sgd", "lr": 0.01, "batch_size": 16, "image_px": 128}
    assert space.violated(both) == "lr must be at most 0.001 where optimizer is sgd, got lr 0.01 and optimizer sgd"


def test_a_recipe_takes_from_the_base_what_is_not_given(tmp_path: Path) -> None:
    space = write(tmp_path, TIED + "base: {epochs: 9, beta1: 0.95}\n")

    assert space.recipe({"lr": 2e-3}) == Recipe(epochs=9, beta1=0.95, lr=2e-3)
    assert space.recipe({"beta1": None}) == Recipe(epochs=9)
    assert space.default == Recipe(epochs=9, beta1=0.95)
    assert write(tmp_path, TIED).default == Recipe()


def test_constraints_and_base_read_back_as_the_same_space(tmp_path: Path) -> None:
    more = """\
  - {lr: {le: {parameter: momentum}}, optimizer: [adamw, sgd]}
  - {epochs: {not_in: [2], gt: 1}, when: [{lr: {gt: 1e-3}, batch_size: 8}, {image_px: 64}]}
base: {windows: [[41, 80], dicom], loss_weights: [1, 1, 1, 1, 1, 1], beta1: 0.9}
"""
    space = write(tmp_path, TIED + more)
    again = tmp_path / "space.yaml"
    again.write_text(json.dumps(space.resolved()))

    assert read_space(again) == space
    assert read_space(again).space_id == space.space_id
