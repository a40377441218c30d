import math

import pytest

from ichtune.recipe import Recipe
from ichtune.search.names import METRIC
from ichtune.search.objective import FoldTrial
from ichtune.training import loop


@pytest.fixture
def config(session_workspace, tmp_path):
    recipe = Recipe(
        architecture="tiny_convnet", image_px=32, epochs=3, batch_size=8, lr=3e-3, windows="brain", ema_decay=0.9
    )
    return {
        "work": str(session_workspace.layout.root),
        "folder": str(tmp_path / "trial"),
        "trial": 4,
        "folds": [0],
        "recipe": recipe.to_dict(),
        "summary": recipe.summary,
        "n_threads": 1,
        "wants_gpu": False,
    }


def steps(trial: FoldTrial, n: int) -> list[dict]:
    return [trial.step() for _ in range(n)]


def losses(results: list[dict]) -> list[float]:
    return [result[METRIC] for result in results]


def test_every_step_is_an_epoch_and_the_last_one_is_done(config):
    results = steps(FoldTrial(config), 3)

    assert [result["epoch"] for result in results] == [1, 2, 3]
    assert [result["done"] for result in results] == [False, False, True]
    assert all(math.isfinite(loss) for loss in losses(results))


def test_a_trial_that_was_killed_tells_its_epochs_again_and_ends_the_same(config, tmp_path, monkeypatch):
    straight = losses(steps(FoldTrial({**config, "folder": str(tmp_path / "straight")}), 3))
    steps(FoldTrial(config), 2)
    trained = []
    train = loop.TrainingRun.train_epoch
    monkeypatch.setattr(
        loop.TrainingRun, "train_epoch", lambda run, *after: trained.append(run.epoch) or train(run, *after)
    )

    again = losses(steps(FoldTrial(config), 3))

    assert again == straight
    assert trained == [2]  # only the third epoch was trained anew


def test_a_trial_on_several_folds_reports_their_mean(config, tmp_path):
    alone = [
        losses(steps(FoldTrial({**config, "folds": [fold], "folder": str(tmp_path / str(fold))}), 2)) for fold in (0, 1)
    ]

    both = losses(steps(FoldTrial({**config, "folds": [0, 1]}), 2))

    assert both == pytest.approx([(a + b) / 2 for a, b in zip(*alone, strict=True)], abs=1e-12)


def test_one_actor_takes_trial_after_trial(config, tmp_path):
    trial = FoldTrial(config)
    steps(trial, 1)

    assert trial.reset_config({**config, "trial": 5, "folder": str(tmp_path / "next")})

    assert trial.step()["epoch"] == 1
    assert repr(trial).startswith("trial_0005|tiny_convnet|brain")


def test_a_trial_that_diverges_reports_it_as_a_failure(config):
    recipe = {**config["recipe"], "lr": 100.0, "optimizer": "sgd", "momentum": 0.99, "ema_decay": 0.0, "epochs": 40}
    trial = FoldTrial({**config, "recipe": recipe})

    results = [trial.step()]
    while not results[-1]["done"]:
        results.append(trial.step())

    assert "diverged" in results[-1]["failure"]
    assert math.isnan(results[-1][METRIC])


def test_a_broken_recipe_fails_the_trial_and_keeps_the_traceback(config, tmp_path):
    result = FoldTrial({**config, "recipe": {**config["recipe"], "architecture": "no_such_net"}}).step()

    assert result["done"]
    assert "unknown architecture 'no_such_net'" in result["failure"]
    assert "Traceback" in (tmp_path / "trial" / "error.txt").read_text()
