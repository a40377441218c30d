import json

import pytest
import typer
from typer.testing import CliRunner

from ichtune.cli.phantom import phantom

SMALL = ["--patients", "2", "--size", "32", "--seed", "5", "--test-fraction", "0.5"]


@pytest.fixture(scope="module")
def app() -> typer.Typer:
    app = typer.Typer()
    app.command("phantom")(phantom)
    return app


def test_help_ends_with_an_example(app):
    result = CliRunner().invoke(app, ["--help"])
    assert result.exit_code == 0
    assert "ichtune phantom ./phantom --patients 120" in " ".join(result.stdout.split())


def test_writes_and_names_the_next_command(app, tmp_path):
    out = tmp_path / "p"
    result = CliRunner().invoke(app, [str(out), *SMALL])
    assert result.exit_code == 0, result.output
    assert "Generated data" in result.stdout
    assert result.stdout.strip().splitlines()[-1].startswith(f"Next: ichtune prepare {out} --labels")
    assert "3/3" in result.stderr or "2/2" in result.stderr
    again = CliRunner().invoke(app, [str(out), *SMALL, "--json"])
    content = json.loads(again.stdout)
    assert content["n_patients"] == 2
    assert content["n_train"] == len(list((out / "stage_2_train").iterdir()))
    quiet = CliRunner().invoke(app, [str(out), *SMALL, "--quiet"])
    assert "Next" not in quiet.stdout
    assert quiet.stderr == ""
