"""Options that several commands share are the same everywhere."""

import typer

from ichtune.cli.main import app


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
