"""Every shipped recipe of a network: read, told, named by tables that exist, and trained for three steps."""

import math
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from ichtune.cli.main import main
from ichtune.data.dataset import SliceBatches
from ichtune.recipe import Recipe
from ichtune.recipe_catalogue import read_header
from ichtune.recipe_file import read_any_recipe
from ichtune.recipe_file import read_recipe as read_anew
from ichtune.shipped import shipped_files
from ichtune.training.checks import check_recipe
from ichtune.training.fold_run import fold_rows, open_batches
from ichtune.training.loop import TrainingRun
from ichtune.workspace import Workspace
from ichtune.yaml_positions import read_yaml

FILES = {name: path for name, path in shipped_files("recipes").items() if isinstance(read_any_recipe(name), Recipe)}
NAMES = list(FILES)
DOCS = Path(__file__).parents[2] / "docs"
#: Experiments of the seed, each of which is a recipe.
SEED = (
    *("exp_00", "exp_10", "exp_10_tfl", "exp_10_tfl_psd", "exp_10_mixup", "exp_10_mixup_longer"),
    *("exp_10_mixup_tfl_512", "exp_20", "exp_20_512", "exp_30", "exp_40", "exp_50", "exp_60", "exp_70", "exp_80"),
    *("exp_90", "exp_300", "exp_310", "exp_340", "exp_400"),
)
#: What tells on which scale a published figure is.
SCALES = ("validation loss", "leaderboard", "out-of-fold", "Areas under the curve", "not printed")
#: Recipes whose training is tested with the fast tests, too.
QUICK = ("exp_00", "top5_resnet18", "top8_resnet18_flat_anneal", "top9_resnet34_multi_target")
#: The size of a test, and that of networks whose convolutions without padding would leave nothing of it.
SMALL_PX, UNPADDED_PX = 64, 80


@cache
def read_recipe(name: str) -> Recipe:
    return read_anew(name)


def trained_names() -> list[Any]:
    """Return every name; all but a few small networks are slow together."""
    return [pytest.param(name, marks=[] if name in QUICK else [pytest.mark.slow]) for name in NAMES]


def a_bleed_and_none(data: SliceBatches, rows: np.ndarray) -> np.ndarray:
    """Return two of the rows: the first with a bleed and the first without."""
    has_bleed = data.labels(rows).any(axis=1)
    return np.array([rows[has_bleed][0], rows[~has_bleed][0]])


def named_by(name: str) -> set[str]:
    """Return the recipes that must have run before this one, as its file names them."""
    values = read_yaml(FILES[name]).value
    return {values[key] for key in ("warm_start", "pseudo_labels") if values.get(key)}


def small(recipe: Recipe) -> Recipe:
    """Return the recipe at the size of a test: all that it does, in three epochs of one step of two small slices."""
    return replace(
        recipe,
        image_px=UNPADDED_PX if "inception" in recipe.architecture else SMALL_PX,
        crop="none",
        epochs=3,
        frozen_epochs=min(1, recipe.frozen_epochs),
        snapshots=min(2, recipe.snapshots),
        batch_size=2,
        pretrained=False,
        warm_start="",
        pseudo_labels="",
    )


def test_every_experiment_of_the_seed_is_there() -> None:
    assert set(SEED) <= set(NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_it_is_read_and_every_name_in_it_is_known(name: str) -> None:
    recipe = read_recipe(name)
    check_recipe(recipe)
    assert Recipe.from_dict(recipe.to_dict()) == recipe


@pytest.mark.parametrize("name", NAMES)
def test_its_header_says_what_it_is(name: str) -> None:
    header = read_header(FILES[name])
    assert header["Command"] == f"ichtune train --recipe {name}"
    assert any(scale in header["Figures"] for scale in SCALES)
    assert all(len(line) <= 120 for line in FILES[name].read_text(encoding="utf-8").splitlines())


@pytest.mark.parametrize("name", NAMES)
def test_what_it_builds_on_is_shipped_and_ends_somewhere(name: str) -> None:
    before, waiting = set(), named_by(name)
    while waiting:
        assert waiting <= set(NAMES)
        assert name not in waiting, f"{name} would have to run before itself"
        before |= waiting
        waiting = set().union(*map(named_by, waiting)) - before


@pytest.mark.parametrize("name", NAMES)
def test_it_starts_from_the_weights_of_its_own_network(name: str) -> None:
    start = read_yaml(FILES[name]).value.get("warm_start")
    assert start is None or read_recipe(start).architecture == read_recipe(name).architecture


@pytest.mark.parametrize("name", NAMES)
def test_it_shifts_no_probability(name: str) -> None:
    recipe = read_recipe(name)
    assert set(recipe.positive_weights) == {1.0}
    assert recipe.negative_share == 1.0


@pytest.mark.slow  # every shipped network
@pytest.mark.parametrize("name", trained_names())
def test_it_trains(name: str, session_workspace: Workspace) -> None:
    recipe = small(read_recipe(name))
    rows = fold_rows(session_workspace, 0)
    data = open_batches(session_workspace, recipe)
    run = TrainingRun(
        recipe, data, a_bleed_and_none(data, rows.train), a_bleed_and_none(data, rows.valid), torch.device("cpu")
    )
    before = {key: weight.clone() for key, weight in run.network.named_parameters()}
    steps: list[int] = []
    while not run.finished:
        assert math.isfinite(run.run_epoch(lambda going: steps.append(going.epoch)).train_loss)
    assert steps == [0, 1, 2]
    assert run.history[-1].val_weighted_log_loss > 0
    after = dict(run.network.named_parameters())
    assert all(torch.isfinite(weight).all() for weight in after.values())
    assert sum(not torch.equal(before[key], after[key]) for key in before) > len(before) / 2


def test_no_two_are_the_same_run() -> None:
    ids = {name: read_recipe(name).recipe_id for name in NAMES}
    assert len(set(ids.values())) == len(ids)


@pytest.mark.parametrize(("page", "options"), [("recipes.md", []), ("recipe-keys.md", ["--keys"])])
def test_the_page_is_what_the_command_prints(page: str, options: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["recipes", "--markdown", *options]) == 0
    printed = capsys.readouterr().out
    assert printed == (DOCS / page).read_text(encoding="utf-8"), (
        f"docs/{page} is stale: ichtune recipes --markdown {' '.join(options)} > docs/{page}"
    )
