"""The seed's chains as shipped: from 224 to 512 pixels, from one window to three, and by pseudo-labels."""

from collections.abc import Callable
from dataclasses import replace

import pytest
import torch

from ichtune.recipe import Recipe
from ichtune.recipe_file import read_recipe
from ichtune.training.crossval import train_fold
from ichtune.training.fold_run import fold_folder, open_fold
from ichtune.training.predict import load_model
from ichtune.workspace import Workspace

CPU = torch.device("cpu")
#: Recipe and the one that it names under ``warm_start``.
CHAINS = [
    ("exp_10_tfl", "exp_10"),
    ("exp_20_512", "exp_20"),
    ("exp_10_mixup_longer", "exp_10_mixup"),
    ("exp_40", "exp_10_mixup"),
]


def small(recipe: Recipe, **links: str) -> Recipe:
    """The same recipe at a size for tests: 32 pixels for 224, 48 for 512, two epochs."""
    image_px = 48 if recipe.image_px > 300 else 32
    fast = {"image_px": image_px, "epochs": 2, "frozen_epochs": 0, "batch_size": 16, "crop": "none", "tta": "none"}
    return Recipe(**{**recipe.to_dict(), "warm_start": "", "pseudo_labels": "", "pretrained": False, **fast, **links})


@pytest.mark.slow
@pytest.mark.parametrize(("name", "first"), CHAINS)
def test_a_link_starts_from_the_weights_of_the_one_before(
    fake_workspace: Callable[..., Workspace], name: str, first: str
) -> None:
    workspace = fake_workspace(n_patients=4, n_slices=3, k=2)
    assert read_recipe(name).warm_start == read_recipe(first).recipe_id
    before = small(read_recipe(first))
    train_fold(workspace, before, 0, CPU)
    after = small(read_recipe(name), warm_start=before.recipe_id)
    run = open_fold(workspace, after, 0, CPU).run
    model, _ = load_model(fold_folder(workspace, before.recipe_id, 0) / "weights.safetensors", CPU)
    held = dict(model.networks[0].named_parameters())
    carried = [n for n, p in run.network.named_parameters() if n in held and torch.equal(p, held[n])]
    assert len(carried) >= len(held) - 1  # at most the first convolution was fitted to other windows
    train_fold(workspace, after, 0, CPU)


@pytest.mark.slow
def test_a_student_is_taught_by_the_recipe_that_its_file_names(fake_workspace: Callable[..., Workspace]) -> None:
    workspace = fake_workspace(n_patients=4, n_slices=3, k=2)
    student = read_recipe("exp_10_tfl_psd")
    assert student.pseudo_labels == read_recipe("exp_310").recipe_id
    assert student.warm_start == read_recipe("exp_10_tfl").recipe_id
    teacher = replace(small(read_recipe("exp_310")), architecture="tiny_convnet")
    start = small(read_recipe("exp_10_tfl"))
    for recipe in (teacher, start):
        train_fold(workspace, recipe, 0, CPU)
    links = {"warm_start": start.recipe_id, "pseudo_labels": teacher.recipe_id}
    train_fold(workspace, small(student, **links), 0, CPU)
