"""Embeddings: found by the slice's id, never by place."""

from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from ichtune.errors import DataError
from ichtune.tables import table_about
from ichtune.training.embeddings import as_kept, read_embeddings, write_embeddings


def test_what_is_written_is_found_by_id_in_any_order(tmp_path: Path) -> None:
    e_MND = np.random.default_rng(0).normal(size=(2, 5, 7)).astype(np.float32)
    path = tmp_path / "e.parquet"
    write_embeddings(path, list("abcde"), e_MND, {"fold": 1})
    got = read_embeddings(path, ["d", "a", "d"])
    assert got.dtype == np.float16
    np.testing.assert_array_equal(got, e_MND[:, [3, 0, 3]].astype(np.float16))
    assert pq.read_table(path).column_names == ["image_id", "network", "embedding"]
    assert table_about(path)["inputs"] == {"fold": 1}


def test_a_slice_that_is_not_there_is_named(tmp_path: Path) -> None:
    path = tmp_path / "e.parquet"
    with pytest.raises(DataError, match=r"run `ichtune train --embeddings`"):
        read_embeddings(path, ["a"])
    write_embeddings(path, ["a"], np.zeros((1, 1, 3), np.float32), {})
    with pytest.raises(DataError, match=r"no embedding of 2 slices, the first 'b'"):
        read_embeddings(path, ["a", "b", "c"])


def test_no_slices_make_an_empty_table(tmp_path: Path) -> None:
    path = tmp_path / "e.parquet"
    write_embeddings(path, [], np.zeros((1, 0, 3), np.float32), {})
    assert read_embeddings(path, []).shape[:2] == (1, 0)


def test_numbers_too_large_for_half_precision_keep_their_values(tmp_path: Path) -> None:
    e_MND = np.array([[[1e5, -2.0]]], dtype=np.float32)
    write_embeddings(tmp_path / "e.parquet", ["a"], e_MND, {})
    np.testing.assert_array_equal(read_embeddings(tmp_path / "e.parquet", ["a"]), e_MND)


@pytest.mark.parametrize("largest", [3.0, 1e5])
def test_what_is_kept_is_known_without_a_file(tmp_path: Path, largest: float) -> None:
    e_MND = largest * np.random.default_rng(0).random((2, 4, 3)).astype(np.float32)
    write_embeddings(tmp_path / "e.parquet", list("abcd"), e_MND, {})
    np.testing.assert_array_equal(as_kept(e_MND), read_embeddings(tmp_path / "e.parquet", list("abcd")))
