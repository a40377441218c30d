"""Every shipped search space reads, proposes recipes, names what exists, and says what it is for.

The shipped JSON Schema is the one that is made from the grammar, and agrees with the reader.
"""

import json
from functools import cache
from pathlib import Path

import pytest
import timm
from jsonschema import Draft202012Validator

from ichtune.cli.schema import closed_names, suggested_names
from ichtune.errors import ConfigError
from ichtune.models.architectures import ARCHITECTURES
from ichtune.second_level.models import SECOND_LEVEL_MODELS
from ichtune.shipped import shipped_files, shipped_folder
from ichtune.space import RandomChooser, Space, propose, read_space
from ichtune.space.domains import Choice
from ichtune.space.json_schema import schema_text, space_schema
from ichtune.yaml_positions import read_yaml

SPACES = shipped_files("search_spaces")
NAMED_BY = {1: "architecture", 2: "model"}
SCHEMA = shipped_folder("search_spaces") / "space.schema.json"


@pytest.fixture(params=sorted(SPACES))
def path(request: pytest.FixtureRequest) -> Path:
    return SPACES[request.param]


@pytest.fixture
def space(path: Path) -> Space:
    return read_space(path)


def test_there_are_some() -> None:
    assert {"windows", "demo", "seed", "second_level"} <= set(SPACES)


def test_it_leaves_something_to_search(space: Space) -> None:
    assert space.searched
    proposals = [propose(space, RandomChooser(seed)) for seed in range(20)]
    # a model of which nothing else is searched is one recipe, however often it is drawn
    drawn = {str(proposal.parameters): proposal.recipe.recipe_id for proposal in proposals}
    assert len(set(drawn.values())) == len(drawn) > 10


def test_every_network_and_model_exists(space: Space) -> None:
    parameter = space.parameter(NAMED_BY[space.level])
    assert parameter is not None
    assert isinstance(parameter.domain, Choice)
    if space.level == 2:
        assert set(parameter.domain.labels) <= set(SECOND_LEVEL_MODELS)
        return
    known = set(ARCHITECTURES) | set(timm.list_models())
    assert set(parameter.domain.labels) <= known


def test_every_trial_ends_within_its_rungs(space: Space) -> None:
    early_stop = space.search.early_stop
    assert early_stop.max is not None
    assert all(propose(space, RandomChooser(seed)).recipe.n_epochs <= early_stop.max for seed in range(20))


def test_its_header_says_what_it_is(path: Path) -> None:
    header = [line for line in path.read_text().splitlines() if line.startswith("#")]
    for word in ("Purpose:", "Command:", "Cost:", "Result:"):
        assert any(word in line for line in header), f"{path.name} has no {word}"


@cache
def validator() -> Draft202012Validator:
    return Draft202012Validator(json.loads(SCHEMA.read_text(encoding="utf-8")))


def test_the_shipped_schema_is_made_from_the_grammar() -> None:
    made = schema_text(space_schema(closed_names(), suggested_names()))
    assert SCHEMA.read_text(encoding="utf-8") == made, "run `ichtune schema > search_spaces/space.schema.json`"


def test_the_schema_lets_it_pass_as_it_is_written_and_as_it_is_resolved(path: Path, space: Space) -> None:
    assert list(validator().iter_errors(read_yaml(path).value)) == []
    assert list(validator().iter_errors(json.loads(json.dumps(space.resolved())))) == []


def test_its_first_line_names_the_schema(path: Path) -> None:
    assert path.read_text().splitlines()[0] == f"# yaml-language-server: $schema={SCHEMA.name}"


GRU = "parameters: {model: [gru, lstm]}\n"
LR = "parameters: {lr: [1e-3, 1e-2], optimizer: [adamw, sgd]}\n"
WRONG = [
    "parameters: {lrr: 3}\n",
    "parameters: {lr: -1}\n",
    "parameters: {lr: fast}\n",
    "parameters: {lr: []}\n",
    "parameters: {lr: {low: 1e-3}}\n",
    "parameters: {lr: {low: 1e-3, hgh: 1}}\n",
    "parameters: {lr: {low: 1e-3, high: 1, step: -1}}\n",
    "parameters: {lr: {type: unifrm, low: 1e-3, high: 1}}\n",
    "parameters: {epochs: 1.5}\n",
    "parameters: {windows: brainn}\n",
    "parameters: {windows: [[40, 80, 3]]}\n",
    "parameters: {pooling: [gem, gemm]}\n",
    "parameters: {loss_weights: [2, 1]}\n",
    "parameters: {optimizer: {low: 1, high: 2}}\n",
    LR + "version: 2\n",
    LR + "serach: {trials: 3}\n",
    LR + "search: {trials: 0}\n",
    LR + "search: {trials: many}\n",
    LR + "search: {early_stop: {grace: 0}}\n",
    LR + "search: {early_stop: {judge: guess}}\n",
    LR + "search: {early_stop: {fidelity: mm}}\n",
    LR + "search: {gpu_hours: -1}\n",
    LR + "resources: {gpus: 1}\n",
    LR + "resources: none\n",
    LR + "folds: {search_on: [-1]}\n",
    LR + "metric: {goal: max}\n",
    LR + "constraints: [{lr: {gte: 1}}]\n",
    LR + "constraints: [{when: {lr: 1e-3}}]\n",
    LR + "constraints: [{optimizer: {ge: 3}}]\n",
    LR + "start_with: {lr: 1e-3}\n",
    LR + "start_with: [3]\n",
    LR + "base: [exp_00]\n",
    LR + "level: 3\n",
    LR + "level: 2\n",
    GRU + "level: 1\n",
    GRU,
    "level: 2\nparameters: {model: grue}\n",
    "level: 2\nparameters: {model: gru, members: []}\n",
    "level: 2\nparameters: {model: gru, members: everything}\n",
    "level: 2\nparameters: {model: gru, tta: flip}\n",
    "level: 2\nparameters: {hidden: {low: 2, high: 64}}\n",
    "level: 2\nparameters: {model: [gru, gaussian], hidden: {low: 8, high: 64, when: {modell: gru}}}\n",
    "level: 2\nbase: {architecture: resnet18}\nparameters: {model: gru}\n",
    "level: 2\nstart_with: [{lr: fast}]\nparameters: {lr: [1e-3, 1e-2]}\n",
    LR + "include: 3\n",
]


@pytest.mark.parametrize("text", WRONG)
def test_what_the_schema_refuses_the_reader_refuses_too(tmp_path: Path, text: str) -> None:
    path = tmp_path / "wrong.yaml"
    path.write_text(text)

    assert not validator().is_valid(read_yaml(path).value)
    with pytest.raises(ConfigError, match=r"wrong\.yaml:[123]"):
        read_space(path)


def test_its_command_finds_it(path: Path) -> None:
    assert f"--space {path.name}" in path.read_text()
