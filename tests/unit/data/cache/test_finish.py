import dataclasses
import json
import os
from pathlib import Path

import numpy as np
import pytest

from ichtune.data.cache.finish import find_built, finish_cache, note_built, settle, source_key
from ichtune.data.cache.hu_cache import HuCache, verify_cache
from ichtune.data.cache.shards import CacheSpec, ShardResult, ShardTask, build_shard, shard_state
from ichtune.data.source_files import SourceFiles, find_files
from ichtune.errors import DataError

SPEC = CacheSpec(8)


@pytest.fixture
def source(tmp_path, write_slice) -> SourceFiles:
    """Five files, the third of them refused."""
    for number in range(5):
        pixels = np.random.default_rng(number).integers(0, 4096, (8, 8), dtype=np.uint16)
        write_slice(tmp_path / "in" / f"{number}.dcm", pixels, SOPInstanceUID=f"1.2.{number}")
    (tmp_path / "in" / "2.dcm").write_text("no DICOM")
    return find_files(tmp_path / "in")


def build(source: SourceFiles, folder: Path) -> list[ShardResult]:
    """Build shards of two files each."""
    folder.mkdir(parents=True)
    parts = [source.files[start : start + 2] for start in (0, 2, 4)]
    tasks = [
        ShardTask(number, source.folder, part, shard_state(part, SPEC, None), folder, SPEC)
        for number, part in enumerate(parts)
    ]
    return [build_shard(task) for task in tasks]


def test_the_index_finds_every_slice_in_its_shard(source, tmp_path):
    building = tmp_path / "hu" / "building"
    results = build(source, building)
    made = finish_cache(building, results, SPEC)
    cache = HuCache(building)
    assert (cache.cache_id, cache.rows_id, cache.n_rows) == (made.cache_id, made.rows_id, 5)
    assert [cache.shape(row) for row in range(5)] == [(8, 8), (8, 8), None, (8, 8), (8, 8)]
    for row in (0, 1, 3, 4):
        pixels = np.random.default_rng(row).integers(0, 4096, (8, 8), dtype=np.uint16)
        assert (cache.read(row) == pixels.astype(np.int16) - 1024).all()
    assert made.rows["path"].tolist() == [f"{number}.dcm" for number in range(5)]
    assert made.rows.index.tolist() == [0, 1, 2, 3, 4]
    assert [shard["n_rows"] for shard in json.loads((building / "cache.json").read_text())["shards"]] == [2, 2, 1]
    verify_cache(building)


def test_shards_of_a_larger_source_are_removed(source, tmp_path):
    building = tmp_path / "building"
    results = build(source, building)
    made = finish_cache(building, results[:2], SPEC)
    assert len(made.rows) == 4
    assert not list(building.glob("00002*"))


def test_the_name_says_what_a_cache_holds_and_not_how_it_is_compressed(source, tmp_path):
    building = tmp_path / "building"
    results = build(source, building)
    made = finish_cache(building, results, SPEC)
    other_bytes = [dataclasses.replace(result, checksum="f" * 32, n_bytes=1) for result in results]
    assert finish_cache(building, other_bytes, SPEC).cache_id == made.cache_id
    for change, same_rows in (({"content_hash": "other"}, True), ({"rows_hash": "other"}, False)):
        changed = [*results[:2], dataclasses.replace(results[2], **change)]
        again = finish_cache(building, changed, SPEC)
        assert again.cache_id != made.cache_id
        assert (again.rows_id == made.rows_id) is same_rows
    for spec in (CacheSpec(9), CacheSpec(None), CacheSpec(8, "head")):
        again = finish_cache(building, results, spec)
        assert again.cache_id != made.cache_id
        assert again.rows_id == made.rows_id


def test_a_cache_that_is_there_stays_and_a_damaged_one_is_replaced(source, tmp_path):
    folder, building = tmp_path / "hu" / "name", tmp_path / "hu" / "building"
    finish_cache(building, build(source, building), SPEC)
    settle(building, folder)
    assert not building.exists()
    assert not list(folder.glob("*.done.json"))
    shard = folder / "00000.hu.b2"
    for is_damaged in (False, True):
        if is_damaged:
            shard.unlink()
        else:
            os.utime(shard, ns=(1, 1))
        finish_cache(building, build(source, building), SPEC)
        settle(building, folder)
        assert (shard.stat().st_mtime_ns == 1) is not is_damaged
        verify_cache(folder)


def test_a_built_cache_is_found_by_its_source(source, tmp_path):
    hu = tmp_path / "hu"
    made = finish_cache(hu / "building", build(source, hu / "building"), SPEC)
    key = source_key(source, SPEC, None)
    assert find_built(hu, key, source) is None
    note_built(hu, key, made.cache_id)
    assert find_built(hu, key, source) is None, "noted, but killed before it got its name"
    settle(hu / "building", hu / made.cache_id)
    found = find_built(hu, key, source)
    assert found is not None
    assert (found.is_reused, found.cache_id, found.rows_id) == (True, made.cache_id, made.rows_id)
    assert found.rows.to_csv() == made.rows.to_csv()
    assert find_built(hu, "another key", source) is None
    (hu / made.cache_id / "00001.rows.parquet").write_bytes(b"damaged")
    assert find_built(hu, key, source) is None


def test_notes_of_several_caches_are_kept(tmp_path):
    note_built(tmp_path, "one", "a")
    note_built(tmp_path, "two", "b")
    assert json.loads((tmp_path / "built_from.json").read_text())["caches"] == {"one": "a", "two": "b"}
    (tmp_path / "built_from.json").write_text("[")
    note_built(tmp_path, "three", "c")
    assert json.loads((tmp_path / "built_from.json").read_text())["caches"] == {"three": "c"}


def test_the_key_changes_with_everything_that_goes_into_a_cache(source):
    boxes = np.zeros((5, 3))
    fewer = SourceFiles(source.folder, source.files[:-1], 0)
    keys = [
        source_key(source, SPEC, None),
        source_key(fewer, SPEC, None),
        source_key(source, CacheSpec(9), None),
        source_key(source, CacheSpec(8, "head"), None),
        source_key(source, CacheSpec(8, "head"), boxes),
        source_key(source, CacheSpec(8, "head"), boxes + 1),
    ]
    assert len(set(keys)) == len(keys)


def test_a_file_mended_without_a_trace_is_noticed(source, tmp_path, monkeypatch):
    hu = tmp_path / "hu"
    with monkeypatch.context() as patch:
        patch.setattr("ichtune.data.cache.shards.read_source", refuse_3)
        made = finish_cache(hu / "building", build(source, hu / "building"), SPEC)
    note_built(hu, "key", made.cache_id)
    settle(hu / "building", hu / made.cache_id)
    with monkeypatch.context() as patch:
        patch.setattr("ichtune.data.cache.finish.read_source", refuse_3)
        assert find_built(hu, "key", source) is not None
    assert find_built(hu, "key", source) is None


def refuse_3(folder, file):
    if file.path == "3.dcm":
        raise DataError("unreadable_file: Permission denied")
    return (folder / file.path).read_bytes()
