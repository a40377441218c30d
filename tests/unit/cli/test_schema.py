"""ichtune schema: JSON on stdout, with the names that the tables hold."""

import json

import pytest

from ichtune.cli.schema import closed_names, schema, suggested_names
from ichtune.search.schedulers import SCHEDULERS
from ichtune.search.searchers import SEARCHERS


def test_it_writes_a_schema_and_nothing_else_to_stdout(capsys: pytest.CaptureFixture[str]) -> None:
    schema(quiet=False)
    out, err = capsys.readouterr()
    written = json.loads(out)

    assert written["$defs"]["search"]["properties"]["algorithm"]["enum"] == list(SEARCHERS)
    assert written["$defs"]["early_stop"]["properties"]["type"]["enum"] == list(SCHEDULERS)
    assert "next: ichtune search" in err


def test_names_come_from_their_tables() -> None:
    assert {"bce", "focal"} <= set(closed_names()["loss"])
    assert {"adamw", "sgd"} <= set(closed_names()["optimizer"])
    assert "tiny_convnet" in suggested_names()["architecture"]
    assert "architecture" not in closed_names()
