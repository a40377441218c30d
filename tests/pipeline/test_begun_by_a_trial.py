"""A fold that a trial of a search has begun is trained on from there, and ends as if trained from scratch."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch

from ichtune.recipe import Recipe
from ichtune.tables import PREDICTIONS, read_table
from ichtune.training.branch import cooldown
from ichtune.training.crossval import TrainOptions, is_complete, train_fold
from ichtune.training.fold_run import fold_folder, open_fold
from ichtune.training.loop import EpochResult, TrainingRun
from ichtune.training.predict import load_model
from ichtune.workspace import Workspace

CPU = torch.device("cpu")
FakeWorkspace = Callable[..., Workspace]
RECIPE = Recipe(architecture="tiny_convnet", windows="brain", image_px=32, lr=1e-2, epochs=2, batch_size=16)  # type: ignore[arg-type]


def begun_by_a_trial(workspace: Workspace, path: Path, n_epochs: int, fold: int = 0, recipe: Recipe = RECIPE) -> Path:
    """The checkpoint of a trial that was judged after each of its epochs."""
    run = open_fold(workspace, recipe, fold, CPU).run
    for _ in range(n_epochs):
        run.run_epoch()
        cooldown(run, 0.5)
    run.save(path)
    return path


def count_epochs(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    trained: list[int] = []
    train = TrainingRun.train_epoch
    monkeypatch.setattr(
        TrainingRun, "train_epoch", lambda run, *after: (trained.append(run.epoch + 1), train(run, *after))
    )
    return trained


@pytest.mark.slow  # takes seconds
@pytest.mark.parametrize("n_epochs", [1, 2])
def test_epochs_of_a_trial_are_not_trained_again_and_predictions_are_the_same(
    fake_workspace: FakeWorkspace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, n_epochs: int
) -> None:
    whole, continued = fake_workspace("whole"), fake_workspace("continued")
    expected = train_fold(whole, RECIPE, 0, CPU)
    begun = begun_by_a_trial(continued, tmp_path / "trial" / "checkpoint.safetensors", n_epochs)
    trained = count_epochs(monkeypatch)

    result = train_fold(continued, RECIPE, 0, CPU, begun=begun)

    assert trained == list(range(n_epochs + 1, RECIPE.epochs + 1))
    assert result.val_weighted_log_loss == expected.val_weighted_log_loss
    folders = [fold_folder(w, RECIPE.recipe_id, 0) for w in (whole, continued)]
    for name in ("oof.parquet", "test.parquet"):
        one, other = (read_table(folder / name, PREDICTIONS) for folder in folders)
        pd.testing.assert_frame_equal(one, other, check_exact=True)
    models = [load_model(folder / "weights.safetensors", CPU)[0] for folder in folders]
    for one, other in zip(*(model.networks[0].state_dict().values() for model in models), strict=True):
        assert torch.equal(one, other)
    curve = json.loads((folders[1] / "curve.json").read_text())
    assert [epoch["epoch"] for epoch in curve] == [1, 2]
    notes = json.loads((folders[1] / "run.json").read_text())["notes"]
    assert notes == [f"epochs 1 to {n_epochs} are those of a trial of a search: {begun.parent}"]
    assert begun.is_file()
    assert is_complete(continued, RECIPE, 0, TrainOptions())


@pytest.mark.parametrize(
    ("foreign", "reason"),
    [({"fold": 1}, "other slices or folds"), ({"recipe": replace(RECIPE, lr=5e-3)}, "another recipe")],
)
def test_a_foreign_checkpoint_is_left_out_with_a_note(
    fake_workspace: FakeWorkspace,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    foreign: dict[str, Any],
    reason: str,
) -> None:
    workspace = fake_workspace()
    begun = begun_by_a_trial(workspace, tmp_path / "checkpoint.safetensors", 1, **foreign)
    trained = count_epochs(monkeypatch)

    train_fold(workspace, RECIPE, 0, CPU, begun=begun)

    assert trained == [1, 2]
    (note,) = json.loads((fold_folder(workspace, RECIPE.recipe_id, 0) / "run.json").read_text())["notes"]
    assert note.startswith("trained anew, not from the trial's checkpoint: ")
    assert reason in note


def test_what_the_fold_has_trained_itself_goes_before_a_trial_s_checkpoint(
    fake_workspace: FakeWorkspace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    workspace = fake_workspace()
    begun = begun_by_a_trial(workspace, tmp_path / "checkpoint.safetensors", 1)

    def interrupt(result: EpochResult) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train_fold(workspace, RECIPE, 0, CPU, interrupt)
    trained = count_epochs(monkeypatch)
    train_fold(workspace, RECIPE, 0, CPU, begun=begun)

    assert trained == [2]
    assert json.loads((fold_folder(workspace, RECIPE.recipe_id, 0) / "run.json").read_text())["notes"] == []
