"""The ichtune command: order, help, what it imports, and how every kind of ending looks."""

import errno
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

import ichtune.data.phantom.generate
from ichtune.cli.main import COMMANDS, app, main, option_names
from ichtune.errors import ConfigError, ConflictError, DataError, IchtuneError, NothingUsableError, StorageError
from ichtune.version import __version__

NAMES = [
    "phantom",
    "prepare",
    "audit",
    "inspect",
    "recipes",
    "schema",
    "lr-find",
    "bench",
    "search",
    "train",
    "stack",
    "predict",
    "blend",
    "bundle",
    "score",
    "report",
    "leaderboard",
]
HEAVY = ("numpy", "pandas", "torch", "timm", "ray", "optuna", "pyarrow", "sklearn", "albumentations", "pydicom")
SOURCES = Path(ichtune.__file__).parents[1]


def python(*arguments: str, cwd: Path, **environ: str) -> subprocess.CompletedProcess[str]:
    path = os.pathsep.join([str(SOURCES), os.environ.get("PYTHONPATH", "")])
    return subprocess.run(
        [sys.executable, *arguments],
        cwd=cwd,
        env={**os.environ, "PYTHONPATH": path, **environ},
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )


@pytest.fixture
def failing_phantom(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> "type[Failing]":
    """Let ``ichtune phantom`` raise whatever ``Failing.error`` is."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr("tempfile.tempdir", None)
    monkeypatch.setattr(ichtune.data.phantom.generate, "write_phantom", Failing.fail)
    return Failing


class Failing:
    error: BaseException

    @classmethod
    def fail(cls, *_: object, **__: object) -> None:
        raise cls.error


def test_commands_stand_in_the_order_of_the_pipeline(capsys: pytest.CaptureFixture[str]) -> None:
    assert [command.__name__.replace("_", "-") for command in COMMANDS] == NAMES
    assert main(["--help"]) == 0
    listed = re.findall(r"^  ([\w-]+)  +\S", capsys.readouterr().out.split("Commands:")[1], flags=re.MULTILINE)
    assert [name for name in listed if name in NAMES] == NAMES


@pytest.mark.parametrize("name", NAMES)
def test_every_command_explains_itself_with_an_example(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([name, "--help"]) == 0
    shown = capsys.readouterr().out
    assert f"Example: ichtune {name}" in shown


def test_help_imports_nothing_heavy(tmp_path: Path) -> None:
    code = (
        "import sys; from ichtune.cli.main import main; code = main(['--help']); "
        f"print('LOADED', code, [name for name in {HEAVY!r} if name in sys.modules])"
    )
    assert python("-c", code, cwd=tmp_path).stdout.splitlines()[-1] == "LOADED 0 []"


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--version"]) == 0
    assert capsys.readouterr().out == f"ichtune {__version__}\n"


def test_python_m_is_the_same_command(tmp_path: Path) -> None:
    shown = python("-m", "ichtune", "--version", cwd=tmp_path)
    assert (shown.returncode, shown.stdout, shown.stderr) == (0, f"ichtune {__version__}\n", "")
    wrong = python("-m", "ichtune", "sarch", cwd=tmp_path)
    assert wrong.returncode == 2
    assert "Usage: ichtune " in wrong.stderr


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["sarch"], "No such command 'sarch'. Did you mean 'search'"),
        (["phantom", "out", "--pateints", "3"], "--patients"),
        (["phantom"], "Missing argument"),
        (["phantom", "out", "--patients", "many"], "Invalid value for '--patients'"),
        (["phantom", "out", "--seed"], "requires an argument"),
        (["--verson"], "--version"),
    ],
)
def test_wrong_usage_names_what_was_meant(
    arguments: list[str], said: str, capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(arguments) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert "ichtune: error: " in captured.err
    assert said in captured.err
    assert "Traceback" not in captured.err


def test_no_command_shows_the_help(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([]) == 2
    assert "Commands:" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("kind", "code"),
    [(ConfigError, 2), (DataError, 3), (ConflictError, 4), (StorageError, 5), (NothingUsableError, 7)],
)
def test_a_deliberate_error_is_one_message_and_its_code(
    kind: type[IchtuneError], code: int, failing_phantom: type[Failing], capsys: pytest.CaptureFixture[str]
) -> None:
    failing_phantom.error = kind("the scanner is tired: let it rest")
    assert main(["phantom", "out", "--quiet"]) == code
    assert capsys.readouterr().err == "ichtune: error: the scanner is tired: let it rest\n"


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EACCES, errno.EROFS])
def test_a_full_or_forbidden_disk_is_no_bug(
    number: int, failing_phantom: type[Failing], capsys: pytest.CaptureFixture[str]
) -> None:
    failing_phantom.error = OSError(number, os.strerror(number), "/data/some.dcm")
    assert main(["phantom", "out", "--quiet"]) == 5
    said = capsys.readouterr().err
    assert said == f"ichtune: error: cannot read or write /data/some.dcm: {os.strerror(number)}\n"


def test_a_bug_is_one_line_and_a_file_with_the_traceback(
    failing_phantom: type[Failing], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    failing_phantom.error = RuntimeError("this should not happen\nat all")
    assert main(["phantom", "out", "--quiet"]) == 1
    said = capsys.readouterr().err
    (kept,) = tmp_path.glob("ichtune-*.traceback")
    assert said == f"ichtune: error: unexpected RuntimeError: this should not happen; the traceback is in {kept}\n"
    assert "Traceback (most recent call last)" in kept.read_text()


@pytest.mark.parametrize("arguments", [["-v", "phantom", "out", "-q"], ["phantom", "out", "-q", "--verbose"]])
def test_verbose_shows_the_traceback_of_a_bug(
    arguments: list[str], failing_phantom: type[Failing], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    failing_phantom.error = RuntimeError("this should not happen")
    assert main(arguments) == 1
    assert "Traceback (most recent call last)" in capsys.readouterr().err
    assert not list(tmp_path.glob("*.traceback"))


def test_ctrl_c_names_the_line_that_continues(
    failing_phantom: type[Failing], capsys: pytest.CaptureFixture[str]
) -> None:
    failing_phantom.error = KeyboardInterrupt()
    assert main(["phantom", "my out", "--quiet"]) == 130
    assert "ichtune phantom 'my out' --quiet" in capsys.readouterr().err


def test_a_reader_that_leaves_is_no_error(tmp_path: Path) -> None:
    read_end, write_end = os.pipe()
    os.close(read_end)
    path = os.pathsep.join([str(SOURCES), os.environ.get("PYTHONPATH", "")])
    done = subprocess.run(
        [sys.executable, "-m", "ichtune", "--help"],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": path},
        stdout=write_end,
        stderr=subprocess.PIPE,
        text=True,
        check=False,
        timeout=120,
    )
    os.close(write_end)
    assert done.stderr == ""
    assert done.returncode in (0, 1)


def test_settings_file_and_environment_reach_a_command(
    failing_phantom: type[Failing],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    seen: list[int] = []

    def write(_: Path, spec: ichtune.data.phantom.generate.PhantomSpec, **__: object) -> None:
        seen.append(spec.n_patients)
        failing_phantom.fail()

    monkeypatch.setattr(ichtune.data.phantom.generate, "write_phantom", write)
    failing_phantom.error = DataError("enough")
    (tmp_path / "ichtune.toml").write_text("[phantom]\npatients = 31\n")
    main(["phantom", "out", "-q"])
    monkeypatch.setenv("ICHTUNE_PHANTOM_PATIENTS", "32")
    main(["phantom", "out", "-q"])
    main(["phantom", "out", "-q", "--patients", "33"])
    assert seen == [31, 32, 33]


def test_a_refused_setting_names_where_it_came_from(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "ichtune.toml").write_text('[phantom]\npatients = "many"\n')
    assert main(["phantom", "out"]) == 2
    assert "(from ichtune.toml:2)" in capsys.readouterr().err
    assert main(["phantom", "out", "--patients", "few"]) == 2
    assert "ichtune.toml" not in capsys.readouterr().err


def test_a_broken_settings_file_does_not_stop_help(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "ichtune.toml").write_text("[phantom\n")
    assert main(["--help"]) == 0
    assert main(["phantom", "out"]) == 2


def test_option_names_are_what_a_person_writes() -> None:
    import typer

    names = option_names(typer.main.get_command(app))
    assert list(names) == [*NAMES, "ensemble", "cluster"]
    assert names["search"]["json"] == "as_json"
    assert names["prepare"]["work"] == names["prepare"]["out"]
    assert names["ensemble"]["fold-plan"] == "fold_plan"


def test_settings_reach_the_commands_of_a_group(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("ICHTUNE_WORK", raising=False)
    (tmp_path / "ichtune.toml").write_text('work = "elsewhere"\n')
    assert main(["ensemble", "list"]) == 3
    assert "workspace elsewhere does not exist" in capsys.readouterr().err
    (tmp_path / "ichtune.toml").write_text('[cluster]\nworkers = "many"\n')
    assert main(["cluster", "up"]) == 2
    assert "(from ichtune.toml:2)" in capsys.readouterr().err
