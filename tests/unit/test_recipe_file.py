"""Recipe files: defaults, and mistakes told where they stand."""

from pathlib import Path

import pytest

from ichtune.errors import ConfigError
from ichtune.recipe import Recipe
from ichtune.recipe_file import read_any_recipe, read_recipe, read_second_level_recipe
from ichtune.second_level_recipe import SecondLevelRecipe


def write(folder: Path, text: str) -> str:
    path = folder / "mine.yaml"
    path.write_text(text, encoding="utf-8")
    return str(path)


def test_keys_that_are_left_out_take_the_defaults(tmp_path: Path) -> None:
    read = read_recipe(write(tmp_path, "version: 1\nlr: 1e-4\nwindows: [[40, 80], [80, 200]]\n"))
    assert read == Recipe(lr=1e-4, windows=[[40, 80], [80, 200]])  # type: ignore[arg-type]
    assert read_recipe(write(tmp_path, "seed: 7\n")) == Recipe()


def test_a_shipped_recipe_is_read_by_name() -> None:
    assert read_recipe("exp_40").epochs == 25


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("version: 1\nlearn_rate: 1e-4\n", r"mine\.yaml:2:1: unknown key 'learn_rate'"),
        ("epoch: 3\n", r"mine\.yaml:1:1: unknown key 'epoch'\. Did you mean 'epochs'"),
        ("epochs: 3\nlr: high\n", r"mine\.yaml:2:5: lr: recipe key 'lr' must be a number, got 'high'"),
        ("epochs: 0\nlr: high\n", r"mine\.yaml:1:9: epochs: recipe key 'epochs' must be at least 1, got 0"),
        ("windows: brian\n", r"mine\.yaml:1:10: windows: unknown window set 'brian'\. Did you mean 'brain'"),
        (
            "warmup: 0.6\nepochs: 2\nanneal_start: 0.5\n",
            r"mine\.yaml:1:9: warmup: .*'anneal_start' must not lie before",
        ),
        ("version: 2\n", r"mine\.yaml:1:10: version: this ichtune reads version 1 of recipe files, got 2"),
        ("version: true\n", r"reads version 1 of recipe files, got True"),
        ("- lr\n", r"mine\.yaml:1:1: a recipe maps keys to values; expected some of architecture"),
        ("lr: 1\nlr: 2\n", r"mine\.yaml:2:1: duplicate key 'lr'"),
        ("", r"mine\.yaml: the file is empty"),
    ],
)
def test_a_mistake_is_told_where_it_stands(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        read_recipe(write(tmp_path, text))


def test_a_name_that_is_not_shipped_is_answered_with_the_nearest() -> None:
    with pytest.raises(ConfigError, match=r"no shipped recipe has that name\. Did you mean 'exp_00'"):
        read_recipe("exp_001")


def test_files_that_a_recipe_names_are_looked_for_beside_it_first(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, elsewhere = tmp_path / "recipes", tmp_path / "elsewhere"
    for place in (folder, elsewhere):
        place.mkdir()
    monkeypatch.chdir(elsewhere)
    (folder / "w.safetensors").touch()
    (elsewhere / "here.safetensors").touch()
    (folder / "first.yaml").write_text("version: 1\nlr: 1e-4\n")
    (folder / "second.yaml").write_text("version: 1\nwarm_start: first.yaml\n")
    (folder / "a.yaml").write_text("version: 1\npretrained: w.safetensors\n")
    (folder / "b.yaml").write_text("version: 1\nwarm_start: here.safetensors\n")
    assert read_recipe(str(folder / "a.yaml")).pretrained == str(folder / "w.safetensors")
    assert read_recipe(str(folder / "b.yaml")).warm_start == str(elsewhere / "here.safetensors")
    assert read_recipe(str(folder / "second.yaml")).warm_start == Recipe(lr=1e-4).recipe_id


def test_a_name_of_another_recipe_becomes_its_id(tmp_path: Path) -> None:
    (tmp_path / "mine.yaml").write_text("version: 1\nwarm_start: exp_10\n")
    assert read_recipe(str(tmp_path / "mine.yaml")).warm_start == read_recipe("exp_10").recipe_id
    (tmp_path / "mine.yaml").write_text("version: 1\nwarm_start: exp_1000\n")
    with pytest.raises(ConfigError, match=r"mine.yaml:2:13: warm_start: cannot read 'exp_1000'"):
        read_recipe(str(tmp_path / "mine.yaml"))


def test_recipes_that_refer_to_each_other_are_refused_once(tmp_path: Path) -> None:
    for one, other in (("a", "b"), ("b", "a")):
        (tmp_path / f"{one}.yaml").write_text(f"version: 1\nwarm_start: {other}.yaml\n")
    with pytest.raises(ConfigError, match=r"^recipes refer to each other in a circle, at '[ab].yaml'"):
        read_recipe(str(tmp_path / "a.yaml"))


def test_level_2_makes_it_one_of_the_second_level(tmp_path: Path) -> None:
    path = write(tmp_path, "version: 1\nlevel: 2\nmodel: conv\nhidden: 32\n")
    assert read_any_recipe(path) == read_second_level_recipe(path) == SecondLevelRecipe(model="conv", hidden=32)
    with pytest.raises(ConfigError, match=r"is of the second level.* `ichtune stack --recipe .*mine.yaml`"):
        read_recipe(path)
    path = write(tmp_path, "version: 1\nlevel: 1\nepochs: 3\n")
    assert read_any_recipe(path) == read_recipe(path) == Recipe(epochs=3)
    with pytest.raises(ConfigError, match=r"has no `level: 2`; train it with `ichtune train --recipe .*mine.yaml`"):
        read_second_level_recipe(path)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("level: 3\n", r"mine\.yaml:1:8: level: must be 1 \(a network, the default\) or 2 \(learns from runs\), got 3"),
        ("level: true\n", r"must be 1 \(a network, the default\) or 2 \(learns from runs\), got True"),
        ("level: 2\nhiden: 3\n", r"mine\.yaml:2:1: unknown key 'hiden'\. Did you mean 'hidden'"),
        ("level: 2\nwindows: brain\n", r"mine\.yaml:2:1: unknown key 'windows'"),
        ("hidden: 3\n", r"mine\.yaml:1:1: unknown key 'hidden'"),
        ("level: 2\nhidden: 1\n", r"mine\.yaml:2:9: hidden: recipe key 'hidden' must be between 4 and 1024, got 1"),
        ("level: 2\nmembers: [exp_1000]\n", r"mine\.yaml:2:11: members\[0\]: cannot read 'exp_1000'"),
        ("level: 2\nmembers: [3]\n", r"mine\.yaml:2:10: members: recipe key 'members' must be `all` or a list"),
    ],
)
def test_a_mistake_in_a_second_level_is_told_where_it_stands(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        read_any_recipe(write(tmp_path, text))


def test_members_are_named_by_their_recipes(tmp_path: Path) -> None:
    path = write(tmp_path, "level: 2\nmembers: [exp_10, aaaaaaaaaaaa]\n")
    expected = tuple(sorted((read_recipe("exp_10").recipe_id, "aaaaaaaaaaaa")))
    assert read_second_level_recipe(path).members == expected
