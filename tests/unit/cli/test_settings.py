"""Settings: the environment goes before the file, and mistakes name their place."""

from pathlib import Path

import pytest

from ichtune.cli.settings import read_settings
from ichtune.errors import ConfigError

COMMANDS = {
    "prepare": {"out": "out", "work": "out", "quiet": "quiet", "size": "size"},
    "search": {"work": "work", "quiet": "quiet", "trials": "trials", "per-fold": "per_fold", "json": "as_json"},
}


def write(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "ichtune.toml"
    path.write_text(text)
    return path


def test_no_file_and_no_variables_set_nothing(tmp_path: Path) -> None:
    assert read_settings(COMMANDS, {"HOME": "/", "ICHTUNE_SEARCH_TRIALS": ""}, tmp_path / "ichtune.toml").values == {}


def test_a_file_sets_options_by_command_and_shared_ones_for_all(tmp_path: Path) -> None:
    path = write(tmp_path, 'work = "here"\n[search]\ntrials = 40\nper-fold = true\njson = true\n')
    assert read_settings(COMMANDS, {}, path).values == {
        "prepare": {"out": "here"},
        "search": {"work": "here", "trials": 40, "per_fold": True, "as_json": True},
    }


def test_a_command_s_own_table_goes_before_what_is_shared(tmp_path: Path) -> None:
    path = write(tmp_path, 'work = "here"\n[search]\nwork = "there"\n')
    assert read_settings(COMMANDS, {}, path).values["search"]["work"] == "there"


def test_variables_go_before_the_file(tmp_path: Path) -> None:
    path = write(tmp_path, 'work = "here"\n[search]\ntrials = 40\nper_fold = 1\n')
    environ = {"ICHTUNE_SEARCH_TRIALS": "50", "ICHTUNE_WORK": "there", "ICHTUNE_SEARCH_PER_FOLD": "2"}
    settings = read_settings(COMMANDS, environ, path)
    assert settings.values["search"] == {"work": "there", "trials": "50", "per_fold": "2"}
    assert settings.origins["search", "trials"] == "ICHTUNE_SEARCH_TRIALS"


def test_only_shared_options_have_a_variable_for_all_commands(tmp_path: Path) -> None:
    assert read_settings(COMMANDS, {"ICHTUNE_TRIALS": "3", "ICHTUNE_QUIET": "1"}, tmp_path / "no.toml").values == {
        "prepare": {"quiet": "1"},
        "search": {"quiet": "1"},
    }


def test_origins_name_file_and_line(tmp_path: Path) -> None:
    path = write(tmp_path, "# trials = 1\n[prepare]\nsize = 256\n[search]\n\ntrials = 40\n")
    assert read_settings(COMMANDS, {}, path).origins["search", "trials"] == f"{path}:6"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[sarch]\ntrials = 1\n", r":1: unknown command \[sarch\]\. Did you mean 'search'"),
        ("[search]\ntrails = 1\n", r":2: unknown option 'trails' in \[search\]\. Did you mean 'trials'"),
        ("wark = 1\n", r":1: unknown key 'wark' .* Did you mean 'work'"),
        ("[search]\ntrials = {a = 1}\n", r":2: an option's value must be text, a number, true, false or a list"),
        ("[search\n", r"not TOML: .*line 1, column 8"),
        ("a = 1\na = 2\n", r"not TOML: "),
    ],
)
def test_mistakes_name_their_place(tmp_path: Path, text: str, message: str) -> None:
    path = write(tmp_path, text)
    with pytest.raises(ConfigError, match=message) as caught:
        read_settings(COMMANDS, {}, path)
    assert str(caught.value).startswith(str(path))


def test_a_file_that_is_no_text_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "ichtune.toml"
    path.write_bytes(b"a = '\xff'")
    with pytest.raises(ConfigError, match="not UTF-8"):
        read_settings(COMMANDS, {}, path)
