import json
import pickle
from pathlib import Path

import numpy as np
import pytest

from ichtune.data import hu_cache
from ichtune.data.cache_build import build_cache
from ichtune.data.dicom import read_hu
from ichtune.data.hu_cache import HuCache, verify_cache
from ichtune.data.source_files import find_files
from ichtune.errors import DataError


@pytest.fixture
def source(tmp_path, write_slice) -> Path:
    """Five files: 0, 1, 3 and 4 are slices of two shapes, 2 is refused."""
    for number in range(5):
        pixels = np.random.default_rng(number).integers(0, 4096, (8, 6 if number < 4 else 8), dtype=np.uint16)
        write_slice(tmp_path / "in" / f"{number}.dcm", pixels)
    (tmp_path / "in" / "2.dcm").write_text("no DICOM")
    return tmp_path / "in"


@pytest.fixture
def folder(tmp_path, source) -> Path:
    return build_cache(find_files(source), tmp_path / "hu", None).folder


def test_row_i_is_file_i_at_its_own_size(source, folder):
    cache = HuCache(folder)
    assert (cache.n_rows, cache.size_px, cache.cache_id) == (5, None, folder.name)
    assert [cache.shape(row) for row in range(5)] == [(8, 6), (8, 6), None, (8, 6), (8, 8)]
    for row in (0, 1, 3, 4):
        assert (cache.read(row) == read_hu(source / f"{row}.dcm")).all()


def test_gather_stacks_rows_in_the_order_asked_for(source, folder):
    batch = HuCache(folder).gather(np.array([3, 0, 3]))
    assert (batch.shape, batch.dtype) == ((3, 8, 6), np.int16)
    for place, row in enumerate((3, 0, 3)):
        assert (batch[place] == read_hu(source / f"{row}.dcm")).all()
    assert len(HuCache(folder).gather(np.array([], int))) == 0


def test_what_is_read_may_be_changed_without_changing_the_cache(folder):
    cache = HuCache(folder)
    cache.read(0)[:] = 7
    cache.gather(np.array([0]))[:] = 7
    assert not (cache.read(0) == 7).all()


def test_different_shapes_in_a_batch_name_the_remedy(folder):
    with pytest.raises(DataError, match=r"8 x 6, 8 x 8.*--size"):
        HuCache(folder).gather(np.array([0, 4]))


@pytest.mark.parametrize(("row", "message"), [(2, "has no pixels"), (5, "rows 0 to 4"), (-1, "rows 0 to 4")])
def test_rows_without_pixels_are_errors(folder, row, message):
    cache = HuCache(folder)
    with pytest.raises(DataError, match=message):
        cache.read(row)
    with pytest.raises(DataError, match=message):
        cache.gather(np.array([row]))


def test_a_cache_travels_to_another_process_by_its_path(folder):
    cache = HuCache(folder)
    cache.read(0)
    data = pickle.dumps(cache)
    assert len(data) < 1000
    assert (pickle.loads(data).read(0) == cache.read(0)).all()


def test_few_shards_are_open_at_once(folder, monkeypatch):
    monkeypatch.setattr(hu_cache, "MAX_OPEN_SHARDS", 0)
    cache = HuCache(folder)
    assert (cache.read(0) == HuCache(folder).read(0)).all()
    assert not cache._shards


def test_an_absent_or_unfinished_cache_is_refused(tmp_path, folder):
    with pytest.raises(DataError, match="ichtune prepare"):
        HuCache(tmp_path / "nowhere")
    (folder / "cache.json").unlink()
    with pytest.raises(DataError, match=r"cache\.json is missing"):
        HuCache(folder)


def test_damage_is_noticed(folder):
    verify_cache(folder)
    shard = folder / "00000.hu16"
    whole = shard.read_bytes()
    shard.write_bytes(whole[:-2] + b"\0\1")
    HuCache(folder)  # opening reads no pixels
    with pytest.raises(DataError, match="damaged"):
        verify_cache(folder)
    shard.write_bytes(whole[:-2])
    with pytest.raises(DataError, match="expected"):
        HuCache(folder)
    shard.unlink()
    with pytest.raises(DataError, match="is missing"):
        HuCache(folder)


def test_a_changed_index_or_format_is_refused(folder):
    index = folder / "index.npy"
    whole = index.read_bytes()
    index.write_bytes(whole[:-1] + b"\7")
    with pytest.raises(DataError, match="damaged"):
        HuCache(folder)
    index.write_bytes(whole)
    about = json.loads((folder / "cache.json").read_text())
    (folder / "cache.json").write_text(json.dumps(about | {"format": 99}))
    with pytest.raises(DataError, match="format 99"):
        HuCache(folder)
