"""Tests that start Ray inside of their own process run in a process of their own, which ends as the command does.

What Ray leaves behind (settings, threads) reaches no other test, and an end that crashes is a failure.
"""

import os
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow

#: Files of this folder, and how many tests each must have passed.
CASES = {
    "deaths_on_ray.py": 1,
    "declared_gpus.py": 1,
    "limits_on_ray.py": 1,
    "local_ray.py": 1,
    "measure_memory.py": 1,
    "prepare_on_ray.py": 2,
    "train_winners.py": 2,
}


@pytest.mark.parametrize("name", CASES)
def test_cases_pass(name: str) -> None:
    path = Path(__file__).with_name(name)
    command = [sys.executable, "-m", "tests", "-q", "-p", "no:cacheprovider", str(path)]
    clean = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
    done = subprocess.run(
        command, cwd=path.parents[2], env=clean, capture_output=True, text=True, timeout=500, check=False
    )
    assert done.returncode == 0, done.stdout[-8000:] + done.stderr[-4000:]
    assert f"{CASES[name]} passed" in done.stdout


def test_every_file_of_cases_is_run() -> None:
    others = {path.name for path in Path(__file__).parent.glob("*.py") if not path.name.startswith(("test_", "_"))}
    assert others - {"conftest.py"} == set(CASES)
