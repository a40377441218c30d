"""Every table schema: unique key, all columns, this version, and a round trip through a file."""

from pathlib import Path

import pandas as pd
import pyarrow.parquet as pq
import pytest

from ichtune.errors import DataError
from ichtune.labels import LABELS
from ichtune.tables import SCHEMA_VERSION, TABLES, TableSchema, conform, read_table, table_about, write_table
from ichtune.version import __version__

SAMPLES = {"string": ["a", "b"], "bool": [True, False]}
pytestmark = pytest.mark.parametrize("schema", TABLES.values(), ids=list(TABLES))


def sample(schema: TableSchema) -> pd.DataFrame:
    return pd.DataFrame({column: SAMPLES.get(dtype, [0, 1]) for column, dtype in schema.columns.items()})


def test_its_key_is_among_its_columns(schema: TableSchema) -> None:
    assert TABLES[schema.name] is schema
    assert schema.key
    assert set(schema.key) <= set(schema.columns)
    assert schema.made_by.startswith("ichtune ")


def test_it_comes_back_from_a_file_with_its_origin(schema: TableSchema, tmp_path: Path) -> None:
    path = tmp_path / f"{schema.name}.parquet"
    written = conform(sample(schema), schema)
    write_table(sample(schema), path, schema, {"cache_id": "abc"})
    pd.testing.assert_frame_equal(read_table(path, schema), written)
    assert written.dtypes.astype(str).to_dict() == dict(schema.columns)
    assert table_about(path) == {
        "schema_version": SCHEMA_VERSION,
        "ichtune_version": __version__,
        "inputs": {"cache_id": "abc"},
    }


def test_an_empty_table_keeps_its_columns(schema: TableSchema, tmp_path: Path) -> None:
    path = tmp_path / "empty.parquet"
    write_table(sample(schema).iloc[:0], path, schema)
    assert read_table(path, schema).dtypes.astype(str).to_dict() == dict(schema.columns)


def test_a_repeated_key_is_refused(schema: TableSchema) -> None:
    with pytest.raises(DataError, match=r"must have one row for each"):
        conform(pd.concat([sample(schema).iloc[:1]] * 2), schema)


def test_every_column_is_asked_for(schema: TableSchema) -> None:
    for column in schema.columns:
        with pytest.raises(DataError, match=rf"lacks the columns \['{column}'\]; run `{schema.made_by}` again"):
            conform(sample(schema).drop(columns=column), schema)


def test_another_version_is_refused(schema: TableSchema, tmp_path: Path) -> None:
    path = tmp_path / "old.parquet"
    write_table(sample(schema), path, schema)
    table = pq.read_table(path)
    about = b'{"schema_version": 0}'
    pq.write_table(table.replace_schema_metadata({**(table.schema.metadata or {}), b"ichtune": about}), path)
    with pytest.raises(DataError, match=rf"schema_version 0, expected {SCHEMA_VERSION}.*`{schema.made_by}` again"):
        read_table(path, schema)


def test_labels_stand_in_their_order_wherever_they_stand(schema: TableSchema) -> None:
    for prefix in ("", "p_"):
        columns = [
            column for column in schema.columns if column.removeprefix(prefix) in LABELS and column.startswith(prefix)
        ]
        assert columns in ([], [f"{prefix}{label}" for label in LABELS])
