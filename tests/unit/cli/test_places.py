"""Commands on a workspace at a URL: they read what lies there, and put back what they make."""

import json

import pytest

from ichtune.cli.main import main
from ichtune.cli.places import fetch_pixels, open_place, put_back
from ichtune.recipe import Recipe
from ichtune.search.ledger import FINISHED, Ledger, TrialRecord
from ichtune.search.mirror import open_workspace
from ichtune.search.only_writer import only_writer
from ichtune.search.trial_table import ledger_path
from ichtune.training.crossval import assemble_run, train_fold

pytestmark = pytest.mark.slow  # whole workspaces are searched, trained, blended or drawn

RECIPE = Recipe(architecture="tiny_convnet", image_px=32, batch_size=8, epochs=1, windows="brain")


@pytest.fixture
def there(fake_workspace, tmp_path, monkeypatch):
    monkeypatch.setenv("ICHTUNE_MIRROR", str(tmp_path / "mirror"))
    return fake_workspace("there")


@pytest.fixture
def url(there):
    return f"file://{there.layout.root}"


@pytest.fixture
def trained(there):
    """The workspace with a run that is trained on every fold."""
    for fold in range(3):
        train_fold(there, RECIPE, fold)
    assemble_run(there, RECIPE)
    return there


def test_a_plain_path_is_opened_and_left_as_it_was(there, tmp_path) -> None:
    workspace = open_place(str(there.layout.root), with_runs=True)
    fetch_pixels(workspace)
    put_back(workspace, [workspace.layout.slices])

    assert workspace.layout == there.layout
    assert not (tmp_path / "mirror").exists()


def test_the_person_watching_is_told_where_the_mirror_is_and_what_is_fetched(url, capsys, tmp_path) -> None:
    fetch_pixels(open_place(url))

    said = capsys.readouterr().err
    assert f"{url} is mirrored in {tmp_path / 'mirror'}" in said
    assert "fetching" in said
    fetch_pixels(open_place(url, quiet=True), quiet=True)
    assert capsys.readouterr().err == ""


def test_the_leaderboard_of_a_url(there, url, capsys) -> None:
    workspace = open_workspace(url)
    with only_writer(workspace, "tiny", "busy") as on_append:
        ledger = Ledger(ledger_path(workspace.layout, "tiny"), on_append)
        ledger.open({"space_id": "s", "folds": [0]})
        ledger.start(TrialRecord(0, {"lr": 1e-3}, {"params": {}, "distributions": {}}, RECIPE))
        ledger.epoch(0, {"epoch": 1, "val_weighted_log_loss": 0.25, "seconds": 1.0})
        ledger.end(0, FINISHED)

    assert main(["leaderboard", "--work", url, "--json"]) == 0

    (row,) = json.loads(capsys.readouterr().out)
    assert (row["trial"], row["status"], row["best_loss"]) == (0, FINISHED, 0.25)
    assert not (there.layout.root / "trials.parquet").exists(), "who only looks writes nothing"


def test_blend_and_report_put_back_what_they_make(trained, url, capsys, tmp_path) -> None:
    assert main(["blend", "--work", url]) == 0
    said = capsys.readouterr()
    assert f"ichtune report --work {url}" in said.out
    assert f"kept at {url}/submission.csv" in said.err
    assert main(["report", "--work", url, "--quiet"]) == 0
    assert main(["blend", "--work", url, "--quiet", "--out", str(tmp_path / "mine.csv")]) == 0

    layout = trained.layout
    assert layout.ladder.is_file()
    assert layout.submission.read_bytes() == (tmp_path / "mine.csv").read_bytes()
    assert "<html" in layout.report.read_text()
    assert len(list(layout.blends.glob("*/blend.json"))) == 1
    assert not list((tmp_path / "mirror").rglob("*.safetensors")), "neither reads weights"


def test_train_takes_up_the_folds_that_lie_at_the_url(trained, url, capsys, tmp_path, monkeypatch) -> None:
    from ichtune.search import crossval_tasks

    monkeypatch.setattr(crossval_tasks, "ray_session", lambda *a, **o: pytest.fail("nothing is left to train"))
    recipe = tmp_path / "mine.yaml"
    recipe.write_text("architecture: tiny_convnet\nimage_px: 32\nbatch_size: 8\nepochs: 1\nwindows: brain\n")
    run = trained.layout.runs / RECIPE.recipe_id
    (run / "oof.parquet").unlink()

    assert main(["train", "--work", url, "--recipe", str(recipe), "--json"]) == 0

    assert json.loads(capsys.readouterr().out)[0]["recipe_id"] == RECIPE.recipe_id
    assert (run / "oof.parquet").is_file()


@pytest.mark.parametrize("command", ["search", "train", "blend", "report", "leaderboard"])
def test_a_protocol_that_nobody_knows_or_that_is_not_installed_is_said(command, capsys) -> None:
    assert main([command, "--work", "nonsense://bucket/ct"]) == 2
    assert "cannot open nonsense://bucket/ct: Protocol not known" in capsys.readouterr().err
