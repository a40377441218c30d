"""Predictions that were made elsewhere, as CSV or parquet, in the forms that people keep them in.

Wide: a row a slice, with a column for its id and one for each label (``p_any`` or ``any``, ...); our own Predictions
table is of this form. Long: the competition's, a row ``ID_xxx_any`` for each slice and label. Either may have a column
``fold``. Nothing is known of the workspace here.

Dimension key: R rows of a slice (and fold model), L labels.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as pacsv
import pyarrow.parquet as pq

from ichtune.data.cache.hu_cache import file_sha256
from ichtune.errors import ConflictError, DataError, StorageError
from ichtune.labels import LABELS, N_LABELS
from ichtune.tables import table_about

PARQUET = (".parquet", ".pq")
#: Spellings of a column, letter case and underscores apart, the preferred ones first.
ID_NAMES = ("imageid", "id", "sopinstanceuid", "image")
PROBABILITY_NAMES = ("probability", "label", "prob", "prediction", "predicted", "p", "target")
FOLD, RECIPE = "fold", "recipeid"


@dataclass(frozen=True)
class ForeignTable:
    """A table as it was given, a row a slice, or a row a slice and fold model.

    Attributes:
        path: the file.
        sha256: of its bytes.
        ids: what each row calls its slice (R,), text.
        p_RL: probabilities, float64.
        fold_R: what each row calls its fold, text; None without such a column.
        row_R: the first row of the file that each came from, from 1, the header not counted.
        plan_hash: the fold plan that an ichtune wrote into the file; empty for any other file.
    """

    path: Path
    sha256: str
    ids: np.ndarray
    p_RL: np.ndarray
    fold_R: np.ndarray | None
    row_R: np.ndarray
    plan_hash: str = ""

    def named(self, rows: Sequence[int] | np.ndarray, n_most: int = 5) -> str:
        """Return some rows for a message: ``row 17 'ID_a', row 20 'ID_b', ...``."""
        shown = [f"row {self.row_R[r]} {str(self.ids[r])!r}" for r in rows[:n_most]]
        return ", ".join(shown) + (", ..." if len(rows) > n_most else "")


def read_foreign(path: Path) -> ForeignTable:
    """Read a table of predictions.

    Raises:
        DataError: no such file, no known form, a label without its column or value, or a value that is no probability;
            names the row.
        ConflictError: a slice whose label is given twice.
        StorageError: the file may not be read.
    """
    table = read_columns(path)
    columns = {_plain(name): name for name in reversed(table.column_names)}
    recipes = pc.unique(table[columns[RECIPE]]).to_pylist() if RECIPE in columns else []
    if len(recipes) > 1:
        raise DataError(
            f"{path} holds predictions of {len(recipes)} recipes ({recipes[0]!r}, {recipes[1]!r}, ...); add one member "
            "at a time, each from a file of its own"
        )
    ids = names_of(table, _id_column(columns, path), path)
    fold = folds_of(table[columns[FOLD]]) if FOLD in columns else None
    by_label = _label_columns(columns, path)
    if by_label:
        p_RL = np.stack([_probabilities(table[name], name, ids, path) for name in by_label], axis=1)
        rows = (ids, p_RL, fold, np.arange(1, len(ids) + 1))
    else:
        rows = _from_long(ids, _probability_column(columns, path), table, fold, path)
    is_ours = path.suffix.lower() in PARQUET
    plan_hash = str(table_about(path).get("inputs", {}).get("fold_plan_hash") or "") if is_ours else ""
    return ForeignTable(path, file_sha256(path), *rows, plan_hash)


def read_columns(path: Path) -> pa.Table:
    """Read a CSV, every value as text, or a parquet file as it is.

    Raises:
        DataError: no such file, no such table, or no row.
        StorageError: the file may not be read.
    """
    if not path.is_file():
        raise DataError(f"{path} is no file; expected predictions or folds as CSV or parquet")
    try:
        table = pq.read_table(path, partitioning=None) if path.suffix.lower() in PARQUET else _read_csv(path)
    except PermissionError as error:
        raise StorageError(f"cannot read {path}: {error.strerror or error}") from error
    except (OSError, UnicodeDecodeError, pa.ArrowException) as error:
        kind = "parquet" if path.suffix.lower() in PARQUET else "CSV"
        raise DataError(f"cannot read {path} as {kind}: {str(error)[:200]}") from error
    names = [_plain(name) for name in table.column_names]
    repeated = sorted({name for name in table.column_names if names.count(_plain(name)) > 1})
    if repeated:
        raise DataError(f"{path} has several columns {', '.join(map(repr, repeated))}; each must be there once")
    if not table.num_rows:
        raise DataError(f"{path} holds a header and no rows")
    return table


def _read_csv(path: Path) -> pa.Table:
    with path.open("rb") as file:
        header = file.readline().decode("utf-8-sig").strip()
    names = [name.strip().strip('"').strip() for name in header.split(",")]
    texts = pacsv.ConvertOptions(column_types={name: pa.string() for name in names}, strings_can_be_null=False)
    return pacsv.read_csv(path, pacsv.ReadOptions(column_names=names, skip_rows=1), convert_options=texts)


def _plain(name: str) -> str:
    """Return a column's name without what spellings differ in."""
    return "".join(name.lower().split()).replace("_", "").replace("-", "")


def folds_of(column: pa.ChunkedArray) -> np.ndarray:
    """Return values as text without blanks around; whole numbers as such, however they are kept (``1``, ``1.0``)."""
    values = pd.Series(column.to_pandas())
    numbers = pd.to_numeric(values, errors="coerce")
    texts = values.astype(str).str.strip().to_numpy(object)
    is_whole = (np.isfinite(numbers) & (numbers == np.floor(numbers))).to_numpy(bool)
    texts[is_whole] = numbers[is_whole].astype("int64").astype(str).to_numpy(object)
    return texts


def names_of(table: pa.Table, name: str, path: Path) -> np.ndarray:
    """Return a column of names as text without blanks around.

    Raises:
        DataError: an empty one; names the row.
    """
    texts = pc.utf8_trim_whitespace(table[name].cast(pa.string())).to_numpy(zero_copy_only=False)
    empty = np.flatnonzero(pd.isna(texts) | (texts == ""))
    if len(empty):
        raise DataError(f"{path}, row {empty[0] + 1}: {name} is empty; every row must have one")
    return texts


def _id_column(columns: dict[str, str], path: Path) -> str:
    for name in ID_NAMES:
        if name in columns:
            return columns[name]
    raise DataError(
        f"{path} names no slices: expected a column image_id, ID or SOPInstanceUID, got {', '.join(columns.values())}"
    )


def _label_columns(columns: dict[str, str], path: Path) -> list[str]:
    """The columns of a wide table in the order of the labels; none where no label has a column."""
    found = {prefix: [columns.get(f"{prefix}{label}") for label in LABELS] for prefix in ("p", "")}
    prefix = "p" if any(found["p"]) else ""
    missing = [label for label, name in zip(LABELS, found[prefix], strict=True) if name is None]
    if len(missing) == N_LABELS:
        return []
    if missing:
        raise DataError(
            f"{path} lacks the columns {', '.join(f'p_{label}' if prefix else label for label in missing)}; a member "
            f"predicts all of {', '.join(LABELS)}"
        )
    return [name for name in found[prefix] if name is not None]


def _probability_column(columns: dict[str, str], path: Path) -> str:
    for name in PROBABILITY_NAMES:
        if name in columns:
            return columns[name]
    raise DataError(
        f"{path} holds no predictions in a known form: expected image_id and {', '.join(f'p_{n}' for n in LABELS)}, "
        f"or the competition's ID,Label with rows ID_xxx_any, ...; got {', '.join(columns.values())}"
    )


def _probabilities(column: pa.ChunkedArray, name: str, ids: np.ndarray, path: Path) -> np.ndarray:
    texts = column.to_pandas()
    values = np.array(pd.to_numeric(texts, errors="coerce"), dtype=np.float64)
    bad = np.flatnonzero(~((values >= 0.0) & (values <= 1.0)))
    if len(bad):
        row = bad[0]
        raise DataError(
            f"{path}, row {row + 1}, {str(ids[row])!r}: {name} must be a probability in [0, 1], got "
            f"{str(texts.iloc[row])[:40]!r} ({len(bad)} such rows); log odds must be turned into probabilities first"
        )
    return values


_Rows = tuple[np.ndarray, np.ndarray, np.ndarray | None, np.ndarray]


def _from_long(ids: np.ndarray, probability: str, table: pa.Table, fold: np.ndarray | None, path: Path) -> _Rows:
    """Gather the rows ``ID_xxx_label`` of each slice, or of each slice and fold."""
    p = _probabilities(table[probability], probability, ids, path)
    parts = pd.Series(ids, dtype=object).str.rsplit("_", n=1, expand=True)
    label = pd.Index(LABELS).get_indexer(pd.Index(parts[1])) if parts.shape[1] == 2 else np.full(len(ids), -1)
    bad = np.flatnonzero(label < 0)
    if len(bad):
        raise DataError(
            f"{path}, row {bad[0] + 1}: an ID of the competition's form ends in one of {', '.join(LABELS)}, got "
            f"{str(ids[bad[0]])!r}"
        )
    key = parts[0] if fold is None else parts[0] + "\0" + fold
    slice_of, keys = pd.factorize(key)
    times_RL = np.bincount(slice_of * N_LABELS + label, minlength=len(keys) * N_LABELS).reshape(-1, N_LABELS)
    _, first = np.unique(slice_of, return_index=True)
    if (times_RL > 1).any():
        r, column = np.argwhere(times_RL > 1)[0]
        row = np.flatnonzero((slice_of == r) & (label == column))
        raise ConflictError(
            f"{path}: each label of a slice must be there once, got {str(ids[row[0]])!r} in rows {row[0] + 1} and "
            f"{row[1] + 1}"
        )
    if (times_RL == 0).any():
        r, column = np.argwhere(times_RL == 0)[0]
        raise DataError(
            f"{path}: {str(parts[0][first[r]])!r} (row {first[r] + 1}) has no row for {LABELS[column]!r} "
            f"({int((times_RL == 0).any(axis=1).sum())} slices lack a label)"
        )
    p_RL = np.empty(times_RL.shape)
    p_RL[slice_of, label] = p
    return parts[0].to_numpy(object)[first], p_RL, None if fold is None else fold[first], first + 1
