"""The cache that a Ray cluster builds is the one that this machine would have built, byte for byte.

``test_in_processes_of_their_own.py`` runs these: the cluster has no authentication, which Ray settles once a process.
"""

import os
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import ray

from ichtune.data.cache.build import CacheBuild, CacheSpec, Progress, build_cache
from ichtune.data.cache.shards import ShardResult, ShardTask, build_shard
from ichtune.data.phantom.headers import ENCODINGS, SeriesHeader, encode_file
from ichtune.data.source_files import find_files
from ichtune.errors import DataError
from ichtune.search import shard_tasks
from ichtune.search.shard_tasks import ray_shards

N_FILES = 500
#: How long a shard takes where a node is to be lost in the midst of one.
BUILD_S = 4.0
SPEC = CacheSpec(size_px=24)


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SimpleNamespace]:
    """A cluster of a head without CPUs, which is not to be lost, and two nodes of one CPU."""
    patch = pytest.MonkeyPatch()
    for name in ("RAY_ADDRESS", "RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH"):
        patch.delenv(name, raising=False)
    settings = {"RAY_AUTH_MODE": "disabled", "RAY_USAGE_STATS_ENABLED": "0", "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "1"}
    for name, value in settings.items():
        patch.setenv(name, value)
    patch.setenv("HOME", str(tmp_path_factory.mktemp("home")))
    from ray.cluster_utils import Cluster

    made = Cluster(
        initialize_head=True,
        head_node_args={"num_cpus": 0, "object_store_memory": 80 << 20, "include_dashboard": False},
    )
    nodes = [made.add_node(num_cpus=1, object_store_memory=80 << 20) for _ in range(2)]
    lose = {node.node_id: partial(made.remove_node, node, allow_graceful=False) for node in nodes}
    try:
        yield SimpleNamespace(address=made.address, lose=lose)
    finally:
        made.shutdown()
        patch.undo()


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Small slices of several encodings, and files that are refused."""
    folder = tmp_path_factory.mktemp("source")
    rng = np.random.default_rng(5)
    for number in range(N_FILES):
        header = SeriesHeader(
            patient_id=f"P{number // 100}",
            study_uid=f"1.2.{number // 50}",
            series_uid=f"1.3.{number // 50}",
            encoding=ENCODINGS[number % 2],
            window_centre="",
            window_width="",
            has_study_id=False,
            has_padding_tag=False,
            pixel_mm=0.5,
            orientation=(1, 0, 0, 0, 1, 0),
        )
        stored = rng.integers(900, 1200, (32, 32)).astype(np.uint16)
        data = encode_file(header, f"1.4.{number}", (0.0, 0.0, 5.0 * number), stored)
        (folder / f"{number:04d}.dcm").write_bytes(data[:-100] if number % 97 == 0 else data)
    return folder


def content(build: CacheBuild) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(build.folder.iterdir())}


def test_the_cluster_builds_the_same_bytes(cluster: SimpleNamespace, source: Path, tmp_path: Path) -> None:
    files = find_files(source)
    here = build_cache(files, tmp_path / "here", SPEC, n_processes=1)
    with ray_shards(cluster.address) as run_shards:
        there = build_cache(files, tmp_path / "there", SPEC, run_shards=run_shards)
    assert there.cache_id == here.cache_id
    assert content(there) == content(here)
    assert len([name for name in content(here) if name.endswith(".b2")]) > 4, "several tasks are what is tested"


def test_an_error_comes_back_as_itself_and_a_lost_node_costs_nothing(
    cluster: SimpleNamespace, source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    here = build_cache(find_files(source), tmp_path / "here", SPEC, n_processes=1)
    begun = tmp_path / "begun"
    begun.mkdir()
    lost: list[Path] = []

    def slow(task: ShardTask, marker: str, version: str) -> ShardResult:
        node = ray.get_runtime_context().get_node_id()
        attempt = begun / f"{task.number}-{node}-{os.getpid()}"
        attempt.touch()
        time.sleep(BUILD_S)
        attempt.rename(attempt.with_suffix(".ended"))
        return build_shard(task)

    def lose_a_node(progress: Progress) -> None:
        deadline = time.monotonic() + 2 * BUILD_S
        is_begun = progress.n_resumed < progress.n_done < progress.n_files
        while is_begun and not lost and time.monotonic() < deadline:
            mine = ray.get_runtime_context().get_node_id()  # this process ends with the node that it is attached to
            running = [
                path
                for path in begun.iterdir()
                if not path.suffix and mine not in path.name and time.time() - path.stat().st_mtime < BUILD_S / 4
            ]
            lost.extend(running[:1])
            if lost:
                cluster.lose[lost[0].name.split("-")[1]]()
            time.sleep(0.05)

    with ray_shards(cluster.address) as run_shards:
        vanished = source / "0101.dcm"
        held, files = vanished.read_bytes(), find_files(source)
        vanished.unlink()
        with pytest.raises(DataError, match=r"0101\.dcm"):
            build_cache(files, tmp_path / "there", SPEC, run_shards=run_shards)
        vanished.write_bytes(held)
        monkeypatch.setattr(shard_tasks, "_build", slow)
        there = build_cache(
            find_files(source), tmp_path / "there", SPEC, run_shards=run_shards, on_progress=lose_a_node
        )

    number = lost[0].name.split("-")[0]
    assert [path.name for path in begun.glob(f"{number}-*.ended")], "the lost shard was not begun again"
    assert lost[0].is_file(), "the lost shard was not in mid-build"
    assert content(there) == content(here)
    assert list((tmp_path / "there").glob("**/*.tmp")) == []
