"""`ichtune stack`: what it prints and leaves, which recipes it takes, and what it says where there is nothing."""

import json
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

from ichtune.cli.main import main
from ichtune.cli.stack import DEFAULT_RECIPES, stack
from ichtune.ensemble.members.panel import load_panel
from ichtune.errors import ConfigError, DataError
from ichtune.recipe_file import read_second_level_recipe

ONE, TWO = "aaaaaaaaaaaa", "bbbbbbbbbbbb"


@pytest.fixture
def run(monkeypatch):
    """Return a function that runs the command alone; deliberate errors come through as they are."""
    monkeypatch.delenv("ICHTUNE_WORK", raising=False)
    app = typer.Typer()
    app.command()(stack)

    def invoke(*arguments):
        outcome = CliRunner().invoke(app, [str(a) for a in arguments])
        if outcome.exception is not None and not isinstance(outcome.exception, SystemExit):
            raise outcome.exception
        return outcome

    return invoke


@pytest.fixture
def made(make_blend_workspace):
    made = make_blend_workspace(n_patients=15, n_test_patients=3, noises=(), in_runs=True)
    made.add_run(ONE, 2.0)
    made.add_run(TWO, 2.5)
    return made


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


def test_metadata_comes_with_what_it_buys_alone(made, run, tmp_path: Path) -> None:
    path = tmp_path / "with_metadata.yaml"
    path.write_text("level: 2\nmodel: hist_gradient_boosting\nrounds: 3\nneighbours: 1\nmetadata: true\n")
    outcome = run("--work", made.root, "--recipe", path)
    assert "  metadata alone " in outcome.stdout
    (row,) = json.loads(run("--work", made.root, "--recipe", path, "--json").stdout)
    assert row["metadata_only_loss"] > row["oof_loss"]


def test_without_a_recipe_one_model_of_each_kind_is_trained() -> None:
    assert [read_second_level_recipe(name).model for name in DEFAULT_RECIPES] == [
        "gru",
        "hist_gradient_boosting",
        "gaussian",
    ]


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
