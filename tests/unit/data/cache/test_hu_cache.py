import errno
import json
import multiprocessing
import pickle
from pathlib import Path

import imagecodecs
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays

from ichtune.data.cache import hu_cache
from ichtune.data.cache.build import CacheSpec, build_cache
from ichtune.data.cache.hu_cache import HuCache, checksum, file_checksum, index_of, pack_slice, verify_cache
from ichtune.data.dicom.reader import read_hu
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
    return build_cache(find_files(source), tmp_path / "hu", CacheSpec(None)).folder


def test_row_i_is_file_i_at_its_own_size(source, folder):
    cache = HuCache(folder)
    assert (cache.n_rows, cache.size_px, cache.crop, cache.cache_id) == (5, None, "none", folder.name)
    assert len(cache.rows_id) == 16
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


def test_shards_are_let_go_when_no_descriptor_is_left(folder, monkeypatch):
    cache = HuCache(folder)
    expected = cache.read(0)
    cache._shards[7] = cache._shards.pop(0)  # some other shard is open
    real = hu_cache._mapped

    def map_if_nothing_is_open(path):
        if cache._shards:
            raise OSError(errno.EMFILE, "Too many open files")
        return real(path)

    monkeypatch.setattr(hu_cache, "_mapped", map_if_nothing_is_open)
    assert (cache.read(0) == expected).all()
    assert list(cache._shards) == [0]


@pytest.mark.filterwarnings("ignore:.*fork")
def test_a_forked_process_reads_what_its_parent_opened(folder):
    cache = HuCache(folder)
    expected = cache.read(0)
    context = multiprocessing.get_context("fork")
    queue = context.SimpleQueue()
    child = context.Process(target=lambda: queue.put(cache.gather(np.array([0, 1])).tobytes()))
    child.start()
    data = queue.get()
    child.join()
    assert data == expected.tobytes() + cache.read(1).tobytes()


@given(arrays(np.int16, array_shapes(min_dims=2, max_dims=2, min_side=1, max_side=40)))
@settings(max_examples=50)
def test_every_value_of_int16_comes_back(hu):
    out = np.empty(hu.size, "<i2")
    imagecodecs.blosc2_decode(pack_slice(hu), numthreads=1, out=out.view(np.uint8))
    assert (out.reshape(hu.shape) == hu).all()


@given(st.lists(st.integers(0, 3), min_size=1, max_size=6), st.integers(0, 2**32 - 1))
@settings(max_examples=20)
def test_a_cache_gives_back_what_was_put_in(tmp_path_factory, kinds, seed):
    rng = np.random.default_rng(seed)
    slices = [rng.integers(-32768, 32768, (9, 9), dtype=np.int16) // 10**kind if kind else None for kind in kinds]
    write_cache(folder := tmp_path_factory.mktemp("cache") / "c", slices)
    cache = HuCache(folder)
    for row, hu in enumerate(slices):
        assert cache.shape(row) == (None if hu is None else (9, 9))
        assert hu is None or (cache.read(row) == hu).all()
    held = np.array([row for row, hu in enumerate(slices) if hu is not None], int)
    assert [hu.tobytes() for hu in cache.gather(held)] == [slices[row].tobytes() for row in held]


def write_cache(folder: Path, slices: list[np.ndarray | None]) -> None:
    folder.mkdir()
    packed = [b"" if hu is None else pack_slice(hu) for hu in slices]
    shard, index = folder / "00000.hu.b2", folder / "index.npy"
    shard.write_bytes(b"".join(packed))
    np.save(index, index_of(packed, [(0, 0) if hu is None else hu.shape for hu in slices]))
    about = {"cache_id": "c", "format": hu_cache.CACHE_FORMAT, "size_px": 9, "crop": "none", "rows_id": "r"}
    about |= {"n_rows": len(slices), "index_sha256": hu_cache.file_sha256(index)}
    about["shards"] = [{"name": shard.name, "n_bytes": shard.stat().st_size, "checksum": file_checksum(shard)}]
    (folder / "cache.json").write_text(json.dumps(about))


def test_an_absent_or_unfinished_cache_is_refused(tmp_path, folder):
    with pytest.raises(DataError, match="ichtune prepare"):
        HuCache(tmp_path / "nowhere")
    (folder / "cache.json").unlink()
    with pytest.raises(DataError, match=r"cache\.json is missing"):
        HuCache(folder)


def test_damage_is_noticed(folder):
    verify_cache(folder)
    shard = folder / "00000.hu.b2"
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


def test_no_damaged_byte_reaches_a_batch(folder):
    shard = folder / "00000.hu.b2"
    whole = shard.read_bytes()
    first = HuCache(folder)._index["n_bytes"][0]
    for place in range(first):
        shard.write_bytes(whole[:place] + bytes([whole[place] ^ 0x55]) + whole[place + 1 :])
        cache = HuCache(folder)
        with pytest.raises(DataError, match=r"00000\.hu\.b2 is damaged at row 0.*ichtune prepare"):
            cache.gather(np.array([1, 0]))
        assert cache.read(1).any()


def test_a_buffer_that_is_no_slice_is_an_error_though_its_checksum_is_right(folder):
    shard, index = folder / "00000.hu.b2", folder / "index.npy"
    held = np.load(index)
    shard.write_bytes(bytes(shard.stat().st_size))
    held["checksum"][0] = checksum(bytes(held["n_bytes"][0]))
    np.save(index, held)
    about = json.loads((folder / "cache.json").read_text()) | {"index_sha256": hu_cache.file_sha256(index)}
    (folder / "cache.json").write_text(json.dumps(about))
    with pytest.raises(DataError, match="is damaged at row 0"):
        HuCache(folder).read(0)


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


def test_a_cache_of_raw_int16_is_refused_by_name(folder):
    about = json.loads((folder / "cache.json").read_text())
    (folder / "cache.json").write_text(json.dumps(about | {"format": 1}))
    with pytest.raises(DataError, match="format 1, expected 2: another version of ichtune wrote it"):
        HuCache(folder)
