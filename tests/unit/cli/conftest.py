"""What tests of single commands share."""

from collections.abc import Callable
from typing import Any

import pytest
import typer
from typer.testing import CliRunner


@pytest.fixture
def run_alone(monkeypatch: pytest.MonkeyPatch) -> Callable[..., Callable[..., Any]]:
    """Return a function that makes one that runs some commands alone; deliberate errors come through as they are."""
    monkeypatch.delenv("ICHTUNE_WORK", raising=False)

    def prepare(*commands: Callable[..., None]) -> Callable[..., Any]:
        app = typer.Typer()
        for command in commands:
            app.command()(command)

        def invoke(*arguments: object) -> Any:
            outcome = CliRunner().invoke(app, [str(a) for a in arguments])
            if outcome.exception is not None and not isinstance(outcome.exception, SystemExit):
                raise outcome.exception
            return outcome

        return invoke

    return prepare
