"""From a space to recipes: what is asked, what is inactive, what a start fixes, how many there are."""

from pathlib import Path
from typing import Any

import pytest

from ichtune.errors import ConfigError
from ichtune.recipe import Recipe
from ichtune.space import Space, describe, fixed_values, propose, read_space, space_size
from ichtune.space.proposals import plain_value
from ichtune.windows import Window


class Script:
    """Answers from a dict, and remembers what it was asked."""

    def __init__(self, answers: dict[str, Any]) -> None:
        self.answers = answers
        self.asked: dict[str, Any] = {}

    def categorical(self, name: str, choices: tuple[str, ...]) -> str:
        self.asked[name] = choices
        return self.answers.get(name, choices[0])

    def real(self, name: str, low: float, high: float, *, log: bool, step: float | None) -> float:
        self.asked[name] = (low, high, log, step)
        return self.answers.get(name, low)

    def integer(self, name: str, low: int, high: int, *, log: bool, step: int) -> int:
        self.asked[name] = (low, high, log, step)
        return self.answers.get(name, low)


def space_of(tmp_path: Path, parameters: str) -> Space:
    path = tmp_path / "space.yaml"
    path.write_text("parameters:\n" + "".join(f"  {line}\n" for line in parameters.strip().splitlines()))
    return read_space(path)


CONDITIONAL = """
momentum: {low: 0.8, high: 0.99, when: {optimizer: sgd}}
optimizer: [adamw, sgd]
dropout: {low: 0.0, high: 0.5, when: {momentum: {gt: 0.9}}}
epochs: 3
"""


def test_only_what_can_vary_is_asked_for_parents_first(tmp_path: Path) -> None:
    script = Script({"optimizer": "sgd", "momentum": 0.95, "dropout": 0.25})
    proposal = propose(space_of(tmp_path, CONDITIONAL), script)
    assert list(script.asked) == ["optimizer", "momentum", "dropout"]
    assert script.asked["optimizer"] == ("adamw", "sgd")
    assert script.asked["momentum"] == (0.8, 0.99, False, None)
    assert proposal.parameters == {"optimizer": "sgd", "momentum": 0.95, "dropout": 0.25}
    assert proposal.recipe == Recipe(optimizer="sgd", momentum=0.95, dropout=0.25, epochs=3)


def test_an_inactive_parameter_takes_the_default_and_so_do_its_children(tmp_path: Path) -> None:
    script = Script({"optimizer": "adamw"})
    proposal = propose(space_of(tmp_path, CONDITIONAL), script)
    assert proposal.parameters == {"optimizer": "adamw"}
    assert proposal.recipe == Recipe(optimizer="adamw", epochs=3)


def test_an_inactive_fixed_value_takes_the_default(tmp_path: Path) -> None:
    space = space_of(tmp_path, "optimizer: [adamw, sgd]\nmomentum: {value: 0.5, when: {optimizer: sgd}}")
    assert propose(space, Script({"optimizer": "adamw"})).recipe.momentum == Recipe().momentum
    assert propose(space, Script({"optimizer": "sgd"})).recipe.momentum == 0.5


WINDOWS = """
windows:
  - brain
  - [[{low: 30, high: 60}, {low: 60, high: 120, step: 20}], [80, 200]]
"""


def test_numbers_of_a_window_are_asked_for_only_in_their_set(tmp_path: Path) -> None:
    space = space_of(tmp_path, WINDOWS)
    plain = Script({})
    assert propose(space, plain).parameters == {"windows": "brain"}
    assert list(plain.asked) == ["windows"]
    label = "30..60/60..120+80/200"
    script = Script({"windows": label, "windows[1][0].center": 35, "windows[1][0].width": 80})
    proposal = propose(space, script)
    assert proposal.parameters == {"windows": label, "windows[1][0].center": 35, "windows[1][0].width": 80}
    assert script.asked["windows[1][0].width"] == (60, 120, False, 20)
    assert proposal.recipe.windows == (Window(35, 80), Window(80, 200))


def test_every_answer_is_plain_enough_for_any_searcher(tmp_path: Path) -> None:
    space = space_of(
        tmp_path, "loss_weights: {choices: [[2, 1, 1, 1, 1, 1], [1, 1, 1, 1, 1, 1]]}\npretrained: [false, true]"
    )
    script = Script({"loss_weights": "1,1,1,1,1,1", "pretrained": "true"})
    proposal = propose(space, script)
    assert all(isinstance(label, str) for labels in script.asked.values() for label in labels)
    assert proposal.parameters == {"loss_weights": "1,1,1,1,1,1", "pretrained": True}
    assert proposal.recipe.loss_weights == (1.0,) * 6
    assert proposal.recipe.pretrained is True


def test_a_start_becomes_answers(tmp_path: Path) -> None:
    space = space_of(tmp_path, CONDITIONAL + WINDOWS + "lr: {low: 1e-4, high: 1e-2, log: true}\nimage_px: [64, 128]")
    start = {"optimizer": "sgd", "lr": 1e-3, "epochs": 3, "image_px": 128, "windows": [[45, 100], [80, 200]]}
    assert fixed_values(space, start) == {
        "optimizer": "sgd",
        "lr": 1e-3,
        "image_px": "128",
        "windows": "30..60/60..120+80/200",
        "windows[1][0].center": 45,
        "windows[1][0].width": 100,
    }
    assert fixed_values(space, {"windows": [[40, 80]]}) == {"windows": "brain"}


def test_the_optimizer_s_own_setting_is_an_option(tmp_path: Path) -> None:
    space = space_of(tmp_path, "beta1: [null, 0.95]\nlr: {choices: [1e-3, 1e-2], when: {beta1: null}}")
    own, given = (propose(space, Script({"beta1": label})) for label in ("none", "0.95"))

    assert (own.recipe.beta1, given.recipe.beta1) == (None, 0.95)
    assert own.parameters == {"beta1": "none", "lr": 0.001}
    assert given.parameters == {"beta1": 0.95}
    assert fixed_values(space, {"beta1": None}) == {"beta1": "none"}
    assert fixed_values(space, {"beta1": 0.95}) == {"beta1": "0.95"}
    assert space_size(space).n == 2 + 1


@pytest.mark.parametrize(
    ("start", "message"),
    [
        ({"lr": 1.0}, "must be a number from 0.0001 to 0.01, log scale, got 1.0"),
        ({"optimizr": "sgd"}, "'optimizr' is not a parameter of this space. Did you mean 'optimizer'"),
        ({"optimizer": "sdg"}, "'sdg' is not among the choices. Did you mean 'sgd'"),
        ({"epochs": 4}, "fixes it to 3, got 4"),
        ({"windows": [[45, 101], [80, 200]]}, "is not among the choices"),
        ({"windows": [[45, 100]]}, "is not among the choices"),
        ({"windows": "brainn"}, "unknown window set 'brainn'"),
        ({"windows": 3}, "windows must be"),
        ({"pretrained": 1}, "is not among the choices"),
    ],
)
def test_a_start_outside_the_space_is_refused(tmp_path: Path, start: dict[str, Any], message: str) -> None:
    more = "lr: {low: 1e-4, high: 1e-2, log: true}\npretrained: [true, false]"
    space = space_of(tmp_path, CONDITIONAL + WINDOWS + more)
    with pytest.raises(ConfigError, match=message):
        fixed_values(space, start)


def test_describe_says_what_a_parameter_may_be(tmp_path: Path) -> None:
    space = space_of(
        tmp_path, "lr: {low: 1e-4, high: 1e-2, log: true}\nimage_px: {low: 64, high: 128, step: 32}\nepochs: 3"
    )
    described = [describe(parameter.domain) for parameter in space.parameters]
    assert described == ["a number from 0.0001 to 0.01, log scale", "a whole number from 64 to 128 in steps of 32", "3"]


def test_a_base_recipe_gives_what_no_active_parameter_gives(tmp_path: Path) -> None:
    path = tmp_path / "space.yaml"
    text = """\
base: {optimizer: sgd, momentum: 0.7, epochs: 9, beta2: 0.99}
parameters:
  momentum: {low: 0.8, high: 0.99, when: {lr: 1e-2}}
  lr: [1e-3, 1e-2]
  beta2: [null, 0.9]
"""
    path.write_text(text)
    space = read_space(path)

    inactive = propose(space, Script({"lr": "0.001", "beta2": "none"})).recipe
    active = propose(space, Script({"lr": "0.01", "beta2": "0.9"})).recipe

    assert inactive == Recipe(optimizer="sgd", momentum=0.7, epochs=9, lr=1e-3, beta2=None)
    assert active == Recipe(optimizer="sgd", momentum=0.8, epochs=9, lr=1e-2, beta2=0.9)


def test_a_proposal_tells_the_constraint_that_it_breaks(tmp_path: Path) -> None:
    path = tmp_path / "space.yaml"
    path.write_text(
        "parameters:\n  batch_size: [8, 32]\n  image_px: [128, 512]\n"
        "constraints:\n  - {batch_size: {le: 16}, when: {image_px: {ge: 384}}}\n"
    )
    space = read_space(path)

    assert propose(space, Script({"batch_size": "32", "image_px": "128"})).violated is None
    assert propose(space, Script({"batch_size": "32", "image_px": "512"})).violated == (
        "batch_size must be at most 16 where image_px is at least 384, got batch_size 32 and image_px 512"
    )


def test_plain_values_are_what_conditions_compare(tmp_path: Path) -> None:
    space = space_of(tmp_path, WINDOWS + "lr: {low: 1e-4, high: 1e-2}\nbeta1: [null, 0.95]\nepochs: 3")
    windows, lr, beta1, epochs = space.parameters

    assert plain_value(windows, [[35, 80], [80, 200]]) == "30..60/60..120+80/200"
    assert plain_value(lr, 1e-3) == 1e-3
    assert plain_value(beta1, None) == "none"
    assert plain_value(epochs, "whatever") == 3
    with pytest.raises(ConfigError, match="must be a number from"):
        plain_value(lr, 1.0)
