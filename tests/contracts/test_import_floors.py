"""Imports point down the floors only: the linter's contracts hold, and they bite."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
LINTER = "from importlinter.cli import lint_imports_command; lint_imports_command()"


def lint(folder: Path, cache: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", LINTER, "--config", "pyproject.toml", "--cache-dir", str(cache)]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False, timeout=120)


def test_every_contract_is_kept(tmp_path: Path) -> None:
    done = lint(ROOT, tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "0 broken" in done.stdout


@pytest.mark.slow  # takes seconds
@pytest.mark.parametrize(
    ("path", "line", "contract"),
    [
        ("labels.py", "import ichtune.recipe", "Imports point down the floors only BROKEN"),
        ("helpers.py", "", "Imports point down the floors only BROKEN"),
        ("training/loop.py", "import ray", "ray and optuna only in the search room BROKEN"),
        ("metrics.py", "import torch", "blending reaches neither torch nor ray BROKEN"),
    ],
)
def test_a_step_upwards_breaks_one(tmp_path: Path, path: str, line: str, contract: str) -> None:
    copy = tmp_path / "house"
    ignored = shutil.ignore_patterns("__pycache__", ".*", "_shipped")
    shutil.copytree(ROOT / "ichtune", copy / "ichtune", ignore=ignored)
    shutil.copy(ROOT / "pyproject.toml", copy)
    with (copy / "ichtune" / path).open("a", encoding="utf-8") as file:
        file.write(f"\n{line}\n")
    done = lint(copy, tmp_path / "cache")
    assert done.returncode != 0
    assert contract in done.stdout
