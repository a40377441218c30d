"""The recipe that a space is based on and those that it starts with: names, files, values, and what does not fit."""

import json
from pathlib import Path

import pytest

from ichtune.errors import ConfigError
from ichtune.recipe import Recipe
from ichtune.recipe_file import read_recipe
from ichtune.space import Space, fixed_values, read_space

LR = "parameters:\n  lr: {low: 1e-4, high: 1e-2, log: true}\n  optimizer: [adamw, sgd, radam]\n"
MOMENTUM = "  momentum: {low: 0.8, high: 0.99, when: {optimizer: sgd}}\n"


def read(tmp_path: Path, text: str, **recipes: str) -> Space:
    for name, recipe in recipes.items():
        (tmp_path / f"{name}.yaml").write_text(recipe)
    path = tmp_path / "space.yaml"
    path.write_text(text)
    return read_space(path)


@pytest.mark.parametrize(
    ("written", "base"),
    [
        ("first.yaml", Recipe(epochs=9, dropout=0.2)),
        ("exp_00", read_recipe("exp_00")),
        ("{epochs: 5, windows: [[41, 80], dicom]}", Recipe(epochs=5, windows=((41, 80), "dicom"))),
        ("{beta1: null, augmentation: [{Affine: {p: 0.5}}]}", Recipe(augmentation=[{"Affine": {"p": 0.5}}])),
        ("{}", Recipe()),
        ("null", None),
    ],
)
def test_every_form_of_base_reads_back(tmp_path: Path, written: str, base: Recipe | None) -> None:
    space = read(tmp_path, f"base: {written}\n{LR}", first="epochs: 9\ndropout: 0.2\n")

    assert space.base == base
    assert space.default == (base or Recipe())
    again = read(tmp_path, json.dumps(space.resolved()))
    assert again == space
    assert again.space_id == space.space_id


def test_a_base_counts_for_the_length_of_trials(tmp_path: Path) -> None:
    stop = "search: {early_stop: asha}\n"
    assert read(tmp_path, f"base: {{epochs: 9}}\n{LR}{stop}").search.early_stop.max == 9
    conditional = "  epochs: {value: 2, when: {optimizer: sgd}}\n"
    assert read(tmp_path, f"base: {{epochs: 9}}\n{LR}{conditional}{stop}").search.early_stop.max == 9


def test_values_are_tried_beside_the_base(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"snapshots.*must not exceed 'epochs', got 8 of 4"):
        read(tmp_path, f"{LR}  snapshots: 8\n")
    assert read(tmp_path, f"base: {{epochs: 9}}\n{LR}  snapshots: 8\n").base is not None


@pytest.mark.parametrize(
    ("written", "message"),
    [
        ("exp_0", r":1:7: base: cannot read 'exp_0': .*Did you mean 'exp_"),
        ("3", r":1:7: base: must be a recipe's name or file, or map keys to values, got 3"),
        ("{lrr: 3}", r":1:8: unknown key 'lrr' in base"),
        ("{lr: -3}", r":1:12: base\.lr: .*got -3"),
        ("{epochs: 3, lr: -3, dropout: -1}", r":1:23: base\.lr: .*got -3"),
        ("{epochs: 3, snapshots: 4}", r":1:7: base: .*'snapshots' must not exceed 'epochs'"),
        ("{windows: [[{low: 3, high: 5}, 80]]}", r":1:17: base\.windows: a window must be"),
        ("wrong.yaml", r":1:7: base: .*wrong\.yaml:1:5: lr: "),
    ],
)
def test_a_base_that_is_none_is_reported_where_it_stands(tmp_path: Path, written: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message) as caught:
        read(tmp_path, f"base: {written}\n{LR}", wrong="lr: -1\n")
    assert str(caught.value).startswith(f"{tmp_path / 'space.yaml'}:1:")


def test_a_base_decides_about_the_space_s_identity(tmp_path: Path) -> None:
    ids = {read(tmp_path, f"base: {base}\n{LR}").space_id for base in ("{epochs: 9}", "{epochs: 8}", "{}")}

    assert len(ids) == 3
    assert read(tmp_path, LR).space_id in ids


def test_a_name_in_the_base_is_checked_too(tmp_path: Path) -> None:
    def refuse(name: str) -> None:
        if name == "bce":
            raise ConfigError("unknown loss")

    space = read(tmp_path, f"base: {{epochs: 9}}\n{LR}")
    with pytest.raises(ConfigError, match=r":1:7: base: unknown loss"):
        space.check_names({"loss": refuse})
    read(tmp_path, LR).check_names({"loss": refuse})
    read(tmp_path, f"base: {{epochs: 9}}\n{LR}  loss: focal\n").check_names({"loss": refuse})


def test_a_recipe_is_a_start_by_its_searched_and_active_parameters(tmp_path: Path) -> None:
    recipes = {"one": "lr: 2e-3\noptimizer: sgd\nmomentum: 0.85\nepochs: 9\n", "two": "momentum: 0.1\nlr: 1e-3\n"}
    text = LR + MOMENTUM + "  epochs: 4\nstart_with: [one.yaml, {lr: 5e-3}, two.yaml]\n"
    space = read(tmp_path, text, **recipes)

    assert space.start_with == (
        {"lr": 2e-3, "optimizer": "sgd", "momentum": 0.85},
        {"lr": 5e-3},
        {"lr": 1e-3, "optimizer": "adamw"},
    )
    assert read(tmp_path, json.dumps(space.resolved())) == space


def test_every_kind_of_value_of_a_recipe_is_found_among_the_choices(tmp_path: Path) -> None:
    text = """\
parameters:
  windows: [brain, [[{low: 30, high: 60}, 80], [80, 200]]]
  augmentation: [none, [{Affine: {p: 0.5}}]]
  beta1: [null, 0.95]
  positive_weights: {choices: [[1, 1, 1, 1, 1, 1], [2, 1, 1, 1, 1, 1]]}
  calibration: prior_shift
start_with: [one.yaml]
"""
    one = "windows: [[45, 80], [80, 200]]\naugmentation: [{Affine: {p: 0.5}}]\npositive_weights: [2, 1, 1, 1, 1, 1]\n"
    space = read(tmp_path, text, one=one + "calibration: prior_shift\n")

    assert fixed_values(space, space.start_with[0]) == {
        "windows": "30..60/80+80/200",
        "windows[1][0].center": 45,
        "augmentation": '[{"Affine":{"p":0.5}}]',
        "beta1": "none",
        "positive_weights": "2,1,1,1,1,1",
    }
    assert read(tmp_path, json.dumps(space.resolved())) == space


@pytest.mark.parametrize(
    ("starts", "message"),
    [
        ("[nowhere]", r":4:14: start_with\[0\]: cannot read 'nowhere'"),
        (
            "[{lr: 1e-3}, beyond.yaml]",
            r":4:26: start_with\[1\]: lr of recipe 'beyond\.yaml': must be a number from 0\.0001",
        ),
        ("[other.yaml]", r"start_with\[0\]: optimizer of recipe 'other\.yaml': 'lion' is not among the choices"),
        ("[wrong.yaml]", r"start_with\[0\]: .*wrong\.yaml:1:5: lr: "),
        ('[""]', r"start_with\[0\]: cannot read ''"),
    ],
)
def test_a_recipe_that_the_space_does_not_hold_is_no_start(tmp_path: Path, starts: str, message: str) -> None:
    recipes = {"beyond": "lr: 0.1\n", "other": "optimizer: lion\n", "wrong": "lr: -1\n"}
    with pytest.raises(ConfigError, match=message) as caught:
        read(tmp_path, f"{LR}start_with: {starts}\n", **recipes)
    assert str(caught.value).startswith(f"{tmp_path / 'space.yaml'}:4:")


@pytest.mark.parametrize(
    ("start", "is_broken"),
    [
        ("{optimizer: sgd, momentum: 0.95}", True),
        ("{optimizer: sgd, momentum: 0.85}", False),
        ("{momentum: 0.95}", False),  # the searcher may choose another optimizer
        ("{optimizer: adamw, momentum: 0.95}", False),  # inactive
        ("{lr: 1e-3}", True),
        ("one.yaml", True),
    ],
)
def test_a_start_that_no_choice_of_the_rest_can_save_is_refused(tmp_path: Path, start: str, is_broken: bool) -> None:
    constraints = "constraints: [{momentum: {le: 0.9}}, {lr: {ge: 2e-3}, when: {epochs: 4}}]\n"
    text = LR + MOMENTUM + f"  epochs: 4\n{constraints}start_with: [{start}]\n"
    if not is_broken:
        assert len(read(tmp_path, text).start_with) == 1
        return
    with pytest.raises(ConfigError, match=r":7:14: start_with\[0\]: is against a constraint of this space: (mom|lr)"):
        read(tmp_path, text, one="optimizer: sgd\nmomentum: 0.98\nlr: 5e-3\n")
