import dataclasses
import errno
import os
import pickle
import shutil
from pathlib import Path

import numpy as np
import pytest

from ichtune.data.cache import shards
from ichtune.data.cache.build import plan_shards
from ichtune.data.cache.hu_cache import checksum
from ichtune.data.cache.resize import fit_hu
from ichtune.data.cache.shards import (
    CacheSpec,
    DiskFullError,
    ShardTask,
    build_shard,
    cut_files,
    read_shard,
    shard_state,
    shard_table,
)
from ichtune.data.dicom.reader import read_hu
from ichtune.data.source_files import SourceFile, find_files
from ichtune.errors import DataError, StorageError
from ichtune.tables import remove_leftovers


@pytest.fixture
def task(tmp_path, write_slice) -> ShardTask:
    """Three files, the second of them refused."""
    for number in range(3):
        write_slice(tmp_path / "in" / f"{number}.dcm", SOPInstanceUID=f"1.2.{number}")
    (tmp_path / "in" / "1.dcm").write_text("no DICOM")
    return only_task(tmp_path, CacheSpec(8))


def only_task(tmp_path: Path, spec: CacheSpec) -> ShardTask:
    (tmp_path / "out").mkdir(exist_ok=True)
    (task,) = plan_shards(find_files(tmp_path / "in"), tmp_path / "out", spec)
    return task


def files_of(*sizes: int) -> list[SourceFile]:
    return [SourceFile(f"{number:06d}", size, 0) for number, size in enumerate(sizes)]


@pytest.mark.parametrize(
    ("n_files", "expected"), [(1, 1), (64, 64), (1024, 64), (1025, 128), (32_768, 2048), (100_000, 2048)]
)
def test_shards_are_small_in_a_small_set(n_files, expected):
    files = files_of(*[1] * n_files)
    parts = list(cut_files(files))
    assert len(parts[0]) == expected
    assert [file for part in parts for file in part] == files


def test_large_files_fill_a_shard_sooner(monkeypatch):
    monkeypatch.setattr(shards, "MAX_SHARD_BYTES", 10)
    assert [len(part) for part in cut_files(files_of(4, 4, 4, 99, 1, 9, 1))] == [2, 1, 1, 2, 1]


def test_a_shard_holds_its_slices_one_after_the_other(task):
    result = build_shard(task)
    data = task.pixels.read_bytes()
    rows = shard_table(task.folder, 0).to_pandas()
    assert result.n_bytes == len(data) == rows["n_bytes"].sum()
    assert (result.n_files, result.n_rows, result.n_refused, result.n_unreadable) == (3, 3, 1, 0)
    assert rows["height"].tolist() == rows["width"].tolist() == [8, 0, 8]
    assert rows["path"].tolist() == ["0.dcm", "1.dcm", "2.dcm"]
    first = rows["n_bytes"][0]
    assert rows["checksum"].tolist() == [checksum(data[:first]), 0, checksum(data[first:])]


def test_a_finished_shard_is_read_back_as_it_was(task):
    assert read_shard(task) is None
    result = build_shard(task)
    assert read_shard(task) == result


def test_tasks_and_results_travel_to_other_processes(task):
    boxed = dataclasses.replace(task, boxes=np.ones((3, 3)))
    again = pickle.loads(pickle.dumps(boxed))
    assert (again.files, again.spec, again.boxes.tolist()) == (task.files, task.spec, boxed.boxes.tolist())
    assert len(pickle.dumps(build_shard(task))) < 1000


def test_a_shard_without_its_rows_or_cut_short_is_built_again(task):
    result = build_shard(task)
    for path in (task.rows, task.done, task.pixels):
        whole = path.read_bytes()
        path.unlink()
        assert read_shard(task) is None
        path.write_bytes(whole[:-2])
        assert read_shard(task) is None
        path.write_bytes(whole)
        assert read_shard(task) == result
    data = bytearray(task.rows.read_bytes())
    data[len(data) // 2] ^= 1
    task.rows.write_bytes(data)
    assert read_shard(task) is None


def test_what_a_shard_is_made_from_decides_whether_it_is_stale(task):
    build_shard(task)
    assert read_shard(dataclasses.replace(task, state="another state")) is None
    files, boxes = task.files, np.zeros((3, 3))
    states = [
        task.state,
        shard_state(files[:2], task.spec, None),
        shard_state(files, CacheSpec(9), None),
        shard_state(files, CacheSpec(8, "head"), None),
        shard_state(files, CacheSpec(8, "head"), boxes),
        shard_state(files, CacheSpec(8, "head"), boxes + 1),
    ]
    assert len(set(states)) == len(states)


def test_the_same_files_give_the_same_bytes(task):
    one = build_shard(task)
    first = task.pixels.read_bytes(), task.rows.read_bytes(), task.done.read_bytes()
    assert build_shard(task) == one
    assert (task.pixels.read_bytes(), task.rows.read_bytes(), task.done.read_bytes()) == first


def test_each_row_is_cropped_to_its_own_box(tmp_path, write_slice):
    for number in range(2):
        write_slice(tmp_path / "in" / f"{number}.dcm")
    boxes = np.array([[0.0, 0.0, 0.5], [0.25, 0.5, 0.5]])
    for size_px, side in ((4, 4), (None, 8)):
        task = dataclasses.replace(only_task(tmp_path, CacheSpec(size_px, "head")), boxes=boxes)
        seen: list[np.ndarray] = []
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(shards, "pack_slice", lambda hu, seen=seen: seen.append(hu) or b"packed")
            build_shard(task)
        for number, hu in enumerate(seen):
            expected = fit_hu(read_hu(task.source / f"{number}.dcm"), side, box=tuple(boxes[number]))
            assert (hu == expected).all()


@pytest.mark.parametrize("n_boxes", [2, 4])
def test_boxes_of_other_rows_stop_the_shard(task, n_boxes):
    boxed = dataclasses.replace(task, boxes=np.full((n_boxes, 3), 0.5))
    with pytest.raises(DataError, match=rf"from 0\.dcm on no longer hold {n_boxes} slices"):
        build_shard(boxed)
    assert read_shard(boxed) is None


def test_a_file_that_vanished_stops_the_shard(task):
    (task.source / "2.dcm").unlink()
    with pytest.raises(DataError, match=r"2\.dcm was there a moment ago"):
        build_shard(task)
    assert read_shard(task) is None
    assert not list(task.folder.iterdir())


def test_a_folder_that_vanished_is_said_once(task):
    shutil.rmtree(task.source)
    with pytest.raises(DataError, match=r"the folder .*in is gone; bring it back"):
        build_shard(task)


def test_a_folder_that_cannot_be_written_is_a_storage_error(task):
    (task.folder / "file").write_text("in the way")
    with pytest.raises(StorageError, match="cannot write"):
        build_shard(dataclasses.replace(task, folder=task.folder / "file"))


def test_a_shard_with_a_file_that_could_not_be_opened_is_built_again(tmp_path, write_slice):
    write_slice(tmp_path / "in" / "a.dcm")
    (tmp_path / "in" / "b.dcm").symlink_to(Path("nowhere"))
    task = only_task(tmp_path, CacheSpec(None))
    assert build_shard(task).n_unreadable == 1
    assert shard_table(task.folder, 0)["reason"].to_pylist()[1].startswith("unreadable_file")
    assert read_shard(task) is None


def test_leftovers_of_a_killed_build_are_removed(task):
    result = build_shard(task)
    leftover = task.folder / ".00001.hu.b2.123.tmp"
    leftover.write_bytes(b"half")
    remove_leftovers(task.folder)
    assert not leftover.exists()
    assert read_shard(task) == result


def test_rows_hold_no_name_and_no_birth_date(task):
    build_shard(task)
    held = task.rows.read_bytes() + shard_table(task.folder, 0).to_pandas().to_csv().encode()
    assert b"Seeded" not in held
    assert b"19010203" not in held
    assert b"1.2.0" in held


@pytest.mark.parametrize(("number", "kind"), [(errno.ENOSPC, DiskFullError), (errno.EIO, StorageError)])
def test_a_disk_that_fails_leaves_nothing_that_looks_whole(task, monkeypatch, number, kind):
    def fail(descriptor):
        raise OSError(number, os.strerror(number))

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", fail)
        with pytest.raises(StorageError, match=os.strerror(number)) as caught:
            build_shard(task)
    assert type(caught.value) is kind
    assert not list(task.folder.iterdir())
    assert build_shard(task).n_rows == 3
