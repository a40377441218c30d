import errno
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from ichtune.data import shards
from ichtune.data.shards import ShardTask, build_shard, plan_shards, read_shard, remove_leftovers, shard_rows
from ichtune.data.source_files import find_files
from ichtune.errors import DataError, StorageError


@pytest.fixture
def task(tmp_path, write_slice) -> ShardTask:
    """Three files, the second of them refused."""
    for number in range(3):
        write_slice(tmp_path / "in" / f"{number}.dcm", SOPInstanceUID=f"1.2.{number}")
    (tmp_path / "in" / "1.dcm").write_text("no DICOM")
    (tmp_path / "out").mkdir()
    return plan_shards(find_files(tmp_path / "in"), tmp_path / "out", 8)[0]


@pytest.mark.parametrize(("n_files", "expected"), [(1, 64), (2048, 64), (2049, 128), (32768, 1024), (874_035, 1024)])
def test_shards_are_small_in_a_small_set(n_files, expected):
    assert shard_rows(n_files) == expected


def test_a_shard_holds_its_slices_one_after_the_other(task):
    result = build_shard(task)
    assert result.n_bytes == task.pixels.stat().st_size == 2 * 8 * 8 * 2
    assert result.rows["height"].tolist() == [8, 0, 8]
    assert result.rows["path"].tolist() == ["0.dcm", "1.dcm", "2.dcm"]
    assert result.n_refused == 1
    assert np.fromfile(task.pixels, "<i2").min() >= -1024


def test_a_finished_shard_is_read_back_as_it_was(task):
    assert read_shard(task) is None
    result = build_shard(task)
    again = read_shard(task)
    assert again is not None
    assert (again.n_bytes, again.sha256) == (result.n_bytes, result.sha256)
    assert again.rows.to_csv() == result.rows.to_csv()


def test_a_shard_without_its_rows_or_cut_short_is_built_again(task):
    build_shard(task)
    rows = task.rows.read_bytes()
    task.rows.unlink()
    assert read_shard(task) is None
    task.rows.write_bytes(rows)
    assert read_shard(task) is not None
    note = task.done.read_text()
    task.done.unlink()
    assert read_shard(task) is None
    task.done.write_text(note)
    task.pixels.write_bytes(task.pixels.read_bytes()[:-2])
    assert read_shard(task) is None


def test_a_shard_of_files_that_changed_is_stale(task):
    build_shard(task)
    other = ShardTask(task.number, task.source, task.paths, "another state", task.folder, task.size_px)
    assert read_shard(other) is None


def test_the_same_files_give_the_same_bytes(task):
    build_shard(task)
    first = task.pixels.read_bytes(), task.rows.read_bytes()
    build_shard(task)
    assert (task.pixels.read_bytes(), task.rows.read_bytes()) == first


def test_a_file_that_vanished_stops_the_shard(task):
    (task.source / "2.dcm").unlink()
    with pytest.raises(DataError, match=r"2\.dcm was there a moment ago"):
        build_shard(task)
    assert read_shard(task) is None


def test_a_folder_that_cannot_be_written_is_a_storage_error(task):
    missing = ShardTask(0, task.source, task.paths, task.state, task.folder / "gone", None)
    with pytest.raises(StorageError, match="cannot write"):
        build_shard(missing)


def test_leftovers_of_a_killed_build_are_removed(task):
    build_shard(task)
    leftover = task.folder / "00001.hu16.123.tmp"
    leftover.write_bytes(b"half")
    remove_leftovers(task.folder)
    assert not leftover.exists()
    assert read_shard(task) is not None


def test_rows_hold_no_name_and_no_birth_date(task):
    build_shard(task)
    held = task.rows.read_bytes() + pq.read_table(task.rows).to_pandas().to_csv().encode()
    assert b"Seeded" not in held
    assert b"19010203" not in held
    assert b"1.2.0" in held


def test_a_link_to_nothing_is_a_row_and_stops_nothing(tmp_path, write_slice):
    write_slice(tmp_path / "in" / "a.dcm")
    (tmp_path / "in" / "b.dcm").symlink_to(Path("nowhere"))
    (tmp_path / "out").mkdir()
    result = build_shard(plan_shards(find_files(tmp_path / "in"), tmp_path / "out", None)[0])
    assert result.rows["reason"].tolist()[1].startswith("unreadable_file")


def test_a_full_disk_is_a_storage_error_and_leaves_nothing_that_looks_whole(task, monkeypatch):
    def full(descriptor):
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(shards.os, "fsync", full)
        with pytest.raises(StorageError, match="No space left on device"):
            build_shard(task)
    assert not list(task.folder.iterdir())
    assert read_shard(task) is None
