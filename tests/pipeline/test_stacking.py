"""From networks to a second level to a blend: real training, one command after the other, and a kill in between."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from ichtune.cli.main import main
from ichtune.labels import LABELS, SUBTYPES
from ichtune.recipe import Recipe
from ichtune.second_level.stacking_runs import stack
from ichtune.second_level_recipe import SecondLevelRecipe
from ichtune.tables import P_COLUMNS, SLICES, read_table, write_table
from ichtune.training.crossval import TrainOptions, assemble_run, train_fold
from ichtune.workspace import Workspace

pytestmark = pytest.mark.slow  # whole runs and processes

NETWORK = Recipe(architecture="tiny_convnet", windows="brain", image_px=32, lr=1e-2, epochs=1, batch_size=16)  # type: ignore[arg-type]
SPACE = """\
level: 2
search: {algorithm: random, trials: 3, seed: 3}
folds: {search_on: [1]}
resources: {cpu: 1}
train: {top: 2}
parameters:
  model: [gru, kernel]
  hidden: {value: 4, when: {model: gru}}
  epochs: {value: 2, when: {model: gru}}
start_with: [{model: kernel}, {model: gru}]
"""
#: One of each kind that learns.
KINDS = {
    "gaussian": SecondLevelRecipe(model="gaussian"),
    "trees": SecondLevelRecipe(model="hist_gradient_boosting", rounds=10),
    "gru": SecondLevelRecipe(model="gru", hidden=4, layers=1, epochs=2),
}
LONG = "version: 1\nlevel: 2\nmodel: gru\nhidden: 16\nlayers: 1\nepochs: 40\nbatch_size: 2\n"


def train(workspace: Workspace, embeddings: bool = False) -> None:
    for fold in range(workspace.fold_plan.k):
        train_fold(workspace, NETWORK, fold, torch.device("cpu"), options=TrainOptions(embeddings=embeddings))
    assemble_run(workspace, NETWORK)


def test_the_second_level_is_trained_blended_and_reported(
    fake_workspace: Callable[..., Workspace], capsys: pytest.CaptureFixture[str]
) -> None:
    workspace = fake_workspace(n_patients=12)
    train(workspace)
    work = str(workspace.layout.root)
    assert main(["stack", "--work", work, "--json", "--quiet"]) == 0
    rows = json.loads(capsys.readouterr().out)
    assert [row["model"] for row in rows] == ["gru", "hist_gradient_boosting", "gaussian"]
    assert main(["blend", "--work", work, "--ensemble", "mean", "--json", "--quiet"]) == 0
    blended = json.loads(capsys.readouterr().out)
    stacked = {row["recipe_id"] for row in rows}
    assert {member["recipe_id"] for member in blended["members"]} == {NETWORK.recipe_id, *stacked}
    singles = {row["recipe_id"]: row["oof_loss"] for row in blended["ladder"] if row["name"].startswith("single:")}
    for row in rows:
        assert singles[row["recipe_id"]] == pytest.approx(row["oof_loss"], rel=1e-9)
    submission = pd.read_csv(workspace.layout.submission)
    assert submission["Label"].between(0, 1, inclusive="neither").all()
    assert main(["report", "--work", work, "--quiet"]) == 0
    page = workspace.layout.report.read_text(encoding="utf-8")
    assert "gru on 1 run" in page
    assert "ichtune stack --recipe level2_gru" in page


def test_a_second_level_learns_from_embeddings(fake_workspace: Callable[..., Workspace]) -> None:
    workspace = fake_workspace(n_patients=9, n_test_patients=42)
    train(workspace, embeddings=True)
    done = stack(workspace, SecondLevelRecipe(model="gru", embeddings=4, hidden=8, layers=1, epochs=2))
    view = done.inputs.labelled
    assert view.e_RD is not None
    assert view.e_RD.shape == (len(workspace.labelled), 4)
    assert np.isfinite(view.e_RD).all()
    test = pd.read_parquet(workspace.layout.test(done.recipe.recipe_id))
    assert test[list(P_COLUMNS)].notna().all().all()


def test_winners_of_a_search_go_on_from_its_trials(
    first_level_workspace: Callable[..., Workspace], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    workspace = first_level_workspace()
    work, space = ["--work", str(workspace.layout.root)], tmp_path / "second.yaml"
    space.write_text(SPACE, encoding="utf-8")
    assert main(["search", "--space", str(space), "--concurrent", "1", "--quiet", *work]) == 0
    capsys.readouterr()
    assert main(["stack", "--json", *work]) == 0
    told = capsys.readouterr()
    rows = json.loads(told.out)
    assert {row["model"] for row in rows} == {"gru", "kernel"}
    assert told.err.count("epochs are those of a trial of a search") == 2
    for row in rows:
        curve = json.loads((workspace.layout.runs / row["recipe_id"] / "fold_1" / "curve.json").read_text())
        best = workspace.trials[workspace.trials["recipe_id"] == row["recipe_id"]]["last_loss"].dropna()
        assert curve[-1]["val_weighted_log_loss"] == best.iloc[0]


def test_a_command_that_is_killed_goes_on_to_the_same_predictions(
    fake_workspace: Callable[..., Workspace], tmp_path: Path
) -> None:
    recipe = tmp_path / "long.yaml"
    recipe.write_text(LONG, encoding="utf-8")
    whole, killed = fake_workspace("whole"), fake_workspace("killed")
    for workspace in (whole, killed):
        train(workspace)
    command = [sys.executable, "-m", "ichtune", "stack", "--recipe", str(recipe), "--quiet", "--work"]
    process = subprocess.Popen(
        [*command, str(killed.layout.root)], env=dict(os.environ), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    deadline = time.monotonic() + 240
    while not list(killed.layout.runs.glob("*/fold_1/resume.safetensors")):
        assert process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.wait()
    first = next(killed.layout.runs.glob("*/fold_0/run.json"))
    trained_at = first.stat().st_mtime_ns
    for workspace in (whole, killed):
        assert main(["stack", "--recipe", str(recipe), "--quiet", "--work", str(workspace.layout.root)]) == 0
    assert first.stat().st_mtime_ns == trained_at
    (recipe_id,) = {path.parents[1].name for path in killed.layout.runs.glob("*/fold_1/weights.safetensors")} - {
        NETWORK.recipe_id
    }
    for path_of in ("oof", "test"):
        one, other = (
            pd.read_parquet(getattr(workspace.layout, path_of)(recipe_id)).sort_values(["fold", "image_id"])
            for workspace in (whole, killed)
        )
        np.testing.assert_array_equal(one[list(P_COLUMNS)], other[list(P_COLUMNS)])
    assert not list(killed.layout.runs.glob("*/fold_*/resume.safetensors"))


def relabel(workspace: Workspace, change: Callable[[pd.DataFrame], pd.DataFrame]) -> Workspace:
    """Write other labels of the labelled slices, and open the workspace again."""
    table = read_table(workspace.layout.slices, SLICES)
    rows = table["is_labelled"].to_numpy()
    table.loc[rows, list(LABELS)] = change(table[rows])[list(LABELS)].to_numpy(np.float64)
    write_table(table, workspace.layout.slices, SLICES, {"cache_id": workspace.about["cache_id"]})
    return Workspace(workspace.layout.root)


@pytest.mark.parametrize("kind", KINDS)
def test_labels_of_a_fold_change_no_bit_of_what_a_second_level_predicts_for_it(
    kind: str, first_level_workspace: Callable[..., Workspace]
) -> None:
    """One bit would do to tell that something was learnt from the patients that it is scored on."""
    workspace = first_level_workspace()

    def turned(slices: pd.DataFrame) -> pd.DataFrame:
        is_turned = workspace.fold_plan.folds_for(slices["patient_id"]) == 0
        y = slices[list(SUBTYPES)].astype(float)
        y[is_turned] = 1.0 - y[is_turned]
        return y.assign(any=y.max(axis=1))

    one = stack(workspace, KINDS[kind])
    other = stack(relabel(workspace, turned), KINDS[kind])
    fold_R = one.inputs.fold_R
    assert {int(fold) for fold in fold_R[(one.inputs.y_RL != other.inputs.y_RL).any(axis=1)]} == {0}
    assert {int(fold) for fold in fold_R[(one.p_oof_RL != other.p_oof_RL).any(axis=1)]} == {1, 2}


def dealt(slices: pd.DataFrame) -> pd.DataFrame:
    """Give the labels of every patient to another one, slice by slice."""
    y = slices.drop_duplicates(["patient_id", "slice_rank"]).set_index(["patient_id", "slice_rank"])[list(LABELS)]
    patients = slices["patient_id"].unique()
    of = dict(zip(patients, np.random.default_rng(0).permutation(patients), strict=True))
    return y.loc[list(zip(slices["patient_id"].map(of), slices["slice_rank"], strict=True))]


@pytest.mark.parametrize("shuffled", [True, False])
def test_stacking_and_blending_gain_where_there_is_something_to_learn_and_nowhere_else(
    shuffled: bool, first_level_workspace: Callable[..., Workspace], capsys: pytest.CaptureFixture[str]
) -> None:
    workspace = first_level_workspace(n_patients=36, n_slices=6)
    if shuffled:
        workspace = relabel(workspace, dealt)
    for kind in ("trees", "gaussian"):
        stack(workspace, KINDS[kind])
    for ensemble in ("auto", "rsna"):
        command = ["blend", "--work", str(workspace.layout.root), "--ensemble", ensemble, "--json", "--quiet"]
        assert main(command) == 0
        beyond_prior = json.loads(capsys.readouterr().out)["differences"]["prior"]
        assert (beyond_prior["high"] >= 0) is shuffled, f"{ensemble}: {beyond_prior}"
