"""One leg of a trial: whenever it is killed it tells the same numbers, and pays for no epoch twice."""

import errno
import math
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest
import torch

from ichtune.errors import StorageError
from ichtune.recipe import Recipe
from ichtune.search.names import METRIC
from ichtune.search.objective import STATE_FILE, FoldTrial, checkpoint_path, plan_of
from ichtune.search.stages import FOLD_RUNG
from ichtune.space import EarlyStop
from ichtune.training import loop
from ichtune.training.branch import cooldown
from ichtune.training.fold_run import open_fold

RECIPE = Recipe(
    architecture="tiny_convnet", image_px=48, epochs=3, batch_size=8, lr=3e-3, windows="brain", ema_decay=0.9
)
STOP = EarlyStop(type="asha", grace=1, max=3, factor=2, judge="cooldown")
Config = dict[str, Any]
TWO_EPOCHS: Config = {"recipe": replace(RECIPE, epochs=2).to_dict(), "rungs": [1]}

#: How trials may be judged on their way: at moments of one run, or by runs of their own; on one fold or on several.
KINDS: dict[str, Config] = {
    "cooldown": {},
    "average": {"early_stop": replace(STOP, judge="average")},
    "last": {"early_stop": replace(STOP, judge="last")},
    "short runs": {"early_stop": replace(STOP, judge="short")},
    "smaller images": {"early_stop": replace(STOP, fidelity="image_px"), **TWO_EPOCHS},
    "fewer patients": {"early_stop": replace(STOP, fidelity="patients"), **TWO_EPOCHS},
    "several folds": {"folds": [2, 0], **TWO_EPOCHS},
    "promoted for good": {"to_end": True},
}


@pytest.fixture
def config(session_workspace, tmp_path) -> Config:
    return {
        "work": str(session_workspace.layout.root),
        "folder": str(tmp_path / "trial"),
        "trial": 4,
        "folds": [0],
        "recipe": RECIPE.to_dict(),
        "summary": RECIPE.summary,
        "parameters": {},
        "early_stop": asdict(STOP),
        "rungs": [1, 2],
        "told": 0,
        "to_end": False,
        "resources": {"cpu": 1.0},
        "n_threads": 1,
        "wants_gpu": False,
        "gpu_memory_mb": None,
    }


@pytest.fixture
def trained(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The epochs that are trained, by their number in their run."""
    epochs: list[int] = []
    train = loop.TrainingRun.train_epoch
    monkeypatch.setattr(
        loop.TrainingRun, "train_epoch", lambda run, *after: epochs.append(run.epoch + 1) or train(run, *after)
    )
    return epochs


def of_kind(config: Config, kind: str) -> Config:
    changed = {key: asdict(v) if isinstance(v, EarlyStop) else v for key, v in KINDS[kind].items()}
    return {**config, **changed}


def steps(trial: FoldTrial) -> list[Config]:
    """All results up to the last, without what a clock says."""
    results = [trial.step()]
    while not results[-1]["done"]:
        results.append(trial.step())
    return results


def numbers(results: list[Config]) -> list[Config]:
    return [{k: v for k, v in result.items() if k not in ("seconds", "images_per_second")} for result in results]


def losses(results: list[Config]) -> list[float]:
    return [result[METRIC] for result in results]


def run_of(session_workspace, recipe: Recipe = RECIPE, fold: int = 0, share: float = 1.0) -> loop.TrainingRun:
    return open_fold(session_workspace, recipe, fold, torch.device("cpu"), share=share).run


@pytest.mark.slow  # trains again after each epoch
@pytest.mark.parametrize("kind", KINDS)
def test_killed_after_any_epoch_it_goes_on_with_the_same_numbers(config, tmp_path, trained, kind):
    """The checkpoint is what the ledger knows, or one epoch ahead of it; no epoch is trained twice either way."""
    config = of_kind(config, kind)
    straight = numbers(steps(FoldTrial({**config, "folder": str(tmp_path / "straight")})))
    in_all = len(trained)
    assert [result["epoch"] for result in straight] == list(range(1, plan_of(config).n_epochs + 1))
    assert [result["done"] for result in straight] == [False] * (len(straight) - 1) + [True]
    assert all(math.isfinite(result[METRIC]) and not result["failure"] for result in straight)

    for n_done in range(1, len(straight)):
        trained.clear()
        killed = {**config, "folder": str(tmp_path / f"killed_{n_done}")}
        trial = FoldTrial(killed)
        told = [trial.step() for _ in range(n_done)]
        ahead = n_done % 2  # the last epoch reached the checkpoint, and the ledger not

        again = steps(FoldTrial({**killed, "told": n_done - ahead}))

        assert numbers(told) == straight[:n_done]
        assert numbers(again) == straight[n_done - ahead :]
        assert len(trained) == in_all


def test_rungs_are_judged_by_a_branch_that_costs_and_leaves_the_run_alone(config, session_workspace):
    results = steps(FoldTrial(config))

    run = run_of(session_workspace)
    for result in results:
        assert result[METRIC] == run.run_epoch().val_weighted_log_loss
        assert result["train_loss"] == run.history[-1].train_loss
        if result["epoch"] < 3:
            judged = cooldown(run, 0.5)
            assert (result["rung"], result["rung_loss"]) == (result["epoch"], judged.val_weighted_log_loss)
            assert result["cost"] == 1.0 + judged.epochs
            assert result["rung_loss"] != result[METRIC]
        else:
            assert "rung" not in result
            assert result["cost"] == 1.0


def test_promoted_for_good_it_is_judged_no_more(config):
    results = steps(FoldTrial({**config, "to_end": True}))

    assert not any("rung" in result for result in results)
    assert [result["cost"] for result in results] == [1.0] * 3


def test_a_leg_goes_on_beyond_the_rung_at_which_an_earlier_one_was_stopped(config, tmp_path, trained):
    straight = numbers(steps(FoldTrial({**config, "folder": str(tmp_path / "straight")})))
    FoldTrial(config).step()
    trained.clear()

    rest = numbers(steps(FoldTrial({**config, "told": 1})))

    assert rest == straight[1:]
    assert trained == [2, 3]


@pytest.mark.slow  # takes seconds
@pytest.mark.parametrize("kind", ["short runs", "smaller images", "fewer patients"])
def test_a_rung_of_its_own_is_a_complete_run_judged_on_the_same_slices(config, session_workspace, kind):
    config = of_kind(config, kind)
    results = steps(FoldTrial(config))

    first_epoch = 0
    for stage in plan_of(config).stages:
        run = run_of(session_workspace, stage.recipe, share=stage.share)
        assert list(run.valid_rows) == list(run_of(session_workspace).valid_rows)
        alone = [run.run_epoch().val_weighted_log_loss for _ in range(stage.recipe.epochs)]
        part = results[first_epoch : first_epoch + stage.recipe.epochs]
        assert losses(part) == alone
        assert [result["cost"] for result in part] == pytest.approx([stage.cost] * len(part))
        assert part[-1].get("rung") == stage.end_rung
        assert part[-1].get("rung_loss") == (None if stage.end_rung is None else alone[-1])
        first_epoch += stage.recipe.epochs
    assert first_epoch == len(results)


def test_on_a_further_fold_the_loss_is_the_mean_and_the_rung_lies_between(config, session_workspace):
    results = steps(FoldTrial({**config, "folds": [2, 0, 1], "rungs": []}))

    alone = []
    for fold in (2, 0, 1):
        run = run_of(session_workspace, fold=fold)
        alone.append([run.run_epoch().val_weighted_log_loss for _ in range(3)])
    expected = alone[0] + [(alone[0][-1] + loss) / 2 for loss in alone[1]]
    expected += [(alone[0][-1] + alone[1][-1] + loss) / 3 for loss in alone[2]]
    assert losses(results) == pytest.approx(expected, abs=1e-15)
    assert [result["fold"] for result in results] == [2] * 3 + [0] * 3 + [1] * 3
    assert {r["epoch"]: (r["rung"], r["rung_loss"]) for r in results if "rung" in r} == {
        3: (FOLD_RUNG, expected[2]),
        6: (FOLD_RUNG + 1, pytest.approx(expected[5], abs=1e-15)),
    }


def test_the_next_fold_begins_only_when_the_leg_is_told_to_go_on(config, trained):
    first = FoldTrial({**config, "folds": [2, 0], "rungs": []})
    for _ in range(3):
        first.step()

    folder = Path(config["folder"])
    assert (folder / "checkpoint_fold_2.safetensors").is_file()
    assert not (folder / "checkpoint_fold_0.safetensors").exists()
    trained.clear()
    steps(FoldTrial({**config, "folds": [2, 0], "rungs": [], "told": 3}))
    assert trained == [1, 2, 3]


def test_a_checkpoint_that_is_lost_is_trained_once_more_to_the_same_numbers(config, tmp_path):
    straight = numbers(steps(FoldTrial({**config, "folder": str(tmp_path / "straight")})))
    FoldTrial(config).step()
    for path in Path(config["folder"]).glob("checkpoint_*"):
        path.unlink()

    assert numbers(steps(FoldTrial({**config, "told": 1}))) == straight[1:]


def test_the_weights_of_a_whole_run_lie_under_its_fold(config):
    plans = {kind: plan_of(of_kind(config, kind)) for kind in KINDS}

    names = [checkpoint_path(Path(), s, n).name for n, s in enumerate(plans["short runs"].stages)]
    assert names == [
        "checkpoint_stage_0.safetensors",
        "checkpoint_stage_1.safetensors",
        "checkpoint_fold_0.safetensors",
    ]
    names = [checkpoint_path(Path(), s, n).name for n, s in enumerate(plans["several folds"].stages)]
    assert names == ["checkpoint_fold_2.safetensors", "checkpoint_fold_0.safetensors"]


def test_one_actor_takes_leg_after_leg(config, tmp_path):
    trial = FoldTrial(config)
    trial.step()

    assert trial.reset_config({**config, "trial": 5, "folder": str(tmp_path / "next")})

    assert trial.step()["epoch"] == 1
    assert repr(trial).startswith("trial_0005|tiny_convnet|brain")
    assert trial.reset_config({**config, "told": 1})
    assert trial.step()["epoch"] == 2


def test_an_actor_takes_another_leg_after_one_that_failed(config, tmp_path):
    trial = FoldTrial({**config, "recipe": {**config["recipe"], "architecture": "no_such_net"}})
    assert trial.step()["failure"]

    trial.reset_config({**config, "folder": str(tmp_path / "next")})

    assert not trial.step()["failure"]


def test_a_trial_that_diverges_reports_it_as_a_failure_and_leaves_nothing_to_go_on_from(config):
    recipe = {**config["recipe"], "lr": 100.0, "optimizer": "sgd", "momentum": 0.99, "ema_decay": 0.0, "epochs": 40}
    results = steps(FoldTrial({**config, "recipe": recipe, "rungs": []}))

    assert results[-1]["failure"] == f"diverged: the validation loss of epoch {len(results)} is nan"
    assert math.isnan(results[-1][METRIC])
    again = FoldTrial({**config, "recipe": recipe, "rungs": [], "told": len(results) - 1}).step()
    assert (again["failure"], again["epoch"], again["done"]) == (results[-1]["failure"], len(results), True)


def test_a_branch_that_diverges_fails_the_trial_whenever_it_is_asked(config, monkeypatch):
    monkeypatch.setattr("ichtune.training.branch.plain_loss", lambda run: math.nan)

    for _ in range(2):
        result = FoldTrial(config).step()

        assert result["done"]
        assert math.isnan(result[METRIC])
        assert result["failure"].startswith("diverged: the validation loss of epoch 1 is 0.")
        assert result["failure"].endswith("and nan as the rung judged it")
    assert not list(Path(config["folder"]).glob("checkpoint_*"))


def test_a_broken_recipe_fails_the_trial_and_keeps_the_traceback(config, tmp_path):
    result = FoldTrial({**config, "recipe": {**config["recipe"], "architecture": "no_such_net"}}).step()

    assert result["done"]
    assert "unknown architecture 'no_such_net'" in result["failure"]
    assert str(tmp_path / "trial" / "error.txt") in result["failure"]
    assert "Traceback" in (tmp_path / "trial" / "error.txt").read_text()


@pytest.mark.parametrize(
    "error",
    [
        RuntimeError("CUDA error"),
        ValueError(""),
        MemoryError("no memory"),
        TypeError("x"),
        KeyError("lr"),
        IndexError("out of range"),
        AttributeError("no such thing"),
        AssertionError("never"),
        ImportError("no module"),
        ZeroDivisionError("by zero"),
    ],
)
def test_what_goes_wrong_in_training_ends_the_trial_and_not_the_search(config, monkeypatch, error):
    monkeypatch.setattr(loop.TrainingRun, "train_epoch", _raising(error))

    result = FoldTrial(config).step()

    assert result["failure"].startswith(f"{type(error).__name__}: {error}")
    assert "halt" not in result


@pytest.mark.slow  # takes seconds
@pytest.mark.parametrize("error", [StorageError("the disk is full"), OSError(errno.ENOSPC, "No space left on device")])
@pytest.mark.parametrize("place", ["checkpoint", STATE_FILE])
def test_a_full_disk_halts_the_search_and_fails_no_trial(config, tmp_path, monkeypatch, trained, place, error):
    straight = numbers(steps(FoldTrial({**config, "folder": str(tmp_path / "straight")})))
    target = {"checkpoint": "ichtune.training.loop.save_checkpoint", STATE_FILE: "ichtune.search.objective.write_json"}
    with monkeypatch.context() as patch:
        patch.setattr(target[place], _raising(error))
        trial = FoldTrial(config)
        result = trial.step()
        assert (result["failure"], result["done"]) == ("", True)
        assert result["halt"] == str(error)
        assert math.isnan(result[METRIC])
        trained.clear()
        assert trial.step()["halt"]
        assert trained == [], "it went on although it had halted"

    assert numbers(steps(FoldTrial(config))) == straight


def test_a_disk_too_full_for_the_traceback_halts_too(config, monkeypatch):
    monkeypatch.setattr(loop.TrainingRun, "train_epoch", _raising(RuntimeError("broken")))
    monkeypatch.setattr(Path, "write_text", _raising(OSError(errno.ENOSPC, "No space left on device")))

    result = FoldTrial(config).step()

    assert result["halt"]
    assert result["failure"] == ""


def test_a_damaged_checkpoint_fails_the_trial_with_its_name(config):
    FoldTrial(config).step()
    (path,) = Path(config["folder"]).glob("checkpoint_*")
    path.write_bytes(b"damaged")

    assert path.name in FoldTrial({**config, "told": 1}).step()["failure"]


def test_ray_is_handed_no_checkpoint(config, tmp_path):
    trial = FoldTrial(config)

    trial.save_checkpoint(str(tmp_path))
    trial.load_checkpoint(None)

    assert list(tmp_path.iterdir()) == []


def _raising(error: BaseException) -> Callable[..., Any]:
    def fail(*arguments: Any, **options: Any) -> Any:
        raise error

    return fail
