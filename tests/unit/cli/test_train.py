import json

import pytest

from ichtune.cli.main import main
from ichtune.recipe import Recipe
from ichtune.search import crossval_tasks
from ichtune.training.crossval import train_fold

RECIPE = {"architecture": "tiny_convnet", "image_px": 32, "batch_size": 8, "epochs": 1, "windows": "brain"}


@pytest.fixture
def trained(fake_workspace, tmp_path, monkeypatch):
    """A workspace in which every fold of one recipe is trained, and the recipe's file."""
    workspace = fake_workspace()
    for fold in range(3):
        train_fold(workspace, Recipe(**RECIPE), fold)
    path = tmp_path / "mine.yaml"
    path.write_text("".join(f"{key}: {value}\n" for key, value in RECIPE.items()))
    monkeypatch.setattr(crossval_tasks, "ray_session", lambda *a, **o: pytest.fail("nothing is left to train"))
    return ["train", "--work", str(workspace.layout.root), "--recipe", str(path)]


def test_it_reports_the_out_of_fold_loss_of_a_recipe(trained, capsys):
    assert main([*trained, "--json"]) == 0

    (row,) = json.loads(capsys.readouterr().out)
    assert row["recipe_id"] == Recipe(**RECIPE).recipe_id
    assert len(row["fold_losses"]) == 3
    assert min(row["fold_losses"]) <= row["oof_loss"] <= max(row["fold_losses"])


def test_it_names_the_next_command(trained, capsys):
    assert main(trained) == 0

    said = capsys.readouterr()
    assert "out-of-fold" in said.out
    assert said.err.splitlines()[-1] == f"next: ichtune blend --work {trained[2]}"


def test_a_recipe_that_no_table_knows_is_refused(trained, tmp_path, capsys):
    (tmp_path / "mine.yaml").write_text("architecture: tiny_convnet\noptimizer: adammw\n")

    assert main(trained) == 2
    assert "Did you mean 'adamw'" in capsys.readouterr().err


def test_without_a_search_it_names_the_command(fake_workspace, capsys):
    assert main(["train", "--work", str(fake_workspace("bare").layout.root)]) == 3
    assert "ichtune search" in capsys.readouterr().err


@pytest.mark.parametrize("option", [["--top", "2"], ["--search", "demo"]])
def test_winners_and_a_recipe_are_not_asked_for_at_once(fake_workspace, capsys, option):
    assert main(["train", "--recipe", "exp_00", "--work", str(fake_workspace().layout.root), *option]) == 2
    assert "give one of them" in capsys.readouterr().err
