"""What the cluster test is too slow to show: what a node checks, how many tasks wait, how errors come back."""

import sys
import time
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from ichtune.data.cache.shards import CacheSpec, ShardResult, ShardTask
from ichtune.data.source_files import SourceFile
from ichtune.errors import ConfigError, DataError, StorageError
from ichtune.search import shard_tasks
from ichtune.search.shard_tasks import check_node
from ichtune.version import __version__

RESULT = ShardResult(0, 1, 1, 0, 0, 0, "", "", "", "")


@pytest.fixture
def task(tmp_path: Path) -> ShardTask:
    for folder in ("source", "cache"):
        (tmp_path / folder).mkdir()
    (tmp_path / "source" / "a.dcm").write_bytes(b"")
    file = SourceFile("a.dcm", 0, 0)
    return ShardTask(0, tmp_path / "source", (file,), "", tmp_path / "cache", CacheSpec(16), np.zeros((1, 3)))


def write(task: ShardTask) -> None:
    task.pixels.touch()
    task.rows.touch()


class TaskError(Exception):
    def __init__(self, cause: Exception) -> None:
        self.cause = cause


class LostError(Exception):
    """A node died."""


class FakeRay:
    """Runs a task when its result is asked for, and counts how many are handed out at once."""

    exceptions = SimpleNamespace(RayTaskError=TaskError, RayError=LostError)

    def __init__(self, n_cpus: float = 2, fails: dict[int, Exception] | None = None) -> None:
        self.n_cpus, self.fails = n_cpus, fails or {}
        self.handed_out: list[ShardTask] = []
        self.names: list[str] = []
        self.most, self.cancelled = 0, 0
        self._open: set[int] = set()

    def cluster_resources(self) -> dict[str, float]:
        return {"CPU": self.n_cpus}

    def remote(self, **options):
        assert options["num_cpus"] == 1
        assert options["max_retries"] > 0

        def hand_out(task: ShardTask, marker: str, version: str) -> int:
            check_node(task, marker, version, within_s=0)
            self.handed_out.append(task)
            self._open.add(task.number)
            self.most = max(self.most, len(self._open))
            return task.number

        def named(name: str) -> SimpleNamespace:
            self.names.append(name)
            return SimpleNamespace(remote=hand_out)

        return lambda function: SimpleNamespace(options=named)

    def wait(self, references: list[int], num_returns: int) -> tuple[list[int], list[int]]:
        return references[-1:], references[:-1]  # not in the order of handing out

    def get(self, reference: int) -> ShardResult:
        self._open.remove(reference)
        if reference in self.fails:
            raise self.fails[reference]
        write(next(task for task in self.handed_out if task.number == reference))
        return replace(RESULT, number=reference)

    def cancel(self, reference: int, force: bool) -> None:
        self.cancelled += 1


@pytest.fixture
def ray(monkeypatch: pytest.MonkeyPatch):
    def use(**settings) -> FakeRay:
        fake = FakeRay(**settings)
        monkeypatch.setitem(sys.modules, "ray", fake)  # type: ignore[arg-type]
        return fake

    return use


def many(task: ShardTask, n: int) -> list[ShardTask]:
    return [replace(task, number=number) for number in range(n)]


def test_every_shard_is_built_once_and_no_more_wait_than_there_are_cpus(task, ray):
    fake = ray(n_cpus=3)
    results = list(shard_tasks._run_on_ray(many(task, 10)))
    assert sorted(result.number for result in results) == list(range(10))
    assert fake.most == 3
    assert fake.names == [f"shard_{number:05d}" for number in range(10)]
    assert fake.cancelled == 0
    assert list(task.folder.glob(".*")) == [], "the marker goes when the build ends"


def test_a_core_is_given_work_before_a_result_is_handed_on(task, ray):
    fake = ray(n_cpus=2)
    results = shard_tasks._run_on_ray(many(task, 4))
    next(results)
    assert len(fake.handed_out) == 3


def test_tasks_travel_with_absolute_paths(task, ray, monkeypatch):
    monkeypatch.chdir(task.source.parent)
    fake = ray()
    relative = replace(task, source=Path("source"), folder=Path("cache"))
    assert len(list(shard_tasks._run_on_ray([relative]))) == 1
    assert fake.handed_out[0].source == task.source.resolve()
    assert fake.handed_out[0].folder == task.folder.resolve()


def test_nothing_to_build_needs_no_cluster():
    assert list(shard_tasks._run_on_ray([])) == []


@pytest.mark.parametrize("error", [DataError("b.dcm is gone"), StorageError("disk full")])
def test_a_tasks_own_error_comes_back_as_itself_and_the_others_are_cancelled(task, ray, error):
    fake = ray(fails={1: TaskError(error)})
    with pytest.raises(type(error)) as raised:
        list(shard_tasks._run_on_ray(many(task, 6)))
    assert raised.value is error
    assert fake.cancelled == 1
    assert list(task.folder.glob(".*")) == []


def test_an_unexpected_error_of_a_task_is_no_data_problem(task, ray):
    ray(fails={0: TaskError(ZeroDivisionError())})
    with pytest.raises(TaskError):
        list(shard_tasks._run_on_ray(many(task, 1)))


def test_a_shard_that_is_lost_again_and_again_is_one_clear_message(task, ray):
    ray(fails={0: LostError("The node died.\nmore")})
    with pytest.raises(DataError, match=r"lost 4 times .*\(The node died\.\).*Finished shards are kept"):
        list(shard_tasks._run_on_ray(many(task, 1)))


def test_who_stops_listening_ends_the_tasks(task, ray):
    fake = ray(n_cpus=3)
    results = shard_tasks._run_on_ray(many(task, 9))
    next(results)
    results.close()  # type: ignore[attr-defined]
    assert fake.cancelled == 3
    assert list(task.folder.glob(".*")) == []


def test_what_a_node_wrote_elsewhere_is_noticed(task, ray, monkeypatch):
    monkeypatch.setattr(shard_tasks, "SEEN_WITHIN_S", 0)
    fake = ray()
    monkeypatch.setattr(fake, "get", lambda reference: RESULT)
    with pytest.raises(StorageError, match=r"a node wrote .*, which is not seen here: .*every node sees"):
        list(shard_tasks._run_on_ray([task]))


def test_a_node_refuses_what_it_does_not_see(task):
    with pytest.raises(ConfigError, match=rf"has ichtune {__version__}, the build was started with 0\.0\.0"):
        check_node(task, "marker", "0.0.0")
    with pytest.raises(StorageError, match=r"does not see the cache's folder .*, or sees another one: .*every node"):
        check_node(task, "marker", __version__, within_s=0)
    (task.folder / "marker").touch()
    check_node(task, "marker", __version__, within_s=0)
    with pytest.raises(StorageError, match=r"does not see .*b\.dcm: .*every node sees"):
        check_node(replace(task, files=(SourceFile("b.dcm", 0, 0),)), "marker", __version__)
    with pytest.raises(StorageError, match="does not see the cache's folder"):
        check_node(replace(task, folder=task.folder / "not here"), "marker", __version__, within_s=60)


def test_a_folder_whose_listing_is_old_is_waited_for(task, monkeypatch):
    def later(seconds: float) -> None:
        (task.folder / "marker").touch()

    monkeypatch.setattr(time, "sleep", later)
    check_node(task, "marker", __version__, within_s=60)


def test_a_cache_folder_that_may_not_be_written_is_said(task, ray):
    ray()
    with pytest.raises(StorageError, match="cannot write"):
        list(shard_tasks._run_on_ray([replace(task, folder=task.folder / "absent")]))
