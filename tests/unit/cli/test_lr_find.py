"""ichtune lr-find: a plot, two suggestions, and nothing left behind."""

import json

import pytest
from typer.testing import CliRunner

from ichtune.cli.main import app

RECIPE = "architecture: tiny_convnet\nwindows: brain\nimage_px: 32\nbatch_size: 16\nwarmup: 0\n"


@pytest.mark.slow  # sweeps
def test_it_plots_and_suggests_and_trains_nothing(fake_workspace, tmp_path):
    workspace = fake_workspace()
    (tmp_path / "mine.yaml").write_text(RECIPE)
    before = sorted(str(path) for path in workspace.layout.root.rglob("*"))
    arguments = ["lr-find", "--recipe", str(tmp_path / "mine.yaml"), "--work", str(workspace.layout.root)]
    options = ["--out", str(tmp_path / "lr.png"), "--steps", "40", "--low", "1e-5"]
    told = CliRunner().invoke(app, [*arguments, *options, "--json", "--quiet"])

    assert told.exit_code == 0, told.output
    found = json.loads(told.stdout)
    assert 1e-5 <= found["minimum_tenth"] < 1.0
    assert 1e-5 <= found["steepest"] <= 10.0
    assert found["lrs"] == sorted(found["lrs"])
    assert (tmp_path / "lr.png").read_bytes()[:4] == b"\x89PNG"
    assert sorted(str(path) for path in workspace.layout.root.rglob("*")) == before


def test_a_recipe_that_cannot_be_read_ends_with_a_reason(fake_workspace):
    told = CliRunner().invoke(app, ["lr-find", "--recipe", "exp_999", "--work", str(fake_workspace().layout.root)])

    assert told.exit_code != 0
    assert "exp_90" in str(told.exception)


@pytest.mark.slow  # sweeps
def test_frozen_epochs_are_swept_where_asked_and_only_there(fake_workspace, tmp_path, monkeypatch):
    from ichtune.training import lr_finder

    seen = []
    sweep = lr_finder.sweep
    monkeypatch.setattr(lr_finder, "sweep", lambda run, *a: seen.append(run) or sweep(run, *a))
    work = str(fake_workspace().layout.root)
    (tmp_path / "mine.yaml").write_text(RECIPE + "frozen_epochs: 1\n")
    arguments = ["lr-find", "--recipe", str(tmp_path / "mine.yaml"), "--work", work, "--low", "1e-4", "--steps", "40"]
    for extra in ([], ["--frozen"]):
        CliRunner().invoke(app, [*arguments, *extra, "--out", str(tmp_path / "lr.png")])

    is_whole = [all(p.requires_grad for p in run.network.parameters()) for run in seen]
    assert is_whole == [True, False]
    (tmp_path / "mine.yaml").write_text(RECIPE)
    told = CliRunner().invoke(app, [*arguments, "--frozen"])
    assert "has frozen_epochs 0" in str(told.exception)


def test_a_sweep_that_suggests_nothing_leaves_its_plot(fake_workspace, tmp_path):
    (tmp_path / "mine.yaml").write_text(RECIPE)
    arguments = ["lr-find", "--recipe", str(tmp_path / "mine.yaml"), "--work", str(fake_workspace().layout.root)]
    out = tmp_path / "lr.png"
    told = CliRunner().invoke(app, [*arguments, "--low", "1e-9", "--high", "1e-8", "--steps", "5", "--out", str(out)])

    assert "never falls by 1%" in str(told.exception)
    assert out.read_bytes()[:4] == b"\x89PNG"
