"""The level of a space: which keys its parameters may be, and what trials of it may ask for."""

from pathlib import Path

import pytest

from ichtune.errors import ConfigError
from ichtune.recipe import Recipe, recipe_keys
from ichtune.second_level_recipe import SecondLevelRecipe, second_level_keys
from ichtune.space import Space, random_proposals, read_space, space_size
from ichtune.space.levels import LEVELS, level_of, level_of_recipe, told_values
from ichtune.yaml_positions import read_yaml

MIXED = """\
level: 2
parameters:
  model: [gru, hist_gradient_boosting, gaussian]
  hidden: {choices: [16, 32], when: {model: gru}}
  lr: {low: 1e-3, high: 1e-2, log: true, when: {model: gru}}
  rounds: {low: 10, high: 40, when: {model: hist_gradient_boosting}}
"""
GRU = "level: 2\nparameters: {model: [gru, lstm]}\n"


def read(tmp_path: Path, text: str, name: str = "space.yaml") -> Space:
    path = tmp_path / name
    path.write_text(text)
    return read_space(path)


def test_each_level_has_the_keys_of_its_recipe(tmp_path: Path) -> None:
    assert (LEVELS[1].keys, LEVELS[2].keys) == (recipe_keys(), second_level_keys())
    assert {level_of_recipe(recipe).number for recipe in (Recipe(), SecondLevelRecipe())} == {1, 2}
    (tmp_path / "s.yaml").write_text("name: x\n")
    assert level_of(read_yaml(tmp_path / "s.yaml")) is LEVELS[1]
    assert told_values(SecondLevelRecipe())["members"] == "all"
    assert told_values(Recipe(augmentation=[{"Blur": {}}]))["augmentation"] == '[{"Blur":{}}]'


def test_a_space_of_the_second_level_proposes_its_recipes(tmp_path: Path) -> None:
    space = read(tmp_path, MIXED)
    recipes = [proposal.recipe for proposal in random_proposals(space, 30, seed=1)]

    assert space.level == 2
    assert all(isinstance(recipe, SecondLevelRecipe) for recipe in recipes)
    assert {recipe.model: recipe.n_epochs for recipe in recipes} == {
        "gru": 15,
        "hist_gradient_boosting": 1,
        "gaussian": 1,
    }
    assert space_size(space).text == "a continuous space"
    assert space.resources.gpu == 0


@pytest.mark.parametrize("line", ["level: 3", "level: true", "level: second", "level: [2]", "level:"])
def test_another_level_is_refused(tmp_path: Path, line: str) -> None:
    with pytest.raises(ConfigError, match=r"space.yaml:1:\d+: level: must be 1 .*networks.* or 2 .*models that learn"):
        read(tmp_path, line + "\nparameters: {lr: [1e-3, 1e-2]}\n")


@pytest.mark.parametrize(
    ("text", "match"),
    [
        (GRU.replace("model", "modell"), r":2:14: unknown key 'modell' in parameters. .*model"),
        (GRU.replace("level: 2", "level: 1"), r":2:14: unknown key 'model' in parameters"),
        (GRU.replace("model", "architecture"), r"unknown key 'architecture'"),
        (GRU.replace("lstm", "lstn"), r"must be one of gru, .*'lstn'. .*lstm"),
        (GRU + "base: {architecture: resnet18}\n", r":3:8: unknown key 'architecture' in base"),
        (GRU + "base: {hidden: 1}\n", r"base.hidden: .*between 4 and 1024"),
        (GRU + "base: exp_00\n", r":3:7: base: recipe .*exp_00.* is none of level 2"),
        (GRU + "start_with: [{model: conv}]\n", r":3:22: start_with\[0\].model: 'conv' is not among the choices"),
        (GRU + "start_with: [level2_conv]\n", r"model of recipe 'level2_conv': 'conv' is not among the choices"),
        (
            GRU.replace("level: 2", "level: 1").replace("model: [gru, lstm]", "lr: [1e-3, 1e-2]")
            + "base: level2_gru\n",
            r"recipe .*level2_gru.* is none of level 1, networks",
        ),
        (GRU + "search: {early_stop: {type: asha, judge: cooldown}}\n", r"early_stop.judge: must be last for models"),
        (GRU + "search: {early_stop: {type: asha, judge: short}}\n", r"early_stop.judge: must be last for models"),
        (GRU + "search: {early_stop: {type: asha, fidelity: image_px}}\n", r"fidelity: must be epochs for models"),
        (GRU + "search: {early_stop: {type: asha, fidelity: patients}}\n", r"fidelity: must be epochs for models"),
        (GRU + "resources: {gpu: 0.5}\n", r":3:18: resources.gpu: models .* compute on CPU cores; write gpu: 0"),
        (GRU + "resources: auto\n", r":3:12: resources.*compute on CPU cores"),
        ("level: 2\nparameters: {model: transformer, hidden: 66, heads: [2, 4]}\n", r"'heads' must divide 'hidden'"),
    ],
)
def test_what_the_second_level_does_not_know_is_refused_where_it_stands(tmp_path: Path, text: str, match: str) -> None:
    with pytest.raises(ConfigError, match=match):
        read(tmp_path, text)


def test_gpu_may_be_said_to_be_none(tmp_path: Path) -> None:
    assert read(tmp_path, GRU + "resources: {gpu: 0, cpu: 2}\n").resources.cpu == 2
    assert read(tmp_path, "parameters: {lr: [1e-3, 1e-2]}\n").resources.gpu == 1


def test_the_longest_trial_is_that_of_a_model_that_has_epochs(tmp_path: Path) -> None:
    def longest(parameters: str, base: str = "") -> int | None:
        text = f"level: 2\n{base}search: {{early_stop: asha}}\nparameters: {{{parameters}}}\n"
        return read(tmp_path, text).search.early_stop.max

    mixed = "model: [gru, conv, gaussian]"
    assert longest(mixed) == 15
    assert longest(f"{mixed}, epochs: {{value: 6, when: {{model: [gru, conv]}}}}") == 6
    assert longest(f"{mixed}, epochs: {{choices: [3, 6], when: {{model: gru}}}}") == 15  # conv takes the default
    assert longest(f"{mixed}, epochs: 4") == 4
    assert longest("model: [gaussian, hist_gradient_boosting]") == 1
    assert longest("hidden: [16, 32]", "base: {model: lstm, epochs: 7}\n") == 7
    assert longest("rounds: [16, 32]", "base: {model: hist_gradient_boosting}\n") == 1


def test_the_canonical_form_of_a_second_level_reads_back(tmp_path: Path) -> None:
    import json

    space = read(tmp_path, MIXED + "base: {dropout: 0.1}\nstart_with: [{model: gaussian}]\n")
    again = read(tmp_path, json.dumps(space.resolved()), "again.yaml")
    assert again == space
    assert again.space_id == space.space_id


def test_the_level_is_part_of_what_a_space_is(tmp_path: Path) -> None:
    text = "parameters: {lr: [1e-3, 1e-2], epochs: 5}\n"
    first, told, second = (read(tmp_path, level + text) for level in ("", "level: 1\n", "level: 2\n"))
    assert first == told
    assert first.space_id == told.space_id != second.space_id


def test_files_of_another_level_are_not_included(tmp_path: Path) -> None:
    (tmp_path / "second.yaml").write_text(GRU)
    (tmp_path / "shared.yaml").write_text("search: {trials: 5}\n")
    both = read(tmp_path, "level: 2\ninclude: [second.yaml, shared.yaml]\nparameters: {hidden: [16, 32]}\n")
    assert [parameter.key for parameter in both.parameters] == ["model", "hidden"]
    assert both.search.trials == 5
    with pytest.raises(ConfigError, match=r"space.yaml:1:10: include: is of level 2, .* write `level: 2` here"):
        read(tmp_path, "include: second.yaml\n")
    with pytest.raises(ConfigError, match=r"demo.yaml:\d+:\d+: unknown key 'architecture'"):
        read(tmp_path, "level: 2\ninclude: demo\n")
