"""Searches in processes of their own, so that they can be killed as a person or a scheduler would kill them."""

import json
import os
import signal
import subprocess
import sys
import tempfile
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
        self._stdout = tempfile.TemporaryFile("w+")  # noqa: SIM115 - a pipe that nobody reads fills up and blocks
        self.process = subprocess.Popen(
            [*command, "--no-dashboard", *options],
            stdout=self._stdout,
            stderr=subprocess.PIPE,
            text=True,
            env={**os.environ, **environment},
            start_new_session=True,  # a group of its own, as a shell or a batch system gives it
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

    def signal(self, number: int, *, group: bool = False) -> tuple[int, str]:
        """Signal the process, or its whole group, and wait for its end; exit code and what it said."""
        if group:
            os.killpg(self.process.pid, number)
        else:
            self.process.send_signal(number)
        return self._ended()

    def result(self) -> dict[str, Any]:
        code, errors = self._ended()
        assert code == 0, errors
        return self.summary

    @property
    def summary(self) -> dict[str, Any]:
        """The last line that it wrote."""
        return json.loads(self.output.splitlines()[-1])

    def _ended(self) -> tuple[int, str]:
        _, errors = self.process.communicate(timeout=300)
        self._stdout.seek(0)
        self.output = self._stdout.read()
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


@pytest.fixture
def nothing_lost() -> Callable[[Search, int], None]:
    """Return a function that reads a search's ledger: every trial ended, none that was finished ran again."""

    def check(search: Search, n_trials: int) -> None:
        events = [json.loads(line) for line in search.ledger.read_text().splitlines()]
        told = [(e["trial"], e["fold"], e["epoch"]) for e in events if e["event"] == "epoch"]
        assert len(told) == len(set(told)), "an epoch was paid for twice"
        state: dict[int, str] = {}
        for event in events[1:]:
            ended = state.get(event["trial"], "")
            assert ended != "finished", f"trial {event['trial']} was finished and ran again"
            state[event["trial"]] = event["status"] if event["event"] == "end" else ""
        assert sorted(state) == list(range(n_trials))
        assert set(state.values()) <= {"finished", "stopped"}

    return check
