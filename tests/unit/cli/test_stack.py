"""`ichtune stack`: what it prints and leaves, which recipes it takes, and what it says where there is nothing."""

import json
import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from ichtune.cli.main import main
from ichtune.cli.stack import DEFAULT_RECIPES, _chosen, stack
from ichtune.ensemble.members.panel import load_panel
from ichtune.errors import ConfigError, DataError
from ichtune.locks import only_one
from ichtune.recipe_file import read_second_level_recipe
from ichtune.search.ledger import FINISHED, Ledger, TrialRecord
from ichtune.search.trial_table import ledger_path, lock_path, trial_folder
from ichtune.second_level.fold_run import open_second_level_fold
from ichtune.second_level.metadata import MetadataLosses
from ichtune.second_level_recipe import SecondLevelRecipe
from ichtune.training.embeddings import write_embeddings

pytestmark = pytest.mark.slow  # whole workspaces are searched, trained, blended or drawn

ONE, TWO = "aaaaaaaaaaaa", "bbbbbbbbbbbb"
KERNEL = SecondLevelRecipe(model="kernel", members=(ONE, TWO))
GAUSSIAN = replace(KERNEL, model="gaussian")


@pytest.fixture
def run(run_alone):
    return run_alone(stack)


@pytest.fixture(autouse=True)
def _files_need_not_last(monkeypatch: pytest.MonkeyPatch) -> None:
    """No power fails here, and waiting for the disk takes long."""
    monkeypatch.setattr("ichtune.tables.os.fsync", lambda descriptor: None)


@pytest.fixture
def made(make_blend_workspace):
    made = make_blend_workspace(n_patients=15, n_test_patients=3, noises=(), in_runs=True)
    made.add_run(ONE, 2.0)
    made.add_run(TWO, 2.5)
    return made


def add_search(made, *losses: float, name: str = "second", **space: object) -> Ledger:
    """Leave a search of the second level on fold 0: smoothing by a kernel, and by a Gaussian."""
    ledger = Ledger(ledger_path(made.open().layout, name))
    ledger.open({"folds": [0], "space": {"level": 2, "train": {"top": 2}, **space}})
    for number, (recipe, loss) in enumerate(zip((KERNEL, GAUSSIAN), losses, strict=False)):
        ledger.start(TrialRecord(number, {}, {}, recipe))
        ledger.epoch(number, {"epoch": 1, "val_weighted_log_loss": loss, "seconds": 1.0})
        ledger.end(number, FINISHED)
    return ledger


def test_it_says_what_a_recipe_gained_and_what_to_do_next(made, run) -> None:
    outcome = run("--work", made.root, "--recipe", "level2_smoothing")
    lines = outcome.stdout.splitlines()
    assert len(lines) == 3
    assert "out-of-fold " in lines[0]
    assert lines[0].endswith("gaussian on 2 runs|width per label, on generated data (phantom)")
    assert lines[1].startswith("  equal mean of its inputs ")
    assert lines[2].startswith("  best single input ")
    assert "difference -" in lines[1]
    assert "95 % interval -" in lines[1]
    assert outcome.stderr.splitlines()[-1] == f"next: ichtune blend --work {made.root}"
    assert "\x1b" not in outcome.output


def test_scripts_get_json_and_the_runs_can_be_blended(made, run) -> None:
    arguments = ("--work", made.root, "--recipe", "level2_smoothing", "--recipe", "level2_kernel", "--json", "--quiet")
    outcome = run(*arguments)
    rows = json.loads(outcome.stdout)
    assert outcome.stderr == ""
    assert [row["model"] for row in rows] == ["gaussian", "kernel"]
    for row in rows:
        assert row["to_equal_mean"]["low"] <= row["to_equal_mean"]["estimate"] <= row["to_equal_mean"]["high"]
        assert row["oof_loss"] - row["equal_mean_loss"] == pytest.approx(row["to_equal_mean"]["estimate"])
        assert row["metadata_only_loss"] is None
        assert row["generated"] is True
        assert [member["recipe_id"] for member in row["members"]] == [ONE, TWO]
    panel = load_panel(made.open())
    assert {member.recipe_id for member in panel.members} == {ONE, TWO, *(row["recipe_id"] for row in rows)}
    again = json.loads(run(*arguments).stdout)
    assert [{**row, "seconds": 0} for row in again] == [{**row, "seconds": 0} for row in rows]


def test_a_member_that_was_trained_again_is_said(made, run) -> None:
    run("--work", made.root, "--recipe", "level2_kernel")
    made.add_run(TWO, 2.5)
    assert (
        f"trained again, since what {TWO} predicts has changed"
        in run("--work", made.root, "--recipe", "level2_kernel").stderr
    )


def test_metadata_comes_with_what_it_buys_alone(made, run, tmp_path: Path, monkeypatch) -> None:
    told = MetadataLosses(metadata_only=0.41, prior=0.52)
    monkeypatch.setattr("ichtune.second_level.metadata.metadata_losses", lambda view, y_RL, fold_R: told)
    path = tmp_path / "with_metadata.yaml"
    path.write_text(
        "level: 2\nmodel: hist_gradient_boosting\nrounds: 2\nneighbours: 0\naggregates: false\nmetadata: true\n"
    )
    outcome = run("--work", made.root, "--recipe", path)
    (row,) = json.loads(run("--work", made.root, "--recipe", path, "--json").stdout)
    assert (row["metadata_only_loss"], row["prior_loss"]) == (0.41, 0.52)
    assert outcome.stdout.splitlines()[-1] == (
        "  metadata alone           0.4100  what a scanner tells without a look at the slice; the labels' rates alone "
        "0.5200"
    )


def test_without_a_recipe_or_a_search_one_model_of_each_kind_is_trained(made) -> None:
    assert [recipe.model for recipe in _chosen(made.open(), None, None, quiet=True)] == [
        "gru",
        "hist_gradient_boosting",
        "gaussian",
    ]


def test_winners_of_a_search_are_trained_on_every_fold_and_its_trial_s_fold_is_not_trained_again(made, run) -> None:
    add_search(made, 0.3, 0.2)
    workspace = made.open()
    trial = open_second_level_fold(workspace, GAUSSIAN, 0)
    trial.run_epoch()
    folder = trial_folder(workspace.layout, "second", 1)
    trial.save(folder / "checkpoint_fold_0.safetensors")
    outcome = run("--work", made.root, "--search", "second", "--top", 1)
    said = outcome.stderr.splitlines()
    assert "winners of search second; --recipe names other recipes" in said
    assert f"{GAUSSIAN.recipe_id}: 1 of 1 epochs are those of a trial of a search: {folder.resolve()}" in said
    assert [line.split()[0] for line in outcome.stdout.splitlines() if "out-of-fold" in line] == [GAUSSIAN.recipe_id]
    curve = json.loads((workspace.layout.runs / GAUSSIAN.recipe_id / "fold_0" / "curve.json").read_text())
    assert curve[0]["seconds"] == trial.history[0].seconds
    rows = json.loads(run("--work", made.root, "--json", "--quiet").stdout)  # as many as the search asks for
    assert [row["recipe_id"] for row in rows] == [GAUSSIAN.recipe_id, KERNEL.recipe_id]


def test_only_a_search_that_is_done_takes_the_place_of_the_default_recipes(made) -> None:
    ledger, defaults = add_search(made), [read_second_level_recipe(name) for name in DEFAULT_RECIPES]
    assert _chosen(made.open(), None, None, quiet=True) == defaults
    ledger.start(TrialRecord(0, {}, {}, KERNEL))
    ledger.epoch(0, {"epoch": 1, "val_weighted_log_loss": 0.3, "seconds": 1.0})
    assert _chosen(made.open(), None, None, quiet=True) == defaults
    ledger.end(0, FINISHED)
    assert _chosen(made.open(), None, None, quiet=True) == [KERNEL]
    with only_one(lock_path(made.open().layout, "second"), "it runs"):
        assert _chosen(made.open(), None, None, quiet=True) == defaults
        assert _chosen(made.open(), "second", None, quiet=True) == [KERNEL]


def test_winners_that_there_are_not_are_missed_by_name(made, run) -> None:
    work = ("--work", made.root)
    with pytest.raises(DataError, match=r"run `ichtune search --space second_level.yaml` first"):
        run(*work, "--top", 2)
    add_search(made, name="windows", level=1)
    with pytest.raises(ConfigError, match=r"'windows' is of level 1; .*`ichtune train --search windows`"):
        run(*work, "--search", "windows")
    add_search(made)
    with pytest.raises(DataError, match=r"no search 'secnd' in .*; there is second, windows"):
        run(*work, "--search", "secnd")
    with pytest.raises(DataError, match=r"no trial in .* has ended with a loss"):
        run(*work, "--search", "second")
    for option in (("--search", "second"), ("--top", 1)):
        with pytest.raises(ConfigError, match=r"--recipe names recipes; give one of them"):
            run(*work, "--recipe", "level2_kernel", *option)


def test_a_winner_whose_run_is_gone_says_which(made, run) -> None:
    add_search(made, 0.3)
    os.rename(made.root / "runs" / TWO, made.root / "elsewhere")
    with pytest.raises(ConfigError, match=f"no run has recipe_id '{TWO}'"):
        run("--work", made.root)


def test_embeddings_at_a_url_are_fetched_and_what_is_made_is_put_there(
    make_blend_workspace, run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = make_blend_workspace(n_patients=12, n_test_patients=21, noises=(), in_runs=True)
    made.add_run(ONE, 2.0)
    workspace, rng = made.open(), np.random.default_rng(3)
    for fold in range(3):
        for kind, slices in (("oof", workspace.labelled), ("test", workspace.unlabelled)):
            path = workspace.layout.runs / ONE / f"fold_{fold}" / f"{kind}_embeddings.parquet"
            e_MND = rng.standard_normal((1, len(slices), 4)).astype(np.float32)
            write_embeddings(path, slices["image_id"].tolist(), e_MND, {})
    recipe = tmp_path / "embedded.yaml"
    recipe.write_text("level: 2\nmodel: conv\nembeddings: 2\nhidden: 4\nlayers: 1\nepochs: 1\n")
    monkeypatch.setenv("ICHTUNE_MIRROR", str(tmp_path / "mirror"))
    arguments = ("--recipe", "level2_kernel", "--recipe", recipe, "--recipe", "level2_smoothing", "--json", "--quiet")
    rows = json.loads(run("--work", f"file://{made.root}", *arguments).stdout)
    assert {path.name for path in (made.root / "runs" / rows[1]["recipe_id"] / "fold_2").glob("[!.]*")} == {
        *("curve.json", "oof.parquet", "run.json", "test.parquet", "weights.safetensors")
    }
    here = json.loads(run("--work", made.root, *arguments).stdout)  # what lies there is not trained again
    assert [row["seconds"] for row in here] == [row["seconds"] for row in rows]
    assert [row["oof_loss"] for row in here] == pytest.approx([row["oof_loss"] for row in rows])


def test_without_unlabelled_slices_it_is_trained_all_the_same(make_blend_workspace, run) -> None:
    made = make_blend_workspace(n_patients=12, n_test_patients=0, noises=(), in_runs=True)
    made.write_run(ONE, made.predictions(ONE, 3.0)[0], None)
    (row,) = json.loads(run("--work", made.root, "--recipe", "level2_kernel", "--json", "--quiet").stdout)
    assert row["oof_loss"] < row["equal_mean_loss"]


def test_without_runs_the_command_that_makes_them_is_named(make_blend_workspace, run) -> None:
    made = make_blend_workspace(n_patients=6, noises=())
    with pytest.raises(DataError, match="run `ichtune train` first"):
        run("--work", made.root, "--recipe", "level2_kernel")
    with pytest.raises(DataError, match="`ichtune prepare"):
        run("--work", made.root / "nowhere", "--recipe", "level2_kernel")


def test_a_recipe_of_a_network_is_refused_before_anything_is_done(made, run) -> None:
    with pytest.raises(ConfigError, match="`ichtune train --recipe exp_00`"):
        run("--work", made.root, "--recipe", "level2_kernel", "--recipe", "exp_00")
    assert made.open().run_ids() == [ONE, TWO]


def test_ichtune_train_names_the_command_that_takes_such_a_recipe(made, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["train", "--recipe", "level2_gru", "--work", str(made.root)]) == 2
    assert "`ichtune stack --recipe level2_gru`" in capsys.readouterr().err
