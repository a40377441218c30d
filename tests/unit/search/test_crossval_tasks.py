import json
from dataclasses import replace

import pytest

from ichtune.errors import DataError
from ichtune.recipe import Recipe
from ichtune.search import crossval_tasks
from ichtune.search.crossval_tasks import FoldTask, train_recipes
from ichtune.search.packing import TrialRequest
from ichtune.space import Resources
from ichtune.training.crossval import TrainOptions, train_fold
from ichtune.training.fold_run import fold_folder, open_fold
from ichtune.training.loop import TrainingRun

RECIPE = Recipe(architecture="tiny_convnet", image_px=32, batch_size=8, epochs=2, windows="brain", lr=3e-3)


@pytest.fixture
def no_ray(monkeypatch):
    def refuse(*arguments, **options):
        raise AssertionError("Ray was started although nothing is left to train")

    monkeypatch.setattr(crossval_tasks, "ray_session", refuse)


def test_folds_that_are_trained_need_no_ray(fake_workspace, no_ray):
    workspace = fake_workspace()
    folds = [train_fold(workspace, RECIPE, fold) for fold in range(3)]

    (run,) = train_recipes(workspace, [RECIPE], Resources())

    assert run.fold_losses == tuple(fold.val_weighted_log_loss for fold in folds)
    assert run.seconds == pytest.approx(sum(fold.seconds for fold in folds))
    sizes = workspace.folds[workspace.folds["image_id"].isin(workspace.labelled["image_id"])]["fold"].value_counts()
    weighted = sum(loss * sizes[fold] for fold, loss in enumerate(run.fold_losses)) / sizes.sum()
    assert run.oof_loss == pytest.approx(weighted)


def test_a_recipe_whose_crop_was_not_prepared_needs_no_ray_to_be_refused(fake_workspace, no_ray):
    recipes = [RECIPE, replace(RECIPE, crop="head")]

    with pytest.raises(DataError, match=r"no cache with crop 'head'.*--size 32 --crop head"):
        train_recipes(fake_workspace(), recipes, Resources())


def test_progress_counts_finished_folds_whole_and_running_ones_by_their_curve(fake_workspace):
    workspace = fake_workspace()
    train_fold(workspace, RECIPE, 0)
    running = fold_folder(workspace, RECIPE.recipe_id, 1)
    running.mkdir(parents=True)
    (running / "curve.json").write_text(json.dumps([{"epoch": 1, "train_loss": 0.1}]))
    tasks = [FoldTask(RECIPE, fold) for fold in range(3)]

    so_far = crossval_tasks._progress(workspace, tasks, tasks[1:], None)

    assert (so_far.epochs_done, so_far.epochs) == (3, 6)
    assert (so_far.folds_done, so_far.folds) == (1, 3)


def test_the_cause_of_a_failure_is_its_last_line():
    assert crossval_tasks._first_cause(DataError("one\ntwo")) == "two"
    assert crossval_tasks._first_cause(ValueError()) == "ValueError"


def test_a_fold_that_a_trial_has_begun_is_trained_on_from_there(fake_workspace, tmp_path, monkeypatch):
    workspace = fake_workspace()
    run = open_fold(workspace, RECIPE, 1).run
    run.run_epoch()
    begun = workspace.layout.searches / "x" / "trials" / "0000" / "checkpoint_fold_1.safetensors"
    run.save(begun)
    trained = []
    train = TrainingRun.train_epoch
    monkeypatch.setattr(
        TrainingRun, "train_epoch", lambda run, *after: trained.append(run.epoch + 1) or train(run, *after)
    )
    work, recipe = str(workspace.layout.root), RECIPE.to_dict()
    request = TrialRequest({"cpu": 1.0}).config()

    for fold, path in ((1, str(begun)), (2, None)):
        told = crossval_tasks._train_fold(work, recipe, fold, request, TrainOptions(), path)
        assert (told["fold"], told["epochs"]) == (fold, 2)

    assert trained == [2, 1, 2]
    notes = json.loads((fold_folder(workspace, RECIPE.recipe_id, 1) / "run.json").read_text())["notes"]
    assert notes == [f"epochs 1 to 1 are those of a trial of a search: {begun.parent}"]
