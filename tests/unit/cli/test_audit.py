"""The audit command: clean ends with 0, a leak with 4 after its table, a damaged cache with 3."""

import csv
import json

import numpy as np
import pandas as pd
import pytest
import typer
from typer.testing import CliRunner

from ichtune.cli.audit import audit
from ichtune.data.content_hash import fingerprint
from ichtune.errors import ConfigError, ConflictError, DataError
from ichtune.tables import SLICES, write_table
from ichtune.workspace import Workspace


@pytest.fixture
def run(monkeypatch):
    """Return a function that runs the command and gives its outcome and the error that it ended with."""
    monkeypatch.delenv("ICHTUNE_WORK", raising=False)
    app = typer.Typer()
    app.command()(audit)

    def invoke(*arguments):
        outcome = CliRunner().invoke(app, [str(a) for a in arguments])
        return outcome, outcome.exception

    return invoke


def with_fingerprints(workspace: Workspace) -> pd.DataFrame:
    slices = workspace.slices.copy()
    for row in np.flatnonzero(slices["status"] == "ok"):
        seen = fingerprint(workspace.hu(slices["image_id"].iloc[row]))
        slices.loc[row, ["content_hash", "near_hash", "is_blank"]] = list(seen)
    return slices


@pytest.fixture
def made(fake_workspace) -> Workspace:
    workspace = fake_workspace()
    write_table(with_fingerprints(workspace), workspace.layout.slices, SLICES)
    return Workspace(workspace.layout.root)


def image_level_split(workspace: Workspace, path):
    ids = workspace.labelled["image_id"].tolist()
    path.write_text("image_id,fold\n" + "".join(f"{name},{number % 2}\n" for number, name in enumerate(ids)))
    return path


def test_a_workspace_of_ichtune_is_clean(made, run):
    outcome, error = run("--work", made.layout.root)
    assert error is None
    assert "Audit of the workspace's fold plan" in outcome.stdout
    assert "every byte as it was written" in outcome.stdout
    assert "subdural" in outcome.stdout
    assert "Nothing leaks" in outcome.stdout
    assert f"Next: ichtune search --space windows.yaml --work {made.layout.root}" in outcome.stdout


def test_an_image_level_split_ends_with_4_after_its_table(made, run, tmp_path):
    path = image_level_split(made, tmp_path / "theirs.csv")
    outcome, error = run("--work", made.layout.root, "--split", path)
    assert isinstance(error, ConflictError)
    assert error.exit_code == 4
    assert "theirs.csv leaks: 9 patients straddle folds; 10 studies straddle folds; 10 series straddle folds." in str(
        error
    )
    assert "Make the split by patient" in str(error)
    assert "P000 in fold 0, fold 1" in outcome.stdout
    assert "Nothing leaks" not in outcome.stdout


def test_the_workspaces_own_folds_handed_over_are_clean(made, run):
    outcome, error = run("--work", made.layout.root, "--split", made.layout.folds)
    assert error is None
    assert "Audit of folds.parquet" in outcome.stdout


def test_a_patient_on_both_sides_of_train_and_test_ends_with_4(made, run):
    slices = made.slices.copy()
    slices.loc[slices["patient_id"] == "Q009", "patient_id"] = "P001"
    write_table(slices, made.layout.slices, SLICES)
    _, error = run("--work", made.layout.root, "--tables-only")
    assert isinstance(error, ConflictError)
    assert "1 patients straddle train/test" in str(error)
    assert "or label them" in str(error)


def test_json_holds_every_check_and_the_pairs(made, run, tmp_path):
    slices = made.slices.copy()
    other = np.flatnonzero((slices["patient_id"] == "P002") & (slices["status"] == "ok"))[0]
    one = np.flatnonzero((slices["patient_id"] == "P001") & (slices["status"] == "ok"))[0]
    for column in ("content_hash", "near_hash"):
        slices.loc[other, column] = slices.loc[one, column]
    slices.loc[[one, other], ["near_hash", "is_blank"]] = ["0123456789abcdef", False]
    write_table(slices, made.layout.slices, SLICES)
    outcome, error = run("--work", made.layout.root, "--json", "--out", tmp_path / "near.csv", "--quiet")
    shown = json.loads(outcome.stdout)
    straddling = {(check["what"], check["across"]): check["n_straddling"] for check in shown["checks"]}
    is_leak = made.fold_plan.fold_of["P001"] != made.fold_plan.fold_of["P002"]
    assert straddling["content", "folds"] == int(is_leak)
    assert isinstance(error, ConflictError) == is_leak
    assert shown["is_clean"] != is_leak
    assert [fold["fold"] for fold in shown["folds"]] == ["fold 0", "fold 1", "fold 2"]
    assert shown["caches"][0]["n_rows"] == len(slices)
    (pair,) = shown["near_duplicates"]["pairs"]
    assert pair["is_identical"]
    rows = list(csv.DictReader((tmp_path / "near.csv").open()))
    assert {rows[0]["patient_id_a"], rows[0]["patient_id_b"]} == {"P001", "P002"}


def test_a_damaged_cache_ends_with_3(made, run):
    shard = next((made.layout.hu / str(made.about["cache_id"])).glob("00000.hu*"))
    content = bytearray(shard.read_bytes())
    content[len(content) // 2] ^= 1
    shard.write_bytes(content)
    outcome, error = run("--work", made.layout.root)
    assert isinstance(error, DataError)
    assert shard.name in str(error)
    assert "near-duplicates were left out" in outcome.stderr
    assert run("--work", made.layout.root, "--tables-only")[1] is None


def test_options_that_exclude_each_other_are_refused(made, run, tmp_path):
    _, error = run("--work", made.layout.root, "--tables-only", "--out", tmp_path / "near.csv")
    assert isinstance(error, ConfigError)
