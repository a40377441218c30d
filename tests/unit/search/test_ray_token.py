import os
import stat
import subprocess
import sys

import pytest

from ichtune.search.ray_token import MODE, TOKEN, TOKEN_PATH, has_token, named_token, token_file, write_token


@pytest.fixture(autouse=True)
def clean(monkeypatch, tmp_path):
    for name in (MODE, TOKEN, TOKEN_PATH):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))


def test_a_token_is_named_by_a_variable_or_lies_where_ray_keeps_it(tmp_path, monkeypatch):
    assert not has_token()
    kept = tmp_path / "home" / ".ray" / "auth_token"
    kept.parent.mkdir(parents=True)
    kept.write_text("a" * 64)
    assert has_token()
    assert not named_token()
    assert token_file() == str(kept)
    monkeypatch.setenv(TOKEN_PATH, str(tmp_path / "another"))
    assert named_token()
    assert token_file() == str(tmp_path / "another")
    monkeypatch.setenv(TOKEN, "b" * 64)
    assert token_file() == ""


def test_a_token_is_random_and_its_owners_only(tmp_path):
    write_token(tmp_path / "new" / "one")
    write_token(tmp_path / "two")

    one, two = (tmp_path / "new" / "one"), (tmp_path / "two")
    assert stat.S_IMODE(one.stat().st_mode) == 0o600
    assert len(one.read_text()) == 64
    assert one.read_text() != two.read_text()


def test_a_token_that_is_there_is_kept_and_an_empty_file_is_none(tmp_path):
    kept, empty = tmp_path / "kept", tmp_path / "empty"
    kept.write_text("b" * 64)
    kept.chmod(0o644)
    empty.touch()

    write_token(kept)
    write_token(empty)

    assert kept.read_text() == "b" * 64
    assert stat.S_IMODE(kept.stat().st_mode) == 0o600
    assert len(empty.read_text()) == 64


def test_ray_shows_the_token_that_was_named_last(tmp_path):
    """In a process of its own: Ray keeps a token for good unless it is told to read again."""
    code = """
import sys
from pathlib import Path
import ray
from ray._raylet import AuthenticationTokenLoader, get_authentication_mode
from ichtune.search.ray_token import use_token
for name in ("one", "two"):
    write = Path(sys.argv[1]) / name
    write.write_text(name[0] * 64)
    use_token(write)
    shown = AuthenticationTokenLoader.instance().get_token_for_http_header()["authorization"]
    print(int(get_authentication_mode()), shown == "Bearer " + name[0] * 64)
"""
    environment = {**os.environ, TOKEN: "c" * 64}
    command = [sys.executable, "-c", code, str(tmp_path)]
    ran = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120)

    assert ran.stdout.splitlines() == ["1 True", "1 True"], ran.stderr
