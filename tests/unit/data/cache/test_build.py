import fcntl
import json
import os
import pickle
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest

from ichtune.data.cache import build as cache_build
from ichtune.data.cache import shard_pool, shards
from ichtune.data.cache.build import CacheBuild, CacheSpec, Progress, build_cache, plan_shards
from ichtune.data.cache.hu_cache import HuCache, verify_cache
from ichtune.data.cache.resize import fit_hu
from ichtune.data.source_files import find_files
from ichtune.errors import ConflictError, DataError, StorageError

N_FILES = 12


@pytest.fixture(autouse=True)
def _small_shards(monkeypatch):
    monkeypatch.setattr(shards, "_MIN_SHARD_FILES", 4)


@pytest.fixture
def source(tmp_path, write_slice) -> Path:
    rng = np.random.default_rng(0)
    for number in range(N_FILES):
        pixels = rng.integers(0, 4096, (16, 16), dtype=np.uint16)
        write_slice(tmp_path / "in" / f"{number:02d}.dcm", pixels, SOPInstanceUID=f"1.2.{number}")
    return tmp_path / "in"


def build(source: Path, out: Path, size_px: int | None = 8, **options) -> CacheBuild:
    return build_cache(find_files(source), out, CacheSpec(size_px), **options)


def content(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_the_same_files_give_the_same_cache(source, tmp_path):
    first, second = build(source, tmp_path / "a"), build(source, tmp_path / "b", n_processes=1)
    assert first.cache_id == second.cache_id
    assert content(first.folder) == content(second.folder)
    assert len([name for name in content(first.folder) if name.endswith(".hu.b2")]) == 3
    verify_cache(first.folder)


def test_an_unchanged_source_is_not_read_again(source, tmp_path, monkeypatch):
    first = build(source, tmp_path / "hu")
    monkeypatch.setattr(shard_pool, "build_shard", lambda task: pytest.fail("a file was read"))
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

    monkeypatch.setattr(shard_pool, "build_shard", stop_at_the_third)
    with pytest.raises(KeyboardInterrupt):
        build(source, tmp_path / "hu")
    assert not list((tmp_path / "hu").glob("*/cache.json"))

    def note_and_build(task):
        built.append(task.number)
        return shards.build_shard(task)

    monkeypatch.setattr(shard_pool, "build_shard", note_and_build)
    seen = []
    resumed = build(source, tmp_path / "hu", on_progress=seen.append)
    assert built == [0, 1, 2]
    assert content(resumed.folder) == content(whole.folder)
    assert (seen[0].n_done, seen[0].n_resumed, seen[-1].n_done) == (8, 8, N_FILES)


def test_a_build_killed_before_its_last_rename_is_finished(source, tmp_path, monkeypatch):
    def killed(building, folder):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(cache_build, "settle", killed)
        with pytest.raises(KeyboardInterrupt):
            build(source, tmp_path / "hu")
    monkeypatch.setattr(shard_pool, "build_shard", lambda task: pytest.fail("a file was read"))
    assert HuCache(build(source, tmp_path / "hu").folder).n_rows == N_FILES


def test_a_damaged_cache_is_replaced(source, tmp_path):
    first = build(source, tmp_path / "hu")
    (first.folder / "00001.hu.b2").unlink()
    again = build(source, tmp_path / "hu")
    assert not again.is_reused
    verify_cache(again.folder)


def test_a_source_that_shrank_while_stopped_leaves_no_stale_shard(source, tmp_path, monkeypatch):
    def killed(building, folder):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(cache_build, "settle", killed)
        with pytest.raises(KeyboardInterrupt):
            build(source, tmp_path / "hu")
    for number in range(5, N_FILES):
        (source / f"{number:02d}.dcm").unlink()
    shrunk = build(source, tmp_path / "hu")
    assert content(shrunk.folder) == content(build(source, tmp_path / "fresh").folder)


def test_a_file_that_could_not_be_opened_is_tried_again_next_time(source, tmp_path, write_slice):
    link = source / "zz.dcm"
    link.symlink_to(tmp_path / "later.dcm")
    first = build(source, tmp_path / "hu")
    assert first.rows["reason"].iloc[-1].startswith("unreadable_file")
    assert build(source, tmp_path / "hu").is_reused, "it still cannot be opened"
    write_slice(tmp_path / "later.dcm")
    later = build(source, tmp_path / "hu")
    assert (later.is_reused, later.rows["reason"].iloc[-1]) == (False, "")


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


def test_rows_id_is_that_of_the_source_whatever_is_cached_of_it(source, tmp_path):
    builds = [build(source, tmp_path / "hu", size_px) for size_px in (8, 16, None)]
    assert len({made.cache_id for made in builds}) == 3
    assert len({made.rows_id for made in builds}) == 1
    assert {HuCache(made.folder).rows_id for made in builds} == {builds[0].rows_id}
    (source / "03.dcm").write_text("no DICOM")
    assert build(source, tmp_path / "hu").rows_id != builds[0].rows_id


def test_a_crop_is_cut_shard_by_shard(source, tmp_path):
    base = build(source, tmp_path / "hu")
    boxes = np.tile([0.0, 0.0, 0.5], (N_FILES, 1))
    boxes[7] = [0.5, 0.5, 0.5]
    spec = CacheSpec(4, "head")
    cropped = build_cache(find_files(source), tmp_path / "hu", spec, boxes=boxes, base=base)
    assert cropped.rows_id == base.rows_id
    assert cropped.cache_id != base.cache_id
    cache, native = HuCache(cropped.folder), HuCache(build(source, tmp_path / "hu", None).folder)
    assert (cache.crop, cache.size_px) == ("head", 4)
    for row in range(N_FILES):
        corner = native.read(row)[8:, 8:] if row == 7 else native.read(row)[:8, :8]
        assert (cache.read(row) == fit_hu(corner, 4)).all()
    again = build_cache(find_files(source), tmp_path / "hu", spec, boxes=boxes, base=base)
    assert (again.is_reused, again.cache_id) == (True, cropped.cache_id)
    other = build_cache(find_files(source), tmp_path / "hu", spec, boxes=boxes / 2, base=base)
    assert (other.is_reused, other.rows_id) == (False, base.rows_id)
    assert other.cache_id != cropped.cache_id


def test_boxes_need_the_base_that_they_were_made_for(source, tmp_path):
    base = build(source, tmp_path / "hu")
    files, spec = find_files(source), CacheSpec(4, "head")
    with pytest.raises(DataError, match="give that cache as base"):
        build_cache(files, tmp_path / "hu", spec, boxes=np.ones((N_FILES, 3)))
    with pytest.raises(DataError, match=r"boxes must be \(12, 3\) for 3 shards, got \(11, 3\)"):
        build_cache(files, tmp_path / "hu", spec, boxes=np.ones((N_FILES - 1, 3)), base=base)


def test_a_source_that_changed_between_base_and_crop_is_noticed(source, tmp_path, write_slice):
    base = build(source, tmp_path / "hu")
    write_slice(source / "03.dcm", SOPInstanceUID="1.2.99")
    with pytest.raises(DataError, match="changed while it was read"):
        build_cache(find_files(source), tmp_path / "hu", CacheSpec(4, "head"), boxes=np.ones((N_FILES, 3)), base=base)


def test_shards_can_be_built_elsewhere_in_any_order(source, tmp_path):
    def elsewhere(tasks):
        for task in pickle.loads(pickle.dumps(list(reversed(tasks)))):
            yield pickle.loads(pickle.dumps(shards.build_shard(task)))

    assert content(build(source, tmp_path / "a", run_shards=elsewhere).folder) == content(
        build(source, tmp_path / "b").folder
    )


def test_a_hook_that_forgets_a_shard_is_an_error(source, tmp_path):
    with pytest.raises(DataError, match="2 of 3 shards"):
        build(source, tmp_path / "hu", run_shards=lambda tasks: map(shards.build_shard, tasks[:-1]))


def test_progress_counts_files_rows_and_refusals(source, tmp_path):
    (source / "03.dcm").write_text("no DICOM")
    seen: list[Progress] = []
    build(source, tmp_path / "hu", on_progress=seen.append)
    assert [(p.n_files, p.n_done, p.n_rows, p.n_refused, p.n_resumed) for p in seen] == [
        (12, 0, 0, 0, 0),
        (12, 4, 4, 1, 0),
        (12, 8, 8, 1, 0),
        (12, 12, 12, 1, 0),
    ]
    assert seen[0].eta_s is None
    assert seen[-1].eta_s == 0.0
    halfway = Progress(n_files=100, n_done=60, n_rows=60, n_refused=0, n_resumed=20, seconds=4.0)
    assert (halfway.files_per_second, halfway.eta_s) == (10.0, 4.0)


def test_a_full_disk_says_what_is_free_and_what_is_needed(source, tmp_path):
    def full_at_the_third(tasks):
        yield from map(shards.build_shard, tasks[:2])
        raise shards.DiskFullError("cannot write 00002.hu.b2: No space left on device")

    with pytest.raises(StorageError, match=r"No space.*B are free, 4 files are left, which need about 0.0 MB"):
        build(source, tmp_path / "hu", run_shards=full_at_the_third)
    seen: list[Progress] = []
    build(source, tmp_path / "hu", on_progress=seen.append)
    assert seen[0].n_resumed == 8


def test_an_interrupted_build_says_how_to_go_on(source, tmp_path, caplog):
    def stopped_at_the_second(tasks):
        yield shards.build_shard(tasks[0])
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        build(source, tmp_path / "hu", run_shards=stopped_at_the_second)
    assert "stopped with 4 of 12 files read; run the same command again" in caplog.text


def test_a_cache_of_the_old_format_is_left_alone_and_built_anew(source, tmp_path):
    old = build(source, tmp_path / "hu").folder
    about = json.loads((old / "cache.json").read_text())
    old = old.rename(tmp_path / "hu" / "0123456789abcdef")
    (old / "cache.json").write_text(json.dumps(about | {"format": 1}))
    (tmp_path / "hu" / "built_from.json").write_text(json.dumps({"caches": {"some key": old.name}}))
    assert not build(source, tmp_path / "hu").is_reused
    assert old.is_dir()


def test_tasks_hold_every_file_once_in_order(source, tmp_path):
    files = find_files(source)
    tasks = plan_shards(files, tmp_path, CacheSpec(8))
    assert [task.number for task in tasks] == [0, 1, 2]
    assert tuple(file for task in tasks for file in task.files) == files.files
    assert len({task.state for task in tasks}) == 3


FULL_DISK = """
import resource, sys
from pathlib import Path
from ichtune.data.cache import shards
from ichtune.data.cache.build import CacheSpec, build_cache
from ichtune.data.source_files import find_files
from ichtune.errors import StorageError

shards._MIN_SHARD_FILES = 4
resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))
try:
    build_cache(find_files(Path(sys.argv[1])), Path(sys.argv[2]), CacheSpec(None), n_processes=1)
except StorageError as error:
    print(error)
"""


@pytest.mark.slow
def test_a_real_write_that_finds_no_room_stops_cleanly_and_goes_on_later(source, tmp_path, write_slice):
    noise = np.random.default_rng(1).integers(0, 4096, (64, 64), dtype=np.uint16)
    for number in range(8, N_FILES):
        write_slice(source / f"{number:02d}.dcm", noise, SOPInstanceUID=f"1.2.{number}")
    command = [sys.executable, "-c", FULL_DISK, str(source), str(tmp_path / "hu")]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert "cannot write" in done.stdout
    assert "00002.hu.b2: File too large" in done.stdout
    assert "4 files are left, which need about" in done.stdout
    (building,) = (tmp_path / "hu").glob(".building-*")
    assert sorted(path.name[:5] for path in building.iterdir()) == ["00000"] * 3 + ["00001"] * 3
    seen: list[Progress] = []
    resumed = build(source, tmp_path / "hu", None, on_progress=seen.append)
    assert seen[0].n_resumed == 8
    assert content(resumed.folder) == content(build(source, tmp_path / "fresh", None).folder)


def test_an_archive_gives_the_rows_and_pixels_that_its_files_give(source, tmp_path):
    with zipfile.ZipFile(tmp_path / "in.zip", "w", zipfile.ZIP_DEFLATED) as made:
        for path in sorted(source.iterdir()):
            made.write(path, path.name)
    plain, packed = build(source, tmp_path / "a"), build(tmp_path / "in.zip", tmp_path / "b")
    assert packed.rows["path"].tolist() == [f"in.zip!/{path}" for path in plain.rows["path"]]
    assert packed.rows.drop(columns="path").equals(plain.rows.drop(columns="path"))
    rows = np.arange(N_FILES)
    assert (HuCache(packed.folder).gather(rows) == HuCache(plain.folder).gather(rows)).all()
    (tmp_path / "in.zip").write_bytes((tmp_path / "in.zip").read_bytes())
    assert build(tmp_path / "in.zip", tmp_path / "b").is_reused, "a copy of an archive is the same archive"


def test_damaged_rows_are_noticed_and_built_anew(source, tmp_path):
    whole = build(source, tmp_path)
    rows = next(whole.folder.glob("*.rows.parquet"))
    sound = rows.read_bytes()
    rows.write_bytes(sound[:-200] + bytes([sound[-200] ^ 1]) + sound[-199:])
    with pytest.raises(DataError, match="damaged"):
        verify_cache(whole.folder)
    again = build(source, tmp_path)
    assert (again.is_reused, again.cache_id) == (False, whole.cache_id)
    assert rows.read_bytes() == sound
