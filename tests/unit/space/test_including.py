"""Included spaces: what wins, what adds up, what is removed, and that every mistake stands in its own file."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from ichtune.errors import ConfigError
from ichtune.recipe import Recipe
from ichtune.space import EarlyStop, Space, read_space
from ichtune.space.including import find_beside, read_including

OTHER = """\
name: other
search: {trials: 30, time: 2h, seed: 3, early_stop: {type: asha, grace_period: 2, max: 6}}
resources: {gpu: 0.5, cpu: 2}
base: {epochs: 6}
parameters:
  optimizer: [adamw, sgd]
  lr: {low: 1e-4, high: 1e-2, log: true}
  batch_size: [8, 16, 32]
constraints:
  - {batch_size: {le: 16}, when: {optimizer: sgd}}
start_with:
  - {lr: 1e-3}
  - {lr: 1e-3, batch_size: 8}
"""


def read(tmp_path: Path, mine: str, **others: str) -> Space:
    for name, text in {"other": OTHER, **others, "mine": mine}.items():
        path = tmp_path / f"{name}.yaml"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return read_space(tmp_path / "mine.yaml")


def keys(space: Space) -> list[str]:
    return [parameter.key for parameter in space.parameters]


@pytest.mark.parametrize(
    ("theirs", "mine", "kept"),
    [
        ("{type: asha, grace: 2, cooldown: 1}", "none", EarlyStop()),
        ("{type: asha, cooldown: 1}", "{judge: last}", EarlyStop("asha", judge="last")),
        ("{type: asha, judge: short}", "{fidelity: patients}", EarlyStop("asha", fidelity="patients")),
    ],
)
def test_what_this_file_leaves_without_effect_of_an_included_one_is_no_mistake(
    tmp_path: Path, theirs: str, mine: str, kept: EarlyStop
) -> None:
    (tmp_path / "other.yaml").write_text(
        f"search: {{early_stop: {theirs}}}\nparameters: {{epochs: 4, lr: [1e-3, 2e-3]}}\n"
    )
    (tmp_path / "mine.yaml").write_text(f"include: other.yaml\nsearch: {{early_stop: {mine}}}\n")

    assert read_space(tmp_path / "mine.yaml").search.early_stop == replace(kept, max=4)


def test_what_this_file_writes_without_effect_is_one(tmp_path: Path) -> None:
    (tmp_path / "other.yaml").write_text(
        "search: {early_stop: {type: asha, judge: last}}\nparameters: {lr: [1e-3, 2e-3]}\n"
    )
    (tmp_path / "mine.yaml").write_text("include: other.yaml\nsearch: {early_stop: {cooldown: 1}}\n")

    with pytest.raises(
        ConfigError, match=r"mine\.yaml:2:33: search\.early_stop\.cooldown: has no effect with judge last"
    ):
        read_space(tmp_path / "mine.yaml")


def test_what_is_included_is_the_default(tmp_path: Path) -> None:
    space = read(tmp_path, "include: other.yaml\n")
    other = read_space(tmp_path / "other.yaml")

    assert space.name == "mine"
    assert space.resolved() == {**other.resolved(), "name": "mine"}
    assert space.space_id == other.space_id


def test_sections_are_merged_key_by_key(tmp_path: Path) -> None:
    mine = """\
include: other.yaml
search: {trials: 5, time: null, early_stop: {grace: 3, factor: 2}}
resources: {cpu: 4}
base: {epochs: 5}
parameters:
  lr: [1e-3, 2e-3]
  epochs: 4
start_with: [{batch_size: 16}]
"""
    space = read(tmp_path, mine)
    stop = space.search.early_stop

    assert (space.search.trials, space.search.time_s, space.search.seed) == (5, None, 3)
    assert (stop.type, stop.grace, stop.max, stop.factor) == ("asha", 3, 6, 2)
    assert (space.resources.gpu, space.resources.cpu) == (0.5, 4.0)
    assert keys(space) == ["optimizer", "lr", "batch_size", "epochs"]
    assert space.parameter("lr").domain.n_values == 2  # type: ignore[union-attr]
    assert space.base == Recipe(epochs=5)
    assert space.start_with == ({"batch_size": 16},)


@pytest.mark.parametrize(
    ("mine", "theirs", "expected"),
    [
        ("early_stop: median", "early_stop: {type: asha, grace: 2}", ("median", 2)),
        ("early_stop: {grace: 2}", "early_stop: asha", ("asha", 2)),
        ("early_stop: none", "early_stop: asha", ("none", 1)),
        ("early_stop: null", "early_stop: asha", ("asha", 1)),
        ("early_stop: {grace_period: 3}", "early_stop: {type: asha, grace: 2}", ("asha", 3)),
    ],
)
def test_one_word_is_a_section_of_one_key(tmp_path: Path, mine: str, theirs: str, expected: tuple[Any, ...]) -> None:
    other = f"search: {{{theirs}}}\nparameters: {{lr: [1e-3, 1e-2]}}\n"
    stop = read(tmp_path, f"include: other.yaml\nsearch: {{{mine}}}\n", other=other)

    assert (stop.search.early_stop.type, stop.search.early_stop.grace) == expected


def test_resources_that_are_probed_may_be_merged_too(tmp_path: Path) -> None:
    assert read(tmp_path, "include: other.yaml\nresources: auto\n").resources.auto
    assert read(tmp_path, "include: other.yaml\nresources: auto\n").resources.cpu == 2.0
    auto = OTHER.replace("{gpu: 0.5, cpu: 2}", "auto")
    assert read(tmp_path, "include: other.yaml\nresources: {cpu: 3}\n", other=auto).resources.auto
    assert not read(tmp_path, "include: other.yaml\nresources: {gpu: 0.5}\n", other=auto).resources.auto


def test_constraints_add_up_and_each_stands_there_once(tmp_path: Path) -> None:
    mine = """\
include: [other.yaml, again.yaml]
constraints:
  - {lr: {le: 5e-3}, when: {optimizer: sgd}}
  - {batch_size: {le: 16}, when: {optimizer: sgd}}
"""
    space = read(tmp_path, mine, again="include: other.yaml\n")

    assert [one.parameters for one in space.constraints] == [("batch_size", "optimizer"), ("lr", "optimizer")]


def test_of_several_files_the_later_wins_and_includes_may_be_nested(tmp_path: Path) -> None:
    first = "search: {trials: 1, seed: 1, concurrent: 1}\nparameters: {lr: 1e-3, epochs: 3}\n"
    second = "include: deeper/third.yaml\nsearch: {trials: 2}\nparameters: {lr: 2e-3}\n"
    third = "search: {trials: 3, seed: 3}\nparameters: {lr: 3e-3, dropout: [0.1, 0.2]}\n"
    others = {"first": first, "second": second, "deeper/third": third}
    space = read(tmp_path, "include: [first.yaml, second.yaml]\n", **others)

    assert (space.search.trials, space.search.seed, space.search.concurrent) == (2, 3, 1)
    assert space.resolved()["parameters"] == {
        "lr": {"value": 2e-3},
        "epochs": {"value": 3},
        "dropout": {"choices": [0.1, 0.2]},
    }


def test_parameters_and_sections_can_be_removed(tmp_path: Path) -> None:
    space = read(tmp_path, "include: other.yaml\nremove: [lr, constraints, base]\nparameters: {lr: 1e-3}\n")
    assert space.parameter("lr").is_fixed  # type: ignore[union-attr]
    assert (space.constraints, space.base) == ((), None)

    space = read(tmp_path, "include: other.yaml\nremove: lr\n")
    assert keys(space) == ["optimizer", "batch_size"]
    assert space.start_with == ({"batch_size": 8},)
    assert read(tmp_path, "include: other.yaml\nremove: [start_with]\n").start_with == ()


def test_a_shipped_space_is_included_by_its_name(tmp_path: Path) -> None:
    space = read(tmp_path, "include: demo\nsearch: {trials: 3}\n")

    assert space.search.trials == 3
    assert "architecture" in keys(space)


def test_files_that_an_included_file_names_lie_beside_it(tmp_path: Path) -> None:
    (tmp_path / "deeper").mkdir()
    (tmp_path / "deeper" / "weights.safetensors").touch()
    (tmp_path / "deeper" / "first.yaml").write_text("epochs: 2\n")
    deeper = "base: first.yaml\nparameters: {pretrained: [false, weights.safetensors]}\n"
    space = read(tmp_path, "include: deeper/space.yaml\n", **{"deeper/space": deeper})

    assert space.resolved()["parameters"]["pretrained"]["choices"][1] == str(tmp_path / "deeper/weights.safetensors")
    assert space.default.epochs == 2


@pytest.mark.parametrize(
    ("mine", "file", "message"),
    [
        ("include: nowhere.yaml\n", "mine", r":1:10: include: cannot read 'nowhere.yaml'"),
        ("include: [other.yaml, 3]\n", "mine", r":1:23: include\[1\]: must be a file or a list of files, got 3"),
        ("include: mine.yaml\n", "mine", r":1:10: include: the file includes itself: mine.yaml -> mine.yaml"),
        ("include: circle.yaml\n", "circle", r":1:10: include: the file includes itself: mine.yaml -> circle.yaml ->"),
        ("include: wrong.yaml\n", "wrong", r":2:1: unknown key 'paramters'\. Did you mean 'parameters'"),
        ("include: old.yaml\n", "old", r":1:10: version: this ichtune reads version 1"),
        ("include: list.yaml\n", "list", "maps keys to values"),
        ("remove: [lr]\nparameters: {lr: 1}\n", "mine", r":1:9: remove: there is nothing to remove from"),
        ("include: other.yaml\nremove: [lrr]\n", "mine", r":2:10: remove\[0\]: no included .* Did you mean 'lr'"),
        ("include: other.yaml\nremove: {lr: 1}\n", "mine", r":2:9: remove: must be a list of parameters"),
    ],
)
def test_what_cannot_be_included_or_removed(tmp_path: Path, mine: str, file: str, message: str) -> None:
    others = {
        "circle": "include: mine.yaml\n",
        "wrong": "search: {trials: 3}\nparamters: {lr: 3}\n",
        "old": "version: 0\n",
        "list": "- lr\n",
    }
    with pytest.raises(ConfigError, match=message) as caught:
        read(tmp_path, mine, **others)
    assert str(caught.value).startswith(f"{tmp_path / file}.yaml")


@pytest.mark.parametrize(
    ("other", "mine", "place"),
    [
        ("lr: -1", "", "other.yaml:2:7: parameters.lr: "),
        ("lr: {low: 1, hgh: 2}", "", "other.yaml:2:16: unknown key 'hgh' in parameters.lr"),
        ("lr: 1e-3\nsearch: {trials: 0}", "", "other.yaml:3:18: search.trials: "),
        ("lr: 1e-3\nsearch: {trials: 0}", "search: {seed: 1}\n", "other.yaml:3:18: search.trials: "),
        ("lr: 1e-3", "search: {trials: 0}\n", "mine.yaml:2:18: search.trials: "),
        ("lr: 1e-3\nsearch: {early_stop: asah, trials: 0}", "search: {early_stop: {grace: 0}}\n", "mine.yaml:2:30: "),
        ("lr: 1e-3\nsearch: {early_stop: {type: asha, max: 5}}", "parameters: {epochs: 9}\n", "other.yaml:3:40: "),
        ("lr: [1e-3, 1e-2]", "start_with: [{lr: 3}]\n", "mine.yaml:2:19: start_with[0].lr: "),
        (
            "lr: [1e-3, 1e-2]\nstart_with: [{lr: 1e-3}, {lr: 3}]",
            "remove: [base]\n",
            "other.yaml:3:31: start_with[1].lr",
        ),
        ("lr: [1e-3, 1e-2]\nconstraints: [{lrr: 3}]", "constraints: [{lr: 1e-3}]\n", "other.yaml:3:21: constraints[0]"),
        ("lr: [1e-3, 1e-2]\nconstraints: [{lr: 1e-3}]", "constraints: [{lrr: 1}]\n", "mine.yaml:2:21: constraints[0]"),
        ("lr: [1e-3, 1e-2]", "parameters: {optimizer: {choices: [sgd], when: {lr: 1}}}\n", "mine.yaml:2:53: "),
    ],
)
def test_every_mistake_stands_in_the_file_that_makes_it(tmp_path: Path, other: str, mine: str, place: str) -> None:
    base = "\nbase: {epochs: 3}\n" if "base" in mine else "\n"
    with pytest.raises(ConfigError) as caught:
        read(tmp_path, "include: other.yaml\n" + mine, other=f"parameters:\n  {other}{base}")
    assert str(caught.value).startswith(f"{tmp_path}/{place}"), str(caught.value)
    assert ("(included by " in str(caught.value)) == (place.startswith("other") and "unknown key" not in place)


def test_what_is_found_later_stands_in_its_file_too(tmp_path: Path) -> None:
    space = read(tmp_path, "include: other.yaml\nsearch: {algorithm: tpe}\n")

    def refuse(name: str) -> None:
        if name == "sgd":
            raise ConfigError("unknown optimizer")

    with pytest.raises(ConfigError, match=r"other\.yaml:6:22: parameters\.optimizer\[1\]: unknown optimizer"):
        space.check_names({"optimizer": refuse})
    with pytest.raises(ConfigError, match=r"mine\.yaml:2:21: search\.algorithm: unknown"):
        raise space.error("unknown", "search", "algorithm")


def test_files_that_are_included_twice_over_and_over_are_read_once(tmp_path: Path) -> None:
    for i in range(20):
        below = f"include: [s{i - 1}.yaml, s{i - 1}.yaml]\n" if i else "parameters: {lr: 1}\nconstraints: [{lr: 1}]\n"
        (tmp_path / f"s{i}.yaml").write_text(below)

    document = read_including(tmp_path / "s19.yaml")

    assert document.value["constraints"] == [{"lr": 1}]
    assert document.where("parameters", "lr") == f"{tmp_path / 's0.yaml'}:1:14"


def test_a_name_is_looked_for_beside_the_file_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "here").mkdir()
    (tmp_path / "beside").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    (tmp_path / "here" / "some.yaml").touch()

    assert find_beside("some.yaml", tmp_path / "beside", "search_spaces") == Path("some.yaml")
    (tmp_path / "beside" / "some.yaml").touch()
    assert find_beside("some.yaml", tmp_path / "beside", "search_spaces") == tmp_path / "beside" / "some.yaml"
    assert find_beside("demo", tmp_path / "beside", "search_spaces").name == "demo.yaml"
