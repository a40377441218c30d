import multiprocessing
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from ichtune.data.cache import shard_pool, shards
from ichtune.data.cache.build import CacheSpec, plan_shards
from ichtune.data.cache.shard_pool import available_cores, local_shards
from ichtune.data.cache.shards import ShardTask, read_shard
from ichtune.data.source_files import find_files
from ichtune.errors import DataError

N_SHARDS = 6


@pytest.fixture
def tasks(tmp_path, write_slice, monkeypatch) -> list[ShardTask]:
    monkeypatch.setattr(shards, "_MIN_SHARD_FILES", 2)
    for number in range(2 * N_SHARDS):
        write_slice(tmp_path / "in" / f"{number:02d}.dcm")
    (tmp_path / "out").mkdir()
    return plan_shards(find_files(tmp_path / "in"), tmp_path / "out", CacheSpec(8))


def test_at_least_one_core_is_there():
    assert available_cores() >= 1


def test_one_process_builds_them_here_in_order(tasks, monkeypatch):
    monkeypatch.setattr(shard_pool, "ProcessPoolExecutor", lambda *_, **__: pytest.fail("a process was started"))
    assert [result.number for result in local_shards(1)(tasks)] == list(range(N_SHARDS))
    assert len(list(local_shards(8)(tasks[:1]))) == 1
    assert list(local_shards(8)([])) == []


@pytest.mark.slow
def test_several_processes_build_the_same_shards(tasks, tmp_path):
    one = list(local_shards(1)(tasks))
    kept = {path.name: path.read_bytes() for path in (tmp_path / "out").iterdir()}
    shutil.rmtree(tmp_path / "out")
    (tmp_path / "out").mkdir()
    assert sorted(local_shards(2)(tasks), key=lambda result: result.number) == one
    assert {path.name: path.read_bytes() for path in (tmp_path / "out").iterdir()} == kept
    assert not multiprocessing.active_children()


@pytest.mark.slow
def test_an_error_in_a_worker_reaches_the_caller_and_ends_the_others(tasks):
    (tasks[3].source / "06.dcm").unlink()
    with pytest.raises(DataError, match=r"06\.dcm was there a moment ago"):
        list(local_shards(2)(tasks))
    assert not multiprocessing.active_children()


@pytest.mark.slow
def test_a_worker_that_is_killed_is_an_error_that_says_how_to_go_on(tasks):
    built = local_shards(2)(tasks * 200)
    next(built)
    victim = multiprocessing.active_children()[0].pid
    assert victim
    os.kill(victim, signal.SIGKILL)
    with pytest.raises(DataError, match=r"a worker process died.*run the same command again"):
        list(built)
    assert not multiprocessing.active_children()
    assert read_shard(tasks[0]) is not None


@pytest.mark.slow
def test_a_caller_that_stops_leaves_no_worker(tasks):
    built = local_shards(2)(tasks * 200)
    next(built)
    assert multiprocessing.active_children()
    built.close()
    assert not multiprocessing.active_children()


SCRIPT = """
import multiprocessing, sys, time
from pathlib import Path
from ichtune.data.cache import shards
from ichtune.data.cache.build import CacheSpec, plan_shards
from ichtune.data.cache.shard_pool import local_shards
from ichtune.data.source_files import find_files

if __name__ == "__main__":
    shards._MIN_SHARD_FILES = 2
    tasks = plan_shards(find_files(Path(sys.argv[1])), Path(sys.argv[2]), CacheSpec(8))
    for _ in local_shards(2)(tasks * 1000):
        print(*[child.pid for child in multiprocessing.active_children()], flush=True)
"""


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_no_worker_outlives_its_build(tasks, tmp_path, number):
    (tmp_path / "run.py").write_text(SCRIPT)
    command = [sys.executable, str(tmp_path / "run.py"), str(tasks[0].source), str(tmp_path / "out")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        workers = [int(pid) for pid in process.stdout.readline().split()]
        process.send_signal(number)
        process.communicate()
    assert len(workers) == 2
    deadline = time.monotonic() + 30
    while any(is_alive(pid) for pid in workers) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert [pid for pid in workers if is_alive(pid)] == []


def is_alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False
