"""A search whose workspace lies at a URL outlives the machine that it ran on, and a store that fails."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow

#: A file system for every process of a search: a folder that takes so many lines of a ledger and then no more.
FLAKY_FS = """
import os
from fsspec.implementations.local import LocalFileSystem

class Flaky(LocalFileSystem):
    protocol = "flaky"
    n_lines = 0

    def pipe_file(self, path, value, mode="overwrite", **kwargs):
        if "/ledger/" in path:
            Flaky.n_lines += 1
            if Flaky.n_lines > int(os.environ["FLAKY_LINES"]):
                raise OSError("connection reset by peer")
        super().pipe_file(path, value, mode=mode, **kwargs)
"""


class Search:
    """``ichtune search`` on a URL in a process of its own, with a mirror of its own."""

    def __init__(self, place: str, space: Path, folder: Path, mirror: str, **environment: str) -> None:
        folder.mkdir(exist_ok=True)
        self.mirror, self.output = folder / mirror, folder / f"{time.monotonic_ns()}.jsonl"
        command = [sys.executable, "-m", "ichtune", "search", "--space", str(space), "--work", place, "--json"]
        with self.output.open("w") as out:
            self.process = subprocess.Popen(
                [*command, "--no-dashboard", "--concurrent", "1"],
                stdout=out,
                stderr=subprocess.PIPE,
                text=True,
                env={**os.environ, "ICHTUNE_MIRROR": str(self.mirror), **environment},
            )

    def lines(self) -> list[dict]:
        whole = self.output.read_text().rpartition("\n")[0]
        return [json.loads(line) for line in whole.splitlines()]

    def wait_for(self, kind: str, count: int, timeout_s: float = 300) -> None:
        deadline = time.monotonic() + timeout_s
        while sum(line["event"] == kind for line in self.lines()) < count:
            if self.process.poll() is not None:
                raise AssertionError(f"it ended before {count} {kind}: {self.process.stderr.read()}")
            assert time.monotonic() < deadline, f"no {count} {kind} in {timeout_s} s"
            time.sleep(0.05)

    def ended(self) -> tuple[int, str]:
        _, errors = self.process.communicate(timeout=400)
        return self.process.returncode, errors

    def table(self) -> list[list]:
        code, errors = self.ended()
        assert code == 0, errors
        keys = ("trial", "status", "recipe_id", "epochs", "best_loss", "last_loss", "lr", "windows")
        return sorted([row[key] for key in keys] for row in self.lines()[-1]["leaderboard"])


@pytest.fixture
def start(space_file, tmp_path):
    started = []

    def make(place: str, mirror: str = "mirror", **environment: str) -> Search:
        started.append(Search(place, space_file, tmp_path / "machine", mirror, **environment))
        return started[-1]

    yield make
    for search in started:
        if search.process.poll() is None:
            search.process.send_signal(signal.SIGKILL)
            search.process.wait()


def ledger_of(work: Path) -> list[dict]:
    """What whoever copies the workspace from its URL reads."""
    return [json.loads(line) for line in (work / "searches" / "tiny" / "ledger.jsonl").read_text().splitlines()]


def test_a_search_outlives_its_machine_and_a_store_that_fails(fake_workspace, start, tmp_path) -> None:
    undisturbed = start(str(fake_workspace("undisturbed").layout.root)).table()
    work = fake_workspace("there").layout.root
    kept = tmp_path / "plugin"
    (kept / "flaky_fs-0.dist-info").mkdir(parents=True)
    (kept / "flaky_fs.py").write_text(FLAKY_FS)
    (kept / "flaky_fs-0.dist-info" / "METADATA").write_text("Metadata-Version: 2.1\nName: flaky_fs\nVersion: 0\n")
    (kept / "flaky_fs-0.dist-info" / "entry_points.txt").write_text("[fsspec.specs]\nflaky = flaky_fs:Flaky\n")

    broken = start(f"flaky://{work}", PYTHONPATH=str(kept), FLAKY_LINES="6")
    code, errors = broken.ended()
    assert code == 5, errors
    assert "ledger/" in errors
    assert "connection reset by peer. The search stopped where it was; the same command continues it" in errors
    assert "Traceback" not in errors
    assert not (tmp_path / "undisturbed" / "searches" / "tiny" / "ledger").exists(), "a plain path stays as it was"

    killed = start(f"file://{work}", mirror="another")
    killed.wait_for("finished", 1)
    killed.wait_for("start", 2)
    killed.process.send_signal(signal.SIGKILL)
    killed.ended()
    shutil.rmtree(killed.mirror)
    shutil.rmtree(broken.mirror)
    told = [(line["trial"], line["epoch"]) for line in killed.lines() if line["event"] == "epoch"]

    continued = start(f"file://{work}", mirror="a third")
    assert continued.table() == undisturbed

    events = ledger_of(work)
    epochs = [(e["trial"], e["epoch"]) for e in events if e["event"] == "epoch"]
    assert len(epochs) == len(set(epochs)), "an epoch was paid for twice"
    assert set(told) <= set(epochs), "an epoch that was told is lost"
    ended = [e["trial"] for e in events if e["event"] == "end" and e["status"] == "finished"]
    assert len(ended) == len(set(ended)), "a finished trial was run again"
    assert (work / "trials.parquet").is_file()
    assert len(list((work / "searches" / "tiny" / "ledger").iterdir())) == 1
    names = [path.name for path in work.rglob("*")]
    assert "ray_token" not in names
    assert not [name for name in names if name.endswith(".tmp")]
