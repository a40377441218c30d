from typing import Any

import numpy as np
import pandas as pd
import pytest

from ichtune.data.cache.shard_rows import ShardRows, as_frame, parquet_bytes, read_rows, rows_hash
from ichtune.data.index import ROW_COLUMNS
from ichtune.errors import DataError

EMPTY: dict[str, Any] = {"string": "", "float64": float("nan"), "int32": 0, "bool": False}


def row(**values: Any) -> dict[str, Any]:
    return {column: EMPTY[dtype] for column, dtype in ROW_COLUMNS.items()} | values


def rows_of(*rows: dict[str, Any]) -> ShardRows:
    gathered = ShardRows()
    for values in rows:
        gathered.add(values, (2, 3), 9, 2**64 - 1)
    return gathered


def test_rows_come_back_from_disk_as_they_were(tmp_path):
    gathered = rows_of(row(path="a", tilt_deg=1.5, is_blank=True), row(path="sch\u00e4del", rows_px=512))
    path = tmp_path / "rows.parquet"
    path.write_bytes(parquet_bytes(gathered.table()))
    table = read_rows(path)
    assert parquet_bytes(table).to_pybytes() == path.read_bytes()
    assert table["checksum"].to_pylist() == [2**64 - 1] * 2
    frame = as_frame(table)
    assert {column: str(dtype) for column, dtype in frame.dtypes.items()} == ROW_COLUMNS
    assert frame["path"].tolist() == ["a", "sch\u00e4del"]
    assert frame["rows_px"].tolist() == [0, 512]
    assert (frame["reason"] == "").tolist() == [True, True]
    assert pd.isna(frame["tilt_deg"]).tolist() == [False, True]


def test_refused_and_unreadable_rows_are_counted():
    gathered = ShardRows()
    gathered.add(row(), (2, 2), 5, 1)
    gathered.add(row(reason="not_dicom: no"), (0, 0), 0, 0)
    gathered.add(row(reason="unreadable_file: no"), (0, 0), 0, 0)
    assert (len(gathered), gathered.n_refused, gathered.n_unreadable) == (3, 2, 1)


def test_text_that_no_encoding_knows_is_escaped():
    table = rows_of(row(encoding="a\udcff"), row(encoding="\u00e4")).table()
    assert table["encoding"].to_pylist() == ["a\\udcff", "\u00e4"]


def test_the_hash_is_over_every_value_of_every_row_and_nothing_else():
    tables = [
        rows_of().table(),
        rows_of(row(), row()).table(),
        rows_of(row(path="a"), row()).table(),
        rows_of(row(), row(path="a")).table(),
        rows_of(row(path="a", reason="b"), row()).table(),
        rows_of(row(path="a", reason="bc"), row()).table(),
        rows_of(row(path="ab", reason="c"), row()).table(),
        rows_of(row(tilt_deg=0.0), row()).table(),
        rows_of(row(rows_px=1), row()).table(),
        rows_of(row(is_blank=True), row()).table(),
    ]
    assert len({rows_hash(table) for table in tables}) == len(tables)
    elsewhere = ShardRows()
    elsewhere.add(row(path="a"), (7, 7), 1, 1)
    assert rows_hash(elsewhere.table()) == rows_hash(rows_of(row(path="a")).table())


def test_one_nan_is_like_another():
    other = np.frombuffer(np.array([0x7FF8000000000123], "<u8").data, "<f8")[0]
    assert rows_hash(rows_of(row(tilt_deg=other)).table()) == rows_hash(rows_of(row()).table())


def test_a_hash_does_not_depend_on_how_the_rows_were_read(tmp_path):
    table = rows_of(row(path="a"), row(path="b")).table()
    path = tmp_path / "rows.parquet"
    path.write_bytes(parquet_bytes(table))
    assert rows_hash(read_rows(path)) == rows_hash(table)
    assert rows_hash(table.slice(1)) == rows_hash(rows_of(row(path="b")).table())


def test_a_file_that_is_no_such_table_is_an_error(tmp_path):
    path = tmp_path / "rows.parquet"
    with pytest.raises(DataError, match="ichtune prepare"):
        read_rows(path)
    path.write_bytes(b"PAR1 not at all")
    with pytest.raises(DataError, match="ichtune prepare"):
        read_rows(path)
    pd.DataFrame({"path": ["a"]}).to_parquet(path)
    with pytest.raises(DataError, match="ichtune prepare"):
        read_rows(path)
