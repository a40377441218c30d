import fcntl
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from ichtune.data import cache_build, shards
from ichtune.data.cache_build import CacheBuild, available_cores, build_cache
from ichtune.data.hu_cache import HuCache, verify_cache
from ichtune.data.source_files import find_files
from ichtune.errors import ConflictError, DataError, StorageError

N_FILES = 12


@pytest.fixture(autouse=True)
def _small_shards(monkeypatch):
    monkeypatch.setattr(shards, "_MIN_SHARD_ROWS", 4)


@pytest.fixture
def source(tmp_path, write_slice) -> Path:
    rng = np.random.default_rng(0)
    for number in range(N_FILES):
        pixels = rng.integers(0, 4096, (16, 16), dtype=np.uint16)
        write_slice(tmp_path / "in" / f"{number:02d}.dcm", pixels, SOPInstanceUID=f"1.2.{number}")
    return tmp_path / "in"


def build(source: Path, out: Path, size_px: int | None = 8, **options) -> CacheBuild:
    return build_cache(find_files(source), out, size_px, **options)


def content(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_the_same_files_give_the_same_cache(source, tmp_path):
    first, second = build(source, tmp_path / "a"), build(source, tmp_path / "b", n_processes=1)
    assert first.cache_id == second.cache_id
    assert content(first.folder) == content(second.folder)
    assert len([name for name in content(first.folder) if name.endswith(".hu16")]) == 3
    verify_cache(first.folder)


def test_an_unchanged_source_is_not_read_again(source, tmp_path, monkeypatch):
    first = build(source, tmp_path / "hu")
    monkeypatch.setattr(cache_build, "build_shard", lambda task: pytest.fail("a file was read"))
    again = build(source, tmp_path / "hu")
    assert (first.is_reused, again.is_reused) == (False, True)
    assert again.cache_id == first.cache_id
    assert again.rows.to_csv() == first.rows.to_csv()


def test_touched_files_are_read_again_and_give_the_same_cache(source, tmp_path):
    first = build(source, tmp_path / "hu")
    os.utime(source / "03.dcm", ns=(0, 0))
    again = build(source, tmp_path / "hu")
    assert not again.is_reused
    assert again.folder == first.folder
    assert build(source, tmp_path / "hu").is_reused


def test_changed_pixels_of_the_same_length_give_another_cache(source, tmp_path):
    first = build(source, tmp_path / "hu")
    data = bytearray((source / "03.dcm").read_bytes())
    data[-1] ^= 1
    (source / "03.dcm").write_bytes(data)
    os.utime(source / "03.dcm", ns=(0, 0))
    second = build(source, tmp_path / "hu")
    assert second.cache_id != first.cache_id
    assert HuCache(first.folder).n_rows == HuCache(second.folder).n_rows == N_FILES


def test_a_changed_header_gives_another_cache(source, tmp_path, write_slice):
    first = build(source, tmp_path / "a")
    for path in sorted(source.iterdir()):
        path.write_bytes(path.read_bytes().replace(b"P1", b"P2"))
    second = build(source, tmp_path / "b")
    assert second.cache_id != first.cache_id
    assert second.rows["patient_id"].unique().tolist() == ["P2"]


def test_two_sizes_live_side_by_side(source, tmp_path):
    small, native = build(source, tmp_path / "hu", 8), build(source, tmp_path / "hu", None)
    assert HuCache(small.folder).shape(0) == (8, 8)
    assert HuCache(native.folder).shape(0) == (16, 16)
    assert build(source, tmp_path / "hu", 8).is_reused


def test_a_stopped_build_goes_on_where_it_was_and_ends_the_same(source, tmp_path, monkeypatch):
    whole = build(source, tmp_path / "whole")
    built: list[int] = []

    def stop_at_the_third(task):
        if len(built) == 2:
            raise KeyboardInterrupt
        built.append(task.number)
        return shards.build_shard(task)

    monkeypatch.setattr(cache_build, "build_shard", stop_at_the_third)
    with pytest.raises(KeyboardInterrupt):
        build(source, tmp_path / "hu")
    assert not list((tmp_path / "hu").glob("*/cache.json"))

    def note_and_build(task):
        built.append(task.number)
        return shards.build_shard(task)

    monkeypatch.setattr(cache_build, "build_shard", note_and_build)
    seen = []
    resumed = build(source, tmp_path / "hu", on_progress=seen.append)
    assert built == [0, 1, 2]
    assert content(resumed.folder) == content(whole.folder)
    assert (seen[0].n_done, seen[0].n_resumed, seen[-1].n_done) == (8, 8, N_FILES)


@pytest.mark.slow
def test_a_build_killed_at_any_moment_ends_the_same(source, tmp_path):
    whole = build(source, tmp_path / "whole")
    script = (
        "import sys, time\nfrom pathlib import Path\nfrom ichtune.data import cache_build, shards\n"
        "from ichtune.data.source_files import find_files\nshards._MIN_SHARD_ROWS = 4\n"
        "read = shards.read_file\n"
        "def slowly(*args):\n    time.sleep(0.01)\n    return read(*args)\nshards.read_file = slowly\n"
        "print('ready', flush=True)\n"
        "cache_build.build_cache(find_files(Path(sys.argv[1])), Path(sys.argv[2]), 8, 1)\n"
    )
    for wait_s in (0.03, 0.06):
        arguments = [sys.executable, "-c", script, str(source), str(tmp_path / "hu")]
        with subprocess.Popen(arguments, stdout=subprocess.PIPE) as process:
            assert process.stdout is not None
            process.stdout.readline()
            time.sleep(wait_s)
            process.send_signal(signal.SIGKILL)
    resumed = build(source, tmp_path / "hu")
    assert content(resumed.folder) == content(whole.folder)
    assert [path.name for path in (tmp_path / "hu").iterdir() if path.is_dir()] == [whole.cache_id]


def test_a_build_killed_before_its_last_rename_is_finished(source, tmp_path, monkeypatch):
    def killed(building, folder):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(cache_build, "_settle", killed)
        with pytest.raises(KeyboardInterrupt):
            build(source, tmp_path / "hu")
    monkeypatch.setattr(cache_build, "build_shard", lambda task: pytest.fail("a file was read"))
    assert HuCache(build(source, tmp_path / "hu").folder).n_rows == N_FILES


def test_a_damaged_cache_is_replaced(source, tmp_path):
    first = build(source, tmp_path / "hu")
    (first.folder / "00001.hu16").unlink()
    again = build(source, tmp_path / "hu")
    assert not again.is_reused
    verify_cache(again.folder)


def test_a_source_that_shrank_while_stopped_leaves_no_stale_shard(source, tmp_path, monkeypatch):
    def killed(building, folder):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(cache_build, "_settle", killed)
        with pytest.raises(KeyboardInterrupt):
            build(source, tmp_path / "hu")
    for number in range(5, N_FILES):
        (source / f"{number:02d}.dcm").unlink()
    shrunk = build(source, tmp_path / "hu")
    assert content(shrunk.folder) == content(build(source, tmp_path / "fresh").folder)


def test_a_file_that_could_not_be_opened_is_tried_again_next_time(source, tmp_path):
    link = source / "zz.dcm"
    link.symlink_to(tmp_path / "later.dcm")
    assert build(source, tmp_path / "hu").rows["reason"].iloc[-1].startswith("unreadable_file")
    assert not build(source, tmp_path / "hu").is_reused


def test_two_builds_at_once_in_one_workspace_are_refused(source, tmp_path):
    (tmp_path / "hu").mkdir()
    with (tmp_path / "hu" / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with pytest.raises(ConflictError, match="another `ichtune prepare`"):
            build(source, tmp_path / "hu")
    assert build(source, tmp_path / "hu").cache_id


def test_a_place_that_cannot_be_written_is_a_storage_error(source, tmp_path):
    (tmp_path / "hu").write_text("a file in the way")
    with pytest.raises(StorageError, match="cannot write"):
        build(source, tmp_path / "hu")


def test_an_unreadable_note_of_what_was_built_costs_only_time(source, tmp_path):
    build(source, tmp_path / "hu")
    (tmp_path / "hu" / "built_from.json").write_text("{")
    assert build(source, tmp_path / "hu").cache_id
    assert json.loads((tmp_path / "hu" / "built_from.json").read_text())["caches"]


@pytest.mark.slow
def test_several_processes_give_the_same_bytes_as_one(source, tmp_path, monkeypatch):
    monkeypatch.undo()
    for copy in range(6):
        shutil.copytree(source, source.parent / "many" / str(copy))
    many = source.parent / "many"
    one, two = build(many, tmp_path / "one", n_processes=1), build(many, tmp_path / "two", n_processes=2)
    assert content(one.folder) == content(two.folder)


@pytest.mark.slow
def test_an_error_in_a_worker_reaches_the_caller(source, tmp_path, monkeypatch):
    monkeypatch.undo()
    for copy in range(6):
        shutil.copytree(source, source.parent / "many" / str(copy))
    files = find_files(source.parent / "many")
    (source.parent / "many" / "3" / "00.dcm").unlink()
    with pytest.raises(DataError, match="was there a moment ago"):
        build_cache(files, tmp_path / "hu", 8, n_processes=2)


def test_at_least_one_core_is_there():
    assert available_cores() >= 1
