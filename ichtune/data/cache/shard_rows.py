"""What the files of one shard told about themselves: columns gathered row by row, one small parquet file a shard."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import xxhash

from ichtune.data.index import ROW_COLUMNS
from ichtune.errors import DataError

#: Columns of a rows file beyond those of the table: where the slice lies in its shard.
PLACE_COLUMNS: dict[str, str] = {"height": "int32", "width": "int32", "n_bytes": "int32", "checksum": "uint64"}
_ARROW_TYPES = {
    "string": pa.string(),
    "float64": pa.float64(),
    "int32": pa.int32(),
    "uint64": pa.uint64(),
    "bool": pa.bool_(),
}
_ALL_COLUMNS = {**ROW_COLUMNS, **PLACE_COLUMNS}


class ShardRows:
    """Rows of one shard while it is built; as columns, which cost a tenth of a dict a row."""

    def __init__(self) -> None:
        self._columns: dict[str, list[Any]] = {column: [] for column in _ALL_COLUMNS}
        self.n_refused = 0
        self.n_unreadable = 0

    def __len__(self) -> int:
        return len(self._columns["path"])

    def add(self, row: Mapping[str, Any], shape: Sequence[int], n_bytes: int, checksum: int) -> None:
        """Add one row, and where its slice lies: (H, W), length and checksum of its buffer; zeros without pixels."""
        columns = self._columns
        for column in ROW_COLUMNS:
            columns[column].append(row[column])
        for column, value in zip(PLACE_COLUMNS, (*shape, n_bytes, checksum), strict=True):
            columns[column].append(value)
        self.n_refused += not n_bytes
        self.n_unreadable += row["reason"].startswith("unreadable_file")

    def table(self) -> pa.Table:
        """Return all rows, columns in their fixed order."""
        arrays = [_array(self._columns[column], dtype) for column, dtype in _ALL_COLUMNS.items()]
        return pa.table(arrays, names=list(_ALL_COLUMNS))


def rows_hash(table: pa.Table) -> str:
    """Return a hash over ``index.ROW_COLUMNS`` of some rows: what the files told, without where the slices lie."""
    digest = xxhash.xxh3_128(str(len(table)).encode())
    for column, dtype in ROW_COLUMNS.items():
        values = table[column].combine_chunks()
        if dtype == "string":
            digest.update(pc.binary_length(values).to_numpy().astype("<i8").data)
            digest.update(pc.binary_join(pa.ListArray.from_arrays([0, len(values)], values), "")[0].as_buffer())
        elif dtype == "float64":
            numbers = values.to_numpy().astype("<f8")
            numbers[np.isnan(numbers)] = np.nan  # there are many NaNs, and one is enough
            digest.update(numbers.data)
        else:
            digest.update(values.to_numpy(zero_copy_only=False).astype("<i8").data)
    return str(digest.hexdigest())


def parquet_bytes(table: pa.Table) -> pa.Buffer:
    """Return the table as the bytes of a parquet file; the same table gives the same bytes."""
    sink = pa.BufferOutputStream()
    pq.write_table(table, sink)
    return sink.getvalue()


def read_rows(path: Path) -> pa.Table:
    """Read what the files of one shard told.

    Raises:
        DataError: no such file, or not such a table.
    """
    try:
        with pq.ParquetFile(path) as file:  # half the memory of read_table, which keeps buffers for its threads
            table = file.read(use_threads=False)
        return table.select(list(_ALL_COLUMNS)).cast(pa.schema(_fields()))
    except (OSError, pa.ArrowException, KeyError, ValueError) as error:
        raise DataError(f"cannot read {path} ({error}); run `ichtune prepare` again") from error


def as_frame(table: pa.Table) -> pd.DataFrame:
    """Return rows as a frame with ``index.ROW_COLUMNS`` and their dtypes; the table is used up."""
    strings = {pa.string(): pd.StringDtype()}
    return table.select(list(ROW_COLUMNS)).to_pandas(types_mapper=strings.get, self_destruct=True, split_blocks=True)


def _fields() -> list[tuple[str, pa.DataType]]:
    return [(column, _ARROW_TYPES[dtype]) for column, dtype in _ALL_COLUMNS.items()]


def _array(values: list[Any], dtype: str) -> pa.Array:
    try:
        return pa.array(values, _ARROW_TYPES[dtype])
    except UnicodeEncodeError:  # a lone surrogate in a damaged header must not stop the shard
        texts = [text.encode("utf-8", "backslashreplace") for text in values]
        return pa.array(texts, pa.binary()).cast(pa.string())
