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


def keeper_of(folder: Path) -> FoldKeeper:
    return FoldKeeper(folder, {}, frozenset({"a"}), frozenset({"b"}), 0.0)


def test_the_epochs_of_a_trial_are_taken_over_with_a_note(session_workspace: Workspace, tmp_path: Path) -> None:
    trial = open_fold(session_workspace, RECIPE, 0, torch.device("cpu")).run
    trial.run_epoch()
    begun = tmp_path / "trials" / "0003" / "checkpoint.safetensors"
    trial.save(begun)
    run = open_fold(session_workspace, RECIPE, 0, torch.device("cpu")).run

    keeper_of(tmp_path / "fold").take_over(run, begun)

    assert run.history == trial.history
    assert run.notes[-1] == f"epochs 1 to 1 are those of a trial of a search: {begun.parent}"


def test_what_is_not_the_same_run_is_not_taken_over_and_the_note_says_why(
    session_workspace: Workspace, tmp_path: Path
) -> None:
    other_fold = open_fold(session_workspace, RECIPE, 1, torch.device("cpu")).run
    other_fold.run_epoch()
    other_fold.save(tmp_path / "other.safetensors")
    (tmp_path / "damaged.safetensors").write_bytes(b"damaged")
    for name, reason in (("other", "other slices"), ("damaged", "no checkpoint"), ("absent", "does not exist")):
        run = open_fold(session_workspace, RECIPE, 0, torch.device("cpu")).run
        before = {key: tensor.clone() for key, tensor in run.network.state_dict().items()}

        keeper_of(tmp_path / "fold").take_over(run, tmp_path / f"{name}.safetensors")

        assert run.epoch == 0
        assert run.notes[-1].startswith("trained anew, not from the trial's checkpoint: ")
        assert reason in run.notes[-1]
        assert all(torch.equal(before[key], tensor) for key, tensor in run.network.state_dict().items())
