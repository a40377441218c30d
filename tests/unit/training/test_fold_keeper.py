"""What a fold leaves on disk: its cross-validation tests look at the files, here is when they are written."""

from pathlib import Path

import torch

from ichtune.recipe import Recipe
from ichtune.training.fold_keeper import FoldKeeper
from ichtune.training.fold_run import open_fold
from ichtune.workspace import Workspace

RECIPE = Recipe(architecture="tiny_convnet", windows="brain", image_px=32, epochs=2, batch_size=16)  # type: ignore[arg-type]


def test_within_an_epoch_a_checkpoint_is_written_when_the_last_is_old_enough(
    session_workspace: Workspace, tmp_path: Path
) -> None:
    for seconds, expected in ((0.0, True), (1e6, False)):
        run = open_fold(session_workspace, RECIPE, 0, torch.device("cpu")).run
        keeper = FoldKeeper(tmp_path / str(seconds), {}, frozenset({"a"}), frozenset({"b"}), seconds)
        run.train_epoch(keeper.after_step)
        assert keeper.resume.is_file() == expected


def test_a_fresh_fold_takes_up_nothing_and_a_begun_one_goes_on(session_workspace: Workspace, tmp_path: Path) -> None:
    run = open_fold(session_workspace, RECIPE, 0, torch.device("cpu")).run
    keeper = FoldKeeper(tmp_path, {}, frozenset({"a"}), frozenset({"b"}), 0.0)
    keeper.take_up(run)
    assert run.epoch == 0
    run.run_epoch()
    keeper.after_epoch(run, keep_snapshot=False)
    again = open_fold(session_workspace, RECIPE, 0, torch.device("cpu")).run
    keeper.take_up(again)
    assert again.epoch == 1
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "best.json",
        "best.safetensors",
        "curve.json",
        "resume.safetensors",
    ]
