"""Splits to audit: the workspace's own fold plan, or a table that somebody hands over."""

from collections.abc import Collection
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from ichtune.data.audit.leaks import NO_FOLD, Split
from ichtune.data.folds import FoldPlan
from ichtune.data.series_geometry import whole_series
from ichtune.errors import ConflictError, DataError, nearest

#: Columns that say which slices a row is for, the finest first; one of them is enough.
KEY_COLUMNS = ("image_id", "series_instance_uid", "dicom_study_uid", "patient_id")
FOLD, SPLIT = "fold", "split"
TRAIN, TEST = "train", "test"


def plan_split(slices: pd.DataFrame, plan: FoldPlan | None, spoilt: Collection[str] = ()) -> Split:
    """Return the workspace's own split: labelled slices train, unlabelled ones are the test set.

    Args:
        slices: a SliceTable.
        plan: its fold plan; None where there is none.
        spoilt: ``label_table.spoilt_labels``: slices that are neither, since they were labelled and cannot be used.

    Raises:
        DataError: the plan does not know a patient.
    """
    is_ok = (slices["status"] == "ok").to_numpy(bool)
    is_labelled = slices["is_labelled"].to_numpy(bool)
    fold = np.full(len(slices), NO_FOLD, dtype=np.int64)
    if plan is not None:
        fold[is_ok] = plan.folds_for(slices.loc[is_ok, "patient_id"])
    names = tuple(f"fold {number}" for number in range(plan.k)) if plan else ()
    is_test = is_ok & _is_test_set(slices, spoilt)
    return Split("the workspace's fold plan", fold, is_ok & is_labelled, is_test, names)


def _is_test_set(slices: pd.DataFrame, spoilt: Collection[str]) -> np.ndarray:
    """Slices without a label, wherever they lie: a submission predicts every one of them."""
    return ~slices["is_labelled"].to_numpy(bool) & ~slices["image_id"].isin(list(spoilt)).to_numpy(bool)


def read_split(path: Path, slices: pd.DataFrame, spoilt: Collection[str] = ()) -> Split:
    """Read a split of the workspace's slices.

    The table names slices by ``image_id``, ``series_instance_uid``, ``dicom_study_uid`` or ``patient_id`` (the finest
    that is there), and says where they lie by a column ``fold``, a column ``split`` (``train`` or ``test``), or both.
    Every labelled usable slice must be listed. Slices without a label are the test set, as they are for the workspace,
    unless a ``split`` column says otherwise.

    Args:
        path: CSV or parquet.
        slices: the SliceTable.
        spoilt: as for ``plan_split``.

    Raises:
        DataError: no such file, columns missing, an id that the workspace does not know, a labelled slice that is not
            listed, or a value that is no fold or side.
        ConflictError: an id that is listed with two folds or two sides.
    """
    table = _read(path)
    key = _key_column(table, path)
    has_fold, has_split = FOLD in table, SPLIT in table
    if not (has_fold or has_split):
        raise DataError(
            f"{path} has no column {FOLD!r} and no column {SPLIT!r}; got {', '.join(map(str, table.columns))}"
        )
    columns = [name for name in (FOLD, SPLIT) if name in table]
    table = table[[key, *columns]].drop_duplicates()
    _check_once(table, key, path)
    own = _own_keys(slices, key)
    _check_known(table[key], own, path, key)
    listed = table.set_index(key).reindex(own.to_numpy(object))
    is_listed = _is_among(own, table[key])
    is_ok = (slices["status"] == "ok").to_numpy(bool)
    is_labelled = slices["is_labelled"].to_numpy(bool)
    _check_all_there(is_ok & is_labelled & ~is_listed, own, path, key)
    is_test_set = _is_test_set(slices, spoilt)
    is_test = is_ok & is_test_set
    if has_split:
        _check_sides(table[SPLIT], path)
        is_test = is_ok & np.where(is_listed, (listed[SPLIT] == TEST).to_numpy(bool), is_test_set)
    elif table.loc[table[FOLD] != "", FOLD].nunique() < 2:
        raise DataError(f"{path} puts everything into one fold, so there is nothing to compare; expected two or more")
    is_train = is_ok & ~is_test & (is_labelled | is_listed)
    fold, names = np.full(len(slices), NO_FOLD, dtype=np.int64), tuple[str, ...]()
    if has_fold:
        fold, names = _fold_codes(listed[FOLD], is_ok & is_listed, is_train, path, own)
    return Split(path.name, fold, is_train, is_test, names, int((is_listed & ~is_ok).sum()))


def _read(path: Path) -> pd.DataFrame:
    """Every value as text, so that 0, "0" and 0.0 are what they are written as."""
    if not path.is_file():
        raise DataError(f"{path} is no file; --split takes a CSV or parquet with a column {FOLD!r}")
    try:
        if path.suffix == ".parquet":
            table = pq.read_table(path, partitioning=None).to_pandas()
        else:
            table = pd.read_csv(path, dtype=str, keep_default_na=False, encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError, ValueError, pa.ArrowException) as error:
        raise DataError(f"cannot read {path} as CSV or parquet: {str(error)[:200]}") from error
    table.columns = [str(name).strip() for name in table.columns]
    for name in set(table.columns) & {*KEY_COLUMNS, FOLD, SPLIT}:
        is_missing = table[name].isna()
        table[name] = table[name].astype(str).str.strip().mask(is_missing, "")
    return table


def _key_column(table: pd.DataFrame, path: Path) -> str:
    for name in KEY_COLUMNS:
        if name in table:
            if (table[name] == "").any():
                row = int(np.argmax((table[name] == "").to_numpy()))
                raise DataError(f"{path}, row {row + 1}: no {name}; every row must name its slices")
            return name
    raise DataError(
        f"{path} has none of the columns {', '.join(KEY_COLUMNS)}; got {', '.join(map(str, table.columns))}. "
        f"{nearest(str(table.columns[0]) if len(table.columns) else '', KEY_COLUMNS)}"
    )


def _own_keys(slices: pd.DataFrame, key: str) -> pd.Series:
    """The same key of every row of the workspace; a stack goes by the series that the files named."""
    return whole_series(slices[key]) if key == "series_instance_uid" else slices[key]


def _check_once(table: pd.DataFrame, key: str, path: Path) -> None:
    repeated = table[key].duplicated(keep=False)
    if repeated.any():
        first = table.loc[repeated, key].iloc[0]
        values = table.loc[table[key] == first].drop(columns=key).to_dict("records")
        raise ConflictError(
            f"{path} lists {table.loc[repeated, key].nunique()} of {key} in several places, the first {first!r}: "
            f"{values[:3]}; each must have one fold and one side"
        )


def _is_among(values: pd.Series, known: pd.Series) -> np.ndarray:
    """Bool (n,); by an index, since ``isin`` of strings takes ten seconds for a million."""
    return np.asarray(pd.Index(known.unique()).get_indexer(pd.Index(values.to_numpy(object))) >= 0)


def _check_known(keys: pd.Series, own: pd.Series, path: Path, key: str) -> None:
    unknown = keys[~_is_among(keys, own)]
    if len(unknown):
        raise DataError(
            f"{path} names {len(unknown)} of {key} that the workspace does not hold, the first {unknown.iloc[0]!r}; "
            f"the workspace's are such as {own.iloc[0]!r}"
        )


def _check_sides(sides: pd.Series, path: Path) -> None:
    wrong = sides[~sides.isin((TRAIN, TEST))]
    if len(wrong):
        raise DataError(f"{path}: {SPLIT} must be {TRAIN!r} or {TEST!r}, got {wrong.iloc[0]!r}")


def _check_all_there(is_missing: np.ndarray, own: pd.Series, path: Path, key: str) -> None:
    if is_missing.any():
        first = own.iloc[int(np.argmax(is_missing))]
        raise DataError(
            f"{path} lacks {int(is_missing.sum())} labelled slices of the workspace, the first with {key} {first!r}; "
            "a split must say where every one of them lies"
        )


def _fold_codes(
    listed: pd.Series, is_listed: np.ndarray, is_train: np.ndarray, path: Path, own: pd.Series
) -> tuple[np.ndarray, tuple[str, ...]]:
    """Fold of every row by number, and the names; a test slice may have none."""
    text = listed.fillna("").astype(str).to_numpy(object)
    is_empty = text == ""
    if (is_train & is_empty).any():
        first = own.iloc[int(np.argmax(is_train & is_empty))]
        raise DataError(f"{path} gives no fold for {first!r}; every slice to train on must have one")
    codes = np.full(len(text), NO_FOLD, dtype=np.int64)
    chosen = is_listed & ~is_empty
    names = sorted(set(text[chosen].tolist()), key=lambda name: (len(name), name))
    codes[chosen] = pd.Categorical(text[chosen], categories=names).codes
    return codes, tuple(f"fold {name}" for name in names)
