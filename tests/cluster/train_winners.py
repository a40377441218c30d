"""The winners of a search are trained on every fold as Ray tasks, once."""

import json

import pytest

from ichtune.errors import NothingUsableError
from ichtune.recipe import Recipe
from ichtune.search.crossval_tasks import train_recipes
from ichtune.space import Resources

pytestmark = pytest.mark.slow


def test_every_fold_is_trained_once_and_predictions_cover_every_slice(fake_workspace):
    workspace = fake_workspace()
    common = {"architecture": "tiny_convnet", "image_px": 32, "batch_size": 8, "epochs": 2, "lr": 3e-3}
    recipes = [Recipe(**common, windows=windows) for windows in ("brain", "subdural")]
    told = []

    runs = train_recipes(workspace, recipes, Resources(gpu=0.5, cpu=1), on_progress=told.append)

    oof, test = workspace.predictions("oof"), workspace.predictions("test")
    assert oof.groupby("recipe_id")["image_id"].apply(sorted).tolist() == [sorted(workspace.labelled["image_id"])] * 2
    assert len(test) == 2 * workspace.fold_plan.k * len(workspace.unlabelled)
    assert [run.recipe for run in runs] == recipes
    assert told[-1].epochs_done == told[-1].epochs == 12
    assert told[-1].folds_done == 6
    weights = {p: p.read_bytes() for p in workspace.layout.runs.glob("*/fold_*/weights.safetensors")}

    again = train_recipes(workspace, recipes, Resources(gpu=0.5, cpu=1), address="127.0.0.1:1")  # Ray is not needed

    assert [run.oof_loss for run in again] == [run.oof_loss for run in runs]
    assert {p: p.read_bytes() for p in weights} == weights
    assert len(weights) == 6


def test_a_fold_that_fails_is_named_and_the_others_are_kept(fake_workspace):
    workspace = fake_workspace()
    recipe = Recipe(architecture="tiny_convnet", image_px=32, batch_size=8, epochs=1, windows="brain")
    train_recipes(workspace, [recipe], Resources(cpu=1))
    run = workspace.layout.runs / recipe.recipe_id
    (run / "fold_1" / "run.json").unlink()
    (run / "fold_1" / "resume.safetensors").write_bytes(b"damaged")

    with pytest.raises(NothingUsableError, match=r"1 of 1 folds failed.*fold 1 of tiny_convnet"):
        train_recipes(workspace, [recipe], Resources(cpu=1))

    assert json.loads((run / "fold_0" / "run.json").read_text())["fold"] == 0
