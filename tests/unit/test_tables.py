"""Tables: keys, columns, versions, and files that are whole or not there."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from ichtune import tables
from ichtune.errors import DataError, StorageError
from ichtune.tables import (
    FOLDS,
    PREDICTIONS,
    check_writable,
    conform,
    read_table,
    table_about,
    whole_file,
    write_json,
    write_table,
)
from ichtune.version import __version__


def folds(**changes: Any) -> pd.DataFrame:
    return pd.DataFrame({"patient_id": ["P1", "P2", "P3"], "fold": [0, 1, 0]} | changes)


def names_in(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_a_table_comes_back_as_it_was_written(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "folds.parquet"
    write_table(folds(note="left out"), path, FOLDS, {"plan_hash": "abc"})
    table = read_table(path, FOLDS)
    assert table["fold"].tolist() == [0, 1, 0]
    assert table.dtypes.astype(str).to_dict() == dict(FOLDS.columns)
    assert table_about(path) == {"schema_version": 2, "ichtune_version": __version__, "inputs": {"plan_hash": "abc"}}
    assert names_in(path.parent) == ["folds.parquet"]


def test_a_folder_named_like_a_column_adds_none(tmp_path: Path) -> None:
    path = tmp_path / "fold=9" / "folds.parquet"
    write_table(folds(), path, FOLDS)
    assert read_table(path, FOLDS)["fold"].tolist() == [0, 1, 0]


def test_one_row_a_key() -> None:
    repeated = pd.concat([folds(), folds().tail(1)])
    with pytest.raises(DataError, match=r"one row for each patient_id, got 1 repeated rows.*'P3'"):
        conform(repeated, FOLDS)


def test_every_row_has_a_key() -> None:
    with pytest.raises(DataError, match=r"rows without patient_id"):
        conform(folds(patient_id=["P1", None, "P3"]), FOLDS)


def test_the_key_of_predictions_is_recipe_fold_and_slice() -> None:
    row = {"recipe_id": "r", "fold": 0, "image_id": "ID_1"} | dict.fromkeys(tables.P_COLUMNS, 0.5)
    other_fold = conform(pd.DataFrame([row, row | {"fold": 1}]), PREDICTIONS)
    assert len(other_fold) == 2
    with pytest.raises(DataError, match=r"one row for each recipe_id"):
        conform(pd.DataFrame([row, row]), PREDICTIONS)


def test_a_missing_column_is_named_with_the_command_that_makes_the_table() -> None:
    with pytest.raises(DataError, match=r"lacks the columns \['fold'\]; run `ichtune prepare` again"):
        conform(folds().drop(columns="fold"), FOLDS)


@pytest.mark.parametrize("values", [["a", "b", "c"], [0.0, np.nan, 1.0], [0.0, 1.5, 1.0], [0, 2**40, 1]])
def test_values_that_do_not_fit_are_refused_not_bent(values: list[Any]) -> None:
    with pytest.raises(DataError, match=r"wrong type|do not fit"):
        conform(folds(fold=values), FOLDS)


def test_reading_says_which_command_makes_a_missing_table(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"does not exist yet: run `ichtune prepare` first"):
        read_table(tmp_path / "folds.parquet", FOLDS)


def test_what_is_no_parquet_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "folds.parquet"
    path.write_bytes(b"patient_id,fold\n")
    with pytest.raises(DataError, match=r"no readable parquet"):
        read_table(path, FOLDS)


@pytest.mark.parametrize("about", [None, {"schema_version": 1}, {"schema_version": 99}, [1]])
def test_another_version_is_refused(tmp_path: Path, about: Any) -> None:
    path = tmp_path / "folds.parquet"
    table = pa.Table.from_pandas(conform(folds(), FOLDS))
    if about is not None:
        table = table.replace_schema_metadata({b"ichtune": json.dumps(about).encode()})
    pq.write_table(table, path)
    with pytest.raises(DataError, match=r"expected 2: it was written by another version"):
        read_table(path, FOLDS)


def test_a_table_that_cannot_be_written_leaves_the_old_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "folds.parquet"
    write_table(folds(), path, FOLDS)
    before = path.read_bytes()

    def full_disk(table: pa.Table, where: Path) -> None:
        Path(where).write_bytes(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(tables.pq, "write_table", full_disk)
    with pytest.raises(StorageError, match=r"cannot write .*folds.parquet: No space left on device"):
        write_table(folds(fold=[1, 1, 1]), path, FOLDS)
    assert path.read_bytes() == before
    assert names_in(tmp_path) == ["folds.parquet"]


def test_a_table_that_is_refused_leaves_the_old_one(tmp_path: Path) -> None:
    path = tmp_path / "folds.parquet"
    write_table(folds(), path, FOLDS)
    before = path.read_bytes()
    with pytest.raises(DataError):
        write_table(folds(patient_id="P1"), path, FOLDS)
    assert path.read_bytes() == before
    assert names_in(tmp_path) == ["folds.parquet"]


def test_a_file_is_replaced_at_once_so_that_a_reader_never_sees_half(tmp_path: Path) -> None:
    path, held_open = tmp_path / "folds.parquet", tmp_path / "held_open"
    write_table(folds(), path, FOLDS)
    held_open.hardlink_to(path)
    write_table(folds(fold=[1, 1, 1]), path, FOLDS)
    assert read_table(held_open, FOLDS)["fold"].tolist() == [0, 1, 0]
    assert read_table(path, FOLDS)["fold"].tolist() == [1, 1, 1]


@pytest.mark.parametrize("stop", [KeyboardInterrupt, ValueError])
def test_a_file_that_is_left_half_written_is_removed(tmp_path: Path, stop: type[BaseException]) -> None:
    path = tmp_path / "file"
    path.write_text("old")

    def write() -> None:
        with whole_file(path) as temporary:
            temporary.write_text("ne")
            raise stop

    with pytest.raises(stop):
        write()
    assert path.read_text() == "old"
    assert names_in(tmp_path) == ["file"]


def test_a_folder_that_cannot_be_made_is_a_storage_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(StorageError, match=r"cannot write"):
        write_json({}, tmp_path / "file" / "about.json")


def test_a_path_that_can_be_written_is_as_it_was_after_the_check(tmp_path: Path) -> None:
    path = tmp_path / "file.csv"
    path.write_text("old")
    path.chmod(0o640)
    before = path.stat()
    check_writable(path)
    check_writable(tmp_path / "deep" / "er" / "file.csv")
    after = path.stat()
    assert path.read_text() == "old"
    assert [before.st_ino, before.st_mtime_ns, before.st_mode] == [after.st_ino, after.st_mtime_ns, after.st_mode]
    assert names_in(tmp_path) == ["file.csv"]


def test_a_check_leaves_a_folder_that_was_there(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    check_writable(tmp_path / "empty" / "new" / "file.csv")
    assert names_in(tmp_path) == ["empty"]
    assert names_in(tmp_path / "empty") == []


@pytest.mark.parametrize(
    "name", ["file/out.csv", "file/deep/out.csv", "folder", "new/" + "x" * 300, "x" * 300 + "/out"]
)
def test_a_path_that_cannot_be_written_is_known_before_the_work(tmp_path: Path, name: str) -> None:
    (tmp_path / "file").write_text("in the way")
    (tmp_path / "folder").mkdir()
    with pytest.raises(StorageError, match=rf"cannot write {tmp_path / name}: "):
        check_writable(tmp_path / name)
    assert names_in(tmp_path) == ["file", "folder"]


def test_a_folder_without_permission_is_known_before_the_work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(path: Path, *_: Any, **__: Any) -> None:
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(Path, "touch", refuse)
    with pytest.raises(StorageError, match=r"file.csv: Permission denied; name another place"):
        check_writable(tmp_path / "new" / "file.csv")
    assert names_in(tmp_path) == []


def test_json_is_sorted_versioned_and_ends_with_a_line_end(tmp_path: Path) -> None:
    path = tmp_path / "about.json"
    write_json({"b": 1, "a": [1.5]}, path)
    assert json.loads(path.read_text()) == {"a": [1.5], "b": 1, "schema_version": 2, "ichtune_version": __version__}
    assert path.read_text().endswith("}\n")
    assert path.read_text().index('"a"') < path.read_text().index('"b"')
    write_json([{"name": "prior"}], path)
    assert json.loads(path.read_text()) == [{"name": "prior"}]


def test_json_holds_no_nan_and_keeps_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "about.json"
    write_json({"loss": 0.5}, path)
    with pytest.raises(ValueError, match=r"not JSON compliant"):
        write_json({"loss": float("nan")}, path)
    assert json.loads(path.read_text())["loss"] == 0.5
    assert names_in(tmp_path) == ["about.json"]
