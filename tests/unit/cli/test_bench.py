"""ichtune bench train: a ratio of two speeds, measured side by side."""

import json

from typer.testing import CliRunner

from ichtune.cli.main import app

RECIPE = "architecture: tiny_convnet\nwindows: brain\nimage_px: 32\nbatch_size: 16\n"


def test_it_prints_both_speeds_and_their_ratio(fake_workspace, tmp_path):
    workspace = fake_workspace()
    (tmp_path / "mine.yaml").write_text(RECIPE)
    arguments = ["bench", "train", "--recipe", str(tmp_path / "mine.yaml"), "--work", str(workspace.layout.root)]
    told = CliRunner().invoke(app, [*arguments, "--batch", "8", "--steps", "1", "--rounds", "1", "--json", "--quiet"])

    assert told.exit_code == 0, told.output
    found = json.loads(told.stdout)
    assert found["batch_size"] == 8
    assert found["ratio"] == found["images_per_second"] / found["bare_per_second"] > 0
    plain = CliRunner().invoke(app, [*arguments, "--steps", "1", "--rounds", "1", "--quiet"])
    assert "images/s beside" in plain.stdout


def test_a_recipe_that_starts_frozen_from_another_is_timed_whole_and_alone(fake_workspace, tmp_path, monkeypatch):
    from ichtune.training import speed

    seen = []
    measure = speed.measure_speed
    monkeypatch.setattr(speed, "measure_speed", lambda run, *a: seen.append(run) or measure(run, *a))
    (tmp_path / "mine.yaml").write_text(RECIPE + "frozen_epochs: 1\nwarm_start: 0123456789ab\n")
    arguments = ["bench", "train", "--recipe", str(tmp_path / "mine.yaml"), "--steps", "1", "--rounds", "1"]
    told = CliRunner().invoke(app, [*arguments, "--work", str(fake_workspace().layout.root)])

    assert told.exit_code == 0, told.output
    assert all(parameter.requires_grad for parameter in seen[0].network.parameters())
