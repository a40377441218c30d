"""Searches in processes of their own, so that they can be killed as a person or a scheduler would kill them."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

SPACE = """
version: 1
search: {algorithm: tpe, trials: 5, seed: 7, early_stop: {type: asha, grace: 1, max: 6, factor: 2}}
resources: {gpu: 0.5, cpu: 1}
parameters:
  architecture: tiny_convnet
  windows: [brain, subdural, brain_subdural_bone]
  lr: {low: 1e-3, high: 1e-2, log: true}
  image_px: 32
  batch_size: 4
  epochs: 6
  ema_decay: 0.9
"""


@pytest.fixture
def space_file(tmp_path: Path) -> Path:
    path = tmp_path / "tiny.yaml"
    path.write_text(SPACE)
    return path


class Search:
    """``ichtune search`` in a process of its own."""

    def __init__(self, work: Path, space: Path, *options: str, **environment: str) -> None:
        command = [sys.executable, "-m", "ichtune", "search", "--space", str(space), "--work", str(work), "--json"]
        self.ledger = work / "searches" / "tiny" / "ledger.jsonl"
        self.process = subprocess.Popen(
            [*command, "--no-dashboard", *options],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env={**os.environ, **environment},
        )

    def events(self, kind: str) -> int:
        return self.ledger.read_text().count(f'"event": "{kind}"') if self.ledger.is_file() else 0

    def wait_for(self, kind: str, count: int, timeout_s: float = 240) -> None:
        deadline = time.monotonic() + timeout_s
        while self.events(kind) < count:
            if self.process.poll() is not None:
                raise AssertionError(f"the search ended before {count} {kind}: {self.process.stderr.read()}")
            assert time.monotonic() < deadline, f"no {count} {kind} in {timeout_s} s"
            time.sleep(0.05)

    def signal(self, number: int) -> tuple[int, str]:
        self.process.send_signal(number)
        return self._ended()

    def result(self) -> dict[str, Any]:
        code, errors = self._ended()
        assert code == 0, errors
        return json.loads(self.output)

    def _ended(self) -> tuple[int, str]:
        self.output, errors = self.process.communicate(timeout=300)
        return self.process.returncode, errors


@pytest.fixture
def start_search(space_file: Path):
    started: list[Search] = []

    def start(work: Path, *options: str, **environment: str) -> Search:
        started.append(Search(work, space_file, *options, **environment))
        return started[-1]

    yield start
    for search in started:
        if search.process.poll() is None:
            search.process.send_signal(signal.SIGKILL)
            search.process.wait()


StartSearch = Callable[..., Search]
