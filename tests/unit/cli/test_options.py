"""Options that several commands share are the same everywhere."""

import pytest
import typer

from ichtune.cli.main import app, main
from ichtune.cli.options import work_argument


def options(command: str) -> dict[str, list[str]]:
    group = typer.main.get_command(app)
    return {text: p.opts for p in group.commands[command].params for text in p.opts}  # type: ignore[attr-defined]


def test_every_command_of_the_workspace_takes_work() -> None:
    for command in ("prepare", "search", "train", "predict", "blend", "score", "report", "leaderboard"):
        assert "--work" in options(command), command


def test_every_command_has_json_or_says_little() -> None:
    for command in ("phantom", "prepare", "search", "train", "blend", "score", "leaderboard"):
        assert "--json" in options(command), command


def test_quiet_has_its_short_form_everywhere() -> None:
    for command in ("phantom", "prepare", "search", "train", "predict", "blend"):
        assert options(command)["--quiet"] == ["--quiet", "-q"], command


@pytest.mark.parametrize("command", ["audit", "inspect", "bundle", "prepare x", "score x.csv", "predict x"])
def test_a_command_that_needs_a_folder_says_so_of_a_url(command, capsys, tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)

    assert main([*command.split(), "--work", "s3://bucket/ct"]) == 2

    said = capsys.readouterr().err
    assert "s3://bucket/ct is a URL" in said
    assert "aws s3 sync s3://bucket/ct FOLDER" in said
    assert list(tmp_path.iterdir()) == [], "no folder called s3: was made"


def test_a_url_stays_as_it_was_written() -> None:
    assert work_argument("s3://bucket/head ct") == " --work 's3://bucket/head ct'"
    assert work_argument("./ichtune-work") == ""
