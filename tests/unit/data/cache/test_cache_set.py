"""Caches of one workspace: each built once, boxes kept, and the list of them merged without a repeat."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from ichtune.data.cache import cache_set
from ichtune.data.cache.build import CacheBuild, CacheSpec, Progress
from ichtune.data.cache.cache_set import (
    CacheBuilder,
    PrepareProgress,
    base_note,
    earlier_caches,
    merge_caches,
)
from ichtune.data.cache.hu_cache import CACHE_FORMAT, HuCache
from ichtune.data.source_files import find_files
from ichtune.tables import write_json


@pytest.fixture
def builder(tmp_path, write_slice) -> CacheBuilder:
    """Two slices of one series: a disc of tissue in air."""
    row, column = np.mgrid[:64, :64]
    disc = np.where((row - 30) ** 2 + (column - 24) ** 2 < 15**2, 1064, 0).astype(np.uint16)
    for number in range(2):
        write_slice(tmp_path / "in" / f"{number}.dcm", disc, InstanceNumber=number)
    return CacheBuilder(find_files(tmp_path / "in"), tmp_path / "hu")


def slices_of(build: CacheBuild) -> pd.DataFrame:
    return build.rows[["series_instance_uid"]]


def test_whole_slices_then_a_crop_with_the_same_rows(builder):
    base = builder.build(CacheSpec(32))
    boxes = builder.boxes(HuCache(base.folder), slices_of(base), "head")
    assert boxes.shape == (2, 3)
    assert (boxes[0] == boxes[1]).all()
    cropped = builder.build(CacheSpec(32, "head"), boxes, base)
    assert cropped.rows_id == base.rows_id
    assert cropped.cache_id != base.cache_id
    tissue = [(HuCache(build.folder).read(0) > -100).mean() for build in (base, cropped)]
    assert tissue[1] > 2 * tissue[0]
    assert builder.build(CacheSpec(32, "head"), boxes, base).is_reused


def test_boxes_are_found_once_and_again_when_they_cannot_be_read(builder, monkeypatch):
    base = builder.build(CacheSpec(32))
    cache, slices = HuCache(base.folder), slices_of(base)
    boxes = builder.boxes(cache, slices, "tight")
    (path,) = builder.hu_folder.glob("boxes-*.npy")
    calls = []
    find = cache_set.series_boxes
    monkeypatch.setattr(cache_set, "series_boxes", lambda *a: calls.append(1) or find(*a))
    assert builder.boxes(cache, slices, "tight").tolist() == boxes.tolist()
    assert not calls
    for damaged in (b"", b"no array", path.read_bytes()[:-8]):
        path.write_bytes(damaged)
        assert builder.boxes(cache, slices, "tight").tolist() == boxes.tolist()
    assert len(calls) == 3


def test_boxes_of_another_version_are_not_taken(builder, monkeypatch):
    base = builder.build(CacheSpec(32))
    builder.boxes(HuCache(base.folder), slices_of(base), "head")
    monkeypatch.setattr(cache_set, "BOX_VERSION", 99)
    builder.boxes(HuCache(base.folder), slices_of(base), "head")
    assert len(list(builder.hu_folder.glob("boxes-*.npy"))) == 2


def test_progress_counts_the_slices_of_this_run():
    def seen(**counts: int) -> PrepareProgress:
        return cache_set._in_slices("s", Progress(**{"n_refused": 3, "seconds": 1.0, **counts}))

    plain = seen(n_files=100, n_done=40, n_rows=40, n_resumed=0)
    assert plain == PrepareProgress("s", 40, 100, n_refused=3, n_resumed=0)
    resumed = seen(n_files=100, n_done=40, n_rows=40, n_resumed=30)
    assert (resumed.n_done, resumed.n_all, resumed.n_resumed) == (10, 70, 30)
    multi_frame = seen(n_files=10, n_done=2, n_rows=60, n_resumed=0)
    assert (multi_frame.n_done, multi_frame.n_all) == (60, 300)
    begun = seen(n_files=10, n_done=0, n_rows=0, n_resumed=0)
    assert (begun.n_done, begun.n_all) == (0, 10)


def whole_cache(folder: Path, size_px: int, crop: str) -> CacheBuild:
    """A cache that is whole as far as ``read_about`` looks: it holds nothing."""
    (folder / "hu").mkdir(exist_ok=True)
    cache = folder / "hu" / f"{crop}{size_px}"
    cache.mkdir()
    write_json(
        {"cache_id": cache.name, "format": CACHE_FORMAT, "size_px": size_px, "crop": crop, "shards": []},
        cache / "cache.json",
    )
    return CacheBuild(cache, cache.name, pd.DataFrame(), False, "rows")


def test_the_list_keeps_what_is_whole_and_of_the_same_rows(tmp_path):
    builds = [whole_cache(tmp_path, size, crop) for size, crop in ((64, "none"), (64, "head"), (128, "none"))]
    caches = merge_caches([], builds[:2])
    assert caches == [
        {"cache_id": "none64", "size_px": 64, "crop": "none"},
        {"cache_id": "head64", "size_px": 64, "crop": "head"},
    ]
    noted = {"rows_id": "rows", "caches": [*caches, {"cache_id": "gone", "size_px": 32, "crop": "none"}]}
    assert earlier_caches(noted, "rows", tmp_path / "hu") == caches
    assert earlier_caches(noted, "other rows", tmp_path / "hu") == []
    assert earlier_caches({}, "rows", tmp_path / "hu") == []
    both = merge_caches(caches, [builds[2], builds[1]])
    assert [note["cache_id"] for note in both] == ["none64", "head64", "none128"]
    assert base_note(both)["cache_id"] == "none64"


def test_a_new_cache_of_a_size_and_crop_takes_the_place_of_the_old_one(tmp_path):
    old = {"cache_id": "older", "size_px": 64, "crop": "none"}
    kept = {"cache_id": "head64", "size_px": 64, "crop": "head"}
    merged = merge_caches([old, kept], [whole_cache(tmp_path, 64, "none")])
    assert [note["cache_id"] for note in merged] == ["none64", "head64"]
    assert json.dumps(merged)
