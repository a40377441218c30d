"""The whole job through the commands a person types, on a small phantom with real Ray: once straight, once killed."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from ichtune import Workspace
from ichtune.cli.main import main
from ichtune.tables import P_COLUMNS, PREDICTIONS, read_table

pytestmark = pytest.mark.slow

SPACE = """
version: 1
search: {algorithm: tpe, trials: 3, seed: 7, early_stop: {type: asha, grace: 1, max: 4, factor: 2}}
resources: {gpu: 0.5, cpu: 1}
train: {top: 2}
parameters:
  architecture: tiny_convnet
  windows: [brain, brain_subdural_bone]
  neighbours: [0, 1]
  lr: {low: 2e-3, high: 8e-3, log: true}
  image_px: 32
  epochs: 4
  ema_decay: 0.9
"""


def run(*command: str) -> None:
    assert main(list(command)) == 0, command


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    made = tmp_path_factory.mktemp("job")
    (made / "space.yaml").write_text(SPACE)
    run("phantom", str(made / "phantom"), "--patients", "30", "--size", "64", "--quiet")
    return made


def prepare(folder: Path, work: Path) -> None:
    labels = str(folder / "phantom" / "stage_2_train.csv")
    options = ["--size", "32", "--folds", "2", "--quiet"]
    run("prepare", str(folder / "phantom"), "--labels", labels, "--out", str(work), *options)


def finish(folder: Path, work: Path) -> None:
    run("search", "--space", str(folder / "space.yaml"), "--work", str(work), "--concurrent", "1", "--quiet")
    run("train", "--work", str(work), "--quiet")
    run("blend", "--work", str(work), "--quiet")


@pytest.fixture(scope="module")
def straight(folder):
    work = folder / "straight"
    prepare(folder, work)
    finish(folder, work)
    return work


@pytest.fixture(scope="module")
def killed(folder):
    """The same job, its search killed with SIGKILL after the second epoch and continued with the same command."""
    work = folder / "killed"
    prepare(folder, work)
    search = [sys.executable, "-m", "ichtune", "search", "--space", str(folder / "space.yaml"), "--work", str(work)]
    process = subprocess.Popen(
        [*search, "--concurrent", "1", "--quiet"], env=dict(os.environ), stdout=subprocess.DEVNULL
    )
    ledger = work / "searches" / "space" / "ledger.jsonl"
    deadline = time.monotonic() + 240
    while not ledger.is_file() or ledger.read_text().count('"event": "epoch"') < 2:
        assert process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.05)
    process.send_signal(signal.SIGKILL)
    process.wait()
    finish(folder, work)
    return work


def test_one_seed_gives_one_submission_killed_or_not(straight, killed):
    one, other = (pd.read_csv(work / "submission.csv") for work in (straight, killed))

    assert one["ID"].tolist() == other["ID"].tolist()
    np.testing.assert_allclose(one["Label"], other["Label"], atol=1e-6, rtol=0)
    losses = [Workspace(work).trials[["trial", "recipe_id", "status", "best_loss"]] for work in (straight, killed)]
    pd.testing.assert_frame_equal(*losses)


def test_the_submission_has_the_samples_rows_in_the_samples_order(folder, straight):
    sample = pd.read_csv(folder / "phantom" / "stage_2_sample_submission.csv")
    submission = pd.read_csv(straight / "submission.csv")

    assert submission["ID"].tolist() == sample["ID"].tolist()
    assert submission["Label"].between(0, 1, inclusive="neither").all()


def test_score_reads_the_hidden_truth_and_completes_the_ladder(folder, straight, capsys):
    truth = str(folder / "phantom" / "truth.csv")
    before = {row["name"]: row["test_loss"] for row in json.loads((straight / "ladder.json").read_text())}

    run("score", str(straight / "submission.csv"), "--truth", truth, "--ladder", "--work", str(straight), "--json")

    scored = json.loads(capsys.readouterr().out)
    ladder = {row["name"]: row for row in json.loads((straight / "ladder.json").read_text())}
    assert set(before.values()) == {None}, "a test loss was known before the truth was read"
    assert {"prior", "best_single", "equal_mean", "blend"} <= set(ladder)
    assert ladder["blend"]["test_loss"] == pytest.approx(scored["weighted_log_loss"], abs=1e-9)
    assert scored["n"] == Workspace(straight).unlabelled.shape[0]
    assert ladder["blend"]["oof_loss"] <= ladder["blend"]["crossfit_loss"] + 1e-9


def test_predict_on_the_test_folder_gives_what_the_blend_gave(folder, straight, tmp_path):
    out = tmp_path / "new.csv"

    run("predict", str(folder / "phantom" / "stage_2_test"), "--work", str(straight), "--out", str(out), "--quiet")

    (blend,) = (straight / "blends").glob("*/test.parquet")
    expected = read_table(blend, PREDICTIONS).set_index("image_id")[list(P_COLUMNS)]
    got = pd.read_csv(out).set_index("image_id").loc[expected.index, list(P_COLUMNS)]
    np.testing.assert_allclose(got, expected, atol=1e-6)


def test_a_bundle_predicts_the_same_on_a_machine_without_the_workspace(folder, straight, tmp_path):
    test_files, work = str(folder / "phantom" / "stage_2_test"), tmp_path / "copy"
    shutil.copytree(straight, work)
    run("bundle", "--work", str(work), "--out", str(tmp_path / "bundle"), "--licence", "MIT", "--quiet")
    shutil.rmtree(work)

    for out, where in (("here.csv", ("--work", str(straight))), ("there.csv", ("--bundle", str(tmp_path / "bundle")))):
        run("predict", test_files, *where, "--out", str(tmp_path / out), "--quiet")

    assert (tmp_path / "there.csv").read_bytes() == (tmp_path / "here.csv").read_bytes()


def test_the_surface_that_others_script_against(straight, capsys):
    work = Workspace(straight)

    assert {"image_id", "patient_id", "series_instance_uid", "slice_rank", "z_mm", "status", "reason", "any"} <= set(
        work.slices.columns
    )
    image_id = work.labelled["image_id"].iloc[0]
    assert (work.hu(image_id).dtype, work.hu(image_id).shape) == (np.int16, (32, 32))
    assert work.folds.groupby("patient_id")["fold"].nunique().max() == 1
    oof, test = work.predictions("oof"), work.predictions("test")
    assert oof.groupby("recipe_id")["image_id"].nunique().eq(len(work.labelled)).all()
    assert test.groupby(["recipe_id", "fold"])["image_id"].nunique().eq(len(work.unlabelled)).all()
    capsys.readouterr()
    run("leaderboard", "--work", str(straight), "--json")
    rows = json.loads(capsys.readouterr().out)
    assert {"trial", "recipe_id", "status", "epochs", "best_loss", "seconds", "lr", "windows"} <= set(rows[0])


def test_the_report_is_one_page_without_the_network(straight):
    run("report", "--work", str(straight), "--quiet")

    page = (straight / "report.html").read_text()
    assert "generated data" in page
    assert "<script" not in page
    assert 'src="http' not in page
    assert "<link" not in page
