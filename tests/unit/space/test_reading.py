"""A whole space: sections, defaults, and values that exclude each other, found before anything runs."""

import json
from pathlib import Path

import pytest

from ichtune.errors import ConfigError
from ichtune.recipe import Recipe
from ichtune.space import EarlyStop, FoldSettings, Resources, Space, read_space

LR = "parameters:\n  lr: [1e-3, 1e-2]\n"


def read(tmp_path: Path, text: str) -> Space:
    path = tmp_path / "some.yaml"
    path.write_text(text)
    return read_space(path)


def test_the_example_of_the_grammar(tmp_path: Path) -> None:
    space = read(
        tmp_path,
        """\
version: 1
metric: {name: val_weighted_log_loss, goal: minimize}
search: {algorithm: tpe, trials: 60, time: 6h, seed: 7, early_stop: {type: asha, grace: 1, max: 6, factor: 3}}
folds: {k: 5, seed: 7, search_on: [0]}
resources: {gpu: 0.5, cpu: 4}
parameters:
  architecture: [resnet34, seresnext50_32x4d, tf_efficientnet_b3]
  image_px: {low: 256, high: 512, step: 64}
  lr: {low: 1e-5, high: 3e-3, log: true}
  anneal_start: {low: 0.3, high: 0.8}
  loss_weights: {choices: [[2, 1, 1, 1, 1, 1], [1, 1, 1, 1, 1, 1]]}
  optimizer: {choices: [radam, adamw, sgd]}
  momentum: {low: 0.8, high: 0.99, when: {optimizer: sgd}}
  epochs: 4
  windows:
    - brain_subdural_soft
    - [[40, 80], [80, 200], [600, 2800]]
    - [[{low: 30, high: 60}, {low: 60, high: 120}], [80, 200]]
start_with:
  - {architecture: resnet34, lr: 3e-4, optimizer: adamw}
""",
    )
    assert space.name == "some"
    assert (space.search.algorithm, space.search.trials, space.search.time_s) == ("tpe", 60, 21600)
    assert space.search.early_stop == EarlyStop("asha", grace=1, max=6, factor=3)
    assert space.folds == FoldSettings(k=5, seed=7, search_on=(0,))
    assert space.resources == Resources(gpu=0.5, cpu=4)
    assert [parameter.key for parameter in space.parameters] == [
        "architecture",
        "image_px",
        "lr",
        "anneal_start",
        "loss_weights",
        "optimizer",
        "momentum",
        "epochs",
        "windows",
    ]
    assert space.start_with == ({"architecture": "resnet34", "lr": 3e-4, "optimizer": "adamw"},)


def test_defaults(tmp_path: Path) -> None:
    space = read(tmp_path, LR)
    assert space.search.algorithm == "tpe"
    assert space.search.time_s is None
    assert space.search.early_stop.type == "none"
    assert space.folds == FoldSettings(None, None, (0,))
    assert space.train.top == 3
    assert space.start_with == ()


@pytest.mark.parametrize(
    ("epochs", "most"),
    [
        ("", 4),
        ("  epochs: 2\n", 2),
        ("  epochs: 9\n", 9),
        ("  epochs: [2, 7, 5]\n", 7),
        ("  epochs: {low: 3, high: 12}\n", 12),
        ("  epochs: {value: 2, when: {lr: 1e-2}}\n", 4),
        ("  epochs: {low: 1, high: 3, when: {lr: 1e-2}}\n", 4),
        ("  epochs: {choices: [2, 7], when: {lr: 1e-2}}\n", 7),
    ],
)
def test_early_stop_ends_with_the_longest_trial(tmp_path: Path, epochs: str, most: int) -> None:
    assert read(tmp_path, LR + epochs + "search: {early_stop: asha}\n").search.early_stop.max == most


def test_no_recipe_has_more_epochs_than_the_scheduler_allows(tmp_path: Path) -> None:
    conditional = LR + "  epochs: {value: 2, when: {lr: 1e-2}}\n"
    with pytest.raises(ConfigError, match=r":4:28: .*must not be below the 4 epochs of a trial"):
        read(tmp_path, conditional + "search: {early_stop: {max: 3, type: asha}}\n")

    read(tmp_path, conditional + "search: {early_stop: {type: asha, grace: 3}}\n")


def test_words_of_ray_are_understood(tmp_path: Path) -> None:
    space = read(tmp_path, LR + "search: {early_stop: {type: asha, grace_period: 2, max_t: 9, reduction_factor: 4}}\n")
    assert space.search.early_stop == EarlyStop("asha", grace=2, max=9, factor=4)


@pytest.mark.parametrize(
    ("written", "resources"),
    [
        ("auto", Resources(auto=True)),
        ("{gpu: auto, cpu: 2}", Resources(cpu=2, auto=True)),
        ("{gpu: 0.25, cpu: 2, gpu_memory: 12GiB}", Resources(0.25, 2.0, 12288.0)),
        ("{gpu_memory: 800}", Resources(gpu_memory_mb=800.0)),
    ],
)
def test_resources_and_what_they_read_back_as(tmp_path: Path, written: str, resources: Resources) -> None:
    space = read(tmp_path, LR + f"resources: {written}\n")

    assert space.resources == resources
    assert read(tmp_path, json.dumps(space.resolved())) == space


def test_budgets_and_judges_read_back(tmp_path: Path) -> None:
    stop = "{type: asha, judge: cooldown, cooldown: 2}"
    budget = "gpu_hours: 3, until_no_gain: 20, learn_from: [first, second]"
    space = read(tmp_path, LR + f"search: {{{budget}, early_stop: {stop}}}\n")

    assert space.search.early_stop == EarlyStop("asha", max=4, judge="cooldown", cooldown=2.0)
    assert (space.search.gpu_hours, space.search.until_no_gain) == (3.0, 20)
    assert space.search.learn_from == ("first", "second")
    assert read(tmp_path, json.dumps(space.resolved())) == space


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("parameters:\n  lrr: 1\n", r":2:3: unknown key 'lrr' in parameters\. Did you mean 'lr'"),
        ("parameters:\n  image_px: 8\n", r":2:13: parameters\.image_px: .*between 16 and 2048, got 8"),
        ("parameters:\n  image_px: [64, 8]\n", r":2:18: parameters\.image_px\[1\]: .*got 8"),
        ("parameters:\n  image_px: {low: 8, high: 64}\n", r":2:19: parameters\.image_px\.low: .*got 8"),
        ("parameters:\n  lr: -1\n", r":2:7: parameters\.lr: .*got -1"),
        ("parameters:\n  epochs: four\n", r":2:11: parameters\.epochs: .*must be a whole number, got 'four'"),
        ("parameters:\n  architecture: [resnet18, 3]\n", r"architecture\[1\]: .*must be a name, got 3"),
        ("parameters:\n  windows: [[[30, {low: -9, high: 9}]]]\n", r"windows\[0\].*width must be a positive number"),
        ("parameters: {}\n", r":1:13: parameters: expected at least one parameter"),
        ("lr: 3\n", r":1:1: unknown key 'lr'"),
        ("parameterz: {}\n", "Did you mean 'parameters'"),
        ("- lr\n", "maps keys to values"),
        (LR + "version: 2\n", r":3:10: version: .*reads version 1"),
        (LR + "name: [x]\n", r":3:7: name: must be a name"),
        (LR + "name: ../../evil\n", r":3:7: name: must be a name of up to 100 letters.* got '\.\./\.\./evil'$"),
        (LR + "search: {learn_from: a/b}\n", r":3:22: search\.learn_from: must be a name .* got 'a/b'"),
        (
            LR + "search: {early_stop: {type: asha, judge: short, fidelity: patients}}\n",
            r":3:42: search\.early_stop\.judge: has no effect with fidelity patients; leave one of the two out",
        ),
        (
            LR + "search: {early_stop: {type: asha, fidelity: image_px, cooldown: 0.5}}\n",
            r":3:65: search\.early_stop\.cooldown: has no effect with fidelity image_px",
        ),
        (
            LR + "search: {early_stop: {type: asha, judge: last, cooldown: 3}}\n",
            r":3:58: search\.early_stop\.cooldown: has no effect with judge last",
        ),
        (
            LR + "search: {early_stop: {grace_period: 3}}\n",
            r":3:37: search\.early_stop\.grace_period: has no effect with type none, which is the default",
        ),
        (LR + "search: {trils: 3}\n", r":3:10: unknown key 'trils' in search\. Did you mean 'trials'"),
        (LR + "search: {trials: 0}\n", r":3:18: search\.trials: must be a whole number, at least 1, got 0"),
        (LR + "search: {time: 6x}\n", r":3:16: search\.time: .*got '6x'"),
        (LR + "search: 3\n", r":3:9: search: must be a mapping"),
        (LR + "search: {early_stop: {type: asha, grace: 50}}\n", r":3:42: .*must not exceed the 4 epochs of a trial"),
        (LR + "search: {early_stop: {grace_period: 9, max: 3}}\n", r":3:37: .*grace_period: must not exceed max"),
        (LR + "search: {early_stop: {max_t: 3, max: 3}}\n", "says the same as 'max_t'"),
        (LR + "folds: {k: 5, search_on: [5]}\n", r":3:26: folds\.search_on"),
        (LR + "resources: {gpus: 1}\n", "unknown key 'gpus' in resources. Did you mean 'gpu'"),
        (LR + "resources: automatic\n", r":3:12: resources: must be auto, or map gpu and cpu"),
        (
            LR + "resources: {gpu: autos}\n",
            r":3:18: resources\.gpu: must be a number of at least 0 or auto, got 'autos'",
        ),
        (LR + "resources: {gpu_memory: 12G}\n", r":3:25: resources\.gpu_memory: must be an amount of memory"),
        (
            LR + "resources: {gpu_memory_mb: 12}\n",
            "unknown key 'gpu_memory_mb' in resources. Did you mean 'gpu_memory'",
        ),
        (
            LR + "search: {early_stop: {judge: cooldwn}}\n",
            r":3:30: search\.early_stop\.judge: .*Did you mean 'cooldown'",
        ),
        (LR + "search: {early_stop: {cooldown: 9}}\n", r":3:33: search\.early_stop\.cooldown: .*at most 8, got 9"),
        (LR + "search: {early_stop: {fidelity: px}}\n", r":3:33: search\.early_stop\.fidelity: must be one of epochs"),
        (LR + "search: {gpu_hours: 6h}\n", r":3:21: search\.gpu_hours: must be a number above 0, got '6h'"),
        (LR + "search: {until_no_gain: 0}\n", r":3:25: search\.until_no_gain: .*at least 1, got 0"),
        (LR + "search: {learn_from: [a, 3]}\n", r":3:22: search\.learn_from: must be a name of up .* got 3"),
        (LR + "metric: {mode: max}\n", r":3:16: metric\.mode: must be minimize"),
        (LR + "start_with: {lr: 3}\n", r":3:13: start_with: must be a list"),
        (LR + "start_with: [3]\n", r"start_with\[0\]: must map parameters to values, or name a recipe, got 3"),
        (LR + "start_with: [{lr: 3}]\n", r":3:19: start_with\[0\]\.lr: 3 is not among the choices"),
        (LR + "start_with: [{lrr: 3}]\n", r":3:20: start_with\[0\]\.lrr: .*Did you mean 'lr'"),
    ],
)
def test_mistakes_are_reported_where_they_stand(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message) as caught:
        read(tmp_path, text)
    assert str(caught.value).startswith(str(tmp_path / "some.yaml"))


def test_a_file_s_own_name_that_is_none_is_reported_with_the_way_out(tmp_path: Path) -> None:
    path = tmp_path / "my space.yaml"
    path.write_text(LR)

    with pytest.raises(ConfigError, match=r"my space\.yaml:1:1: .*got 'my space'; it is the file's own: rename"):
        read_space(path)
    path.write_text(LR + "name: mine\n")
    assert read_space(path).name == "mine"


def test_a_cycle_is_reported_at_a_condition(tmp_path: Path) -> None:
    text = """\
parameters:
  optimizer: {choices: [sgd, adamw], when: {momentum: {gt: 0.9}}}
  momentum: {low: 0.8, high: 0.99, when: {optimizer: sgd}}
"""
    with pytest.raises(ConfigError, match=r":2:44: .*cycle: optimizer -> momentum -> optimizer"):
        read(tmp_path, text)


def test_a_bound_is_tried_although_its_condition_rarely_holds(tmp_path: Path) -> None:
    text = """\
parameters:
  optimizer: [adamw, radam, sgd]
  momentum: {low: 0.8, high: 1.5, when: {optimizer: radam}}
"""
    with pytest.raises(ConfigError, match=r":3:30: parameters\.momentum\.high: .*got 1\.5"):
        read(tmp_path, text)


def test_values_that_exclude_each_other_are_found(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r":2:17: .*excludes other values .*anneal_start 0\.2 and warmup 0\.3"):
        read(tmp_path, "parameters:\n  warmup: [0.0, 0.3]\n  anneal_start: {low: 0.2, high: 0.8}\n")


@pytest.mark.parametrize(
    "parameters",
    [
        "  warmup: 0.0\n  anneal_start: {low: 0.02, high: 0.8}\n",
        "  warmup: [0.0, 0.01]\n  anneal_start: 0.02\n",
        "  warmup: {choices: [0.1, 0.3], when: {anneal_start: {ge: 0.5}}}\n  anneal_start: [0.2, 0.6]\n",
    ],
)
def test_values_that_only_exclude_defaults_or_never_meet_are_fine(tmp_path: Path, parameters: str) -> None:
    assert read(tmp_path, "parameters:\n" + parameters).searched


def test_a_search_that_would_end_every_trial_before_its_schedule_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "space.yaml"
    path.write_text("search: {early_stop: {type: asha, max: 4}}\nparameters:\n  epochs: 8\n  lr: [1e-3, 1e-2]\n")

    with pytest.raises(ConfigError, match=r"space.yaml:1:\d+.*must not be below the 8 epochs of a trial"):
        read_space(path)


def test_a_start_names_files_recipes_and_policies_as_the_choices_do(tmp_path: Path) -> None:
    (tmp_path / "weights.safetensors").touch()
    (tmp_path / "first.yaml").write_text("epochs: 9\n")
    space = read(
        tmp_path,
        """\
parameters:
  pretrained: [false, weights.safetensors]
  pseudo_labels: ["", first.yaml]
  augmentation: [none, [{Affine: {p: 0.5}}]]
  beta1: [null, 0.95]
start_with:
  - {pretrained: weights.safetensors, augmentation: [{Affine: {p: 0.5}}], beta1: null}
  - {pseudo_labels: first.yaml, beta1: none}
""",
    )
    assert space.start_with == (
        {
            "pretrained": str(tmp_path / "weights.safetensors"),
            "augmentation": '[{"Affine":{"p":0.5}}]',
            "beta1": None,
        },
        {"pseudo_labels": Recipe(epochs=9).recipe_id, "beta1": None},
    )


def test_a_start_that_names_no_recipe_is_reported_where_it_stands(tmp_path: Path) -> None:
    text = LR + '  warm_start: ["", 0123456789ab]\nstart_with: [{lr: 1e-3}, {warm_start: nowhere}]\n'
    with pytest.raises(ConfigError, match=r"^[^:]*:4:39: start_with\[1\]\.warm_start: cannot read 'nowhere'"):
        read(tmp_path, text)
