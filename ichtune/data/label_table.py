"""Reading label CSV files, and giving each slice its labels without dropping a contradiction in silence."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as pacsv

from ichtune.data.index import shared_names
from ichtune.errors import DataError, nearest
from ichtune.labels import ANY, LABELS, N_LABELS, SUBTYPES
from ichtune.tables import LABEL_ISSUES, conform

#: What can be wrong with a label row, and what is done about it.
LABEL_ISSUE_KINDS: dict[str, str] = {
    "duplicate_agrees": "listed more than once with the same values; used once",
    "duplicate_disagrees": "listed more than once with different values; the slice counts as unlabelled",
    "incomplete_labels": "not all six labels are given; the slice counts as unlabelled",
    "ambiguous_image_id": "several different slices go by that name; each of them counts as unlabelled",
    "any_conflict": "any differs from the maximum of the five subtypes; kept as given",
    "known_bad": "known to be damaged in the competition's files; used if its file can be read",
    "no_file": "no file of that name; not used",
    "refused_file": "its file was refused; not used",
}
#: Images of the competition whose files are damaged. They are listed, never dropped: the reader decides.
#: Source: the competition's forum and entrants' code; ID_6431af929 has truncated pixel data.
KNOWN_BAD = frozenset(
    f"ID_{digits}" for digits in ("e20bf3f8a", "8da38f2e4", "6431af929", "470e639ae", "0e21abf7a", "d91d52bdc")
)
#: Issues for which a slice that has labels counts as unlabelled.
_SPOILT = ("duplicate_disagrees", "incomplete_labels", "ambiguous_image_id")
_COMPETITION_COLUMNS = ("ID", "Label")
_IMAGE_ID = "image_id"
_WIDE_COLUMNS = (_IMAGE_ID, *LABELS)
_KNOWN_COLUMNS = {name.lower(): name for name in (*_COMPETITION_COLUMNS, *_WIDE_COLUMNS)}
#: pyarrow quotes the row that it cannot read, which may hold a name.
_QUOTED_ROW, _ROW_LEFT_OUT = re.compile(r"(columns, got \d+):.*", re.DOTALL), r"\1"
_ANY, _FIRST_SUBTYPE = LABELS.index(ANY), LABELS.index(SUBTYPES[0])


@dataclass(frozen=True)
class LabelTable:
    """Labels as given, one row an image, and what was wrong with them.

    Attributes:
        labels: columns image_id and the six labels, float32; NaN throughout where an image counts as
            unlabelled.
        issues: columns of ``tables.LABEL_ISSUES``.
    """

    labels: pd.DataFrame
    issues: pd.DataFrame


def read_labels(path: Path) -> LabelTable:
    """Read a label CSV.

    Two forms are known: the competition's (``ID,Label`` with a row ``ID_xxx_subtype`` for each label) and a
    wide one (``image_id`` and a column for each label). Values are 0 or 1; columns in capitals are known too.

    Raises:
        DataError: no such file, neither form, no row, a malformed ID, or a value that is neither 0 nor 1; with its
            line.
    """
    table = _read_csv(path)
    if not len(table):
        raise DataError(f"{path} holds a header and no labels; leave --labels out where there are none")
    if set(_COMPETITION_COLUMNS) <= set(table.column_names):
        return _collapse(*_competition_rows(table, path))
    _check_wide(table, path)
    return _collapse(*_wide_rows(table, path))


def attach_labels(slices: pd.DataFrame, labels: LabelTable, source: Path) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Give every usable slice its labels; duplicates and refused files get none.

    Args:
        slices: a SliceTable.
        labels: what ``read_labels`` returned.
        source: the CSV, named when nothing fits.

    Returns:
        The SliceTable with labels and is_labelled, and the issues, those of the CSV and those of the match. Labels
        for a name that several different slices go by are given to none of them, unless each has a row of its own.

    Raises:
        DataError: not one label row names a file.
    """
    given = labels.labels.set_index(_IMAGE_ID)
    status = slices.drop_duplicates(_IMAGE_ID).set_index(_IMAGE_ID)["status"].reindex(given.index)
    if len(given) and status.isna().all():
        raise DataError(
            f"no label row of {source} names a file: the labels are for images such as {given.index[0]!r}, "
            f"the files hold {slices[_IMAGE_ID].iloc[0]!r}; give the labels that belong to this folder"
        )
    table = slices.copy()
    values = given.reindex(table[_IMAGE_ID]).to_numpy(np.float32, copy=True)
    is_ambiguous = _is_ambiguous(table, given.index)
    values[is_ambiguous | (table["status"] != "ok").to_numpy(bool)] = np.nan
    table[list(LABELS)] = values
    table["is_labelled"] = ~np.isnan(values).any(axis=1)
    issues = [
        labels.issues,
        _issues(given.index[status.isna()], "no_file"),
        _issues(given.index[status.eq("refused").fillna(False)], "refused_file"),
        _issues(table.loc[is_ambiguous, _IMAGE_ID].tolist(), "ambiguous_image_id"),
    ]
    return table, conform(pd.concat(issues, ignore_index=True), LABEL_ISSUES)


def _is_ambiguous(slices: pd.DataFrame, given: pd.Index) -> np.ndarray:
    """Bool (n,): slices whose name is shared and labelled, while not every one of those that share it is."""
    shared = shared_names(slices)
    is_ambiguous = np.zeros(len(slices), dtype=bool)
    at = np.flatnonzero(shared != "")
    if len(at):
        names, own = (pd.Index(of.iloc[at].to_numpy(object)) for of in (shared, slices[_IMAGE_ID]))
        is_given, has_own = (given.get_indexer(values) >= 0 for values in (names, own))
        is_ambiguous[at] = is_given & ~pd.Series(has_own).groupby(names).transform("all").to_numpy(bool)
    return is_ambiguous


def spoilt_labels(issues: pd.DataFrame) -> frozenset[str]:
    """Return the images that were labelled in a way that cannot be used, so that they count as unlabelled.

    Args:
        issues: columns of ``tables.LABEL_ISSUES``.
    """
    return frozenset(issues.loc[issues["issue"].isin(_SPOILT), _IMAGE_ID].tolist())


def no_issues() -> pd.DataFrame:
    """Return an empty table of label issues."""
    return conform(_issues([], "no_file"), LABEL_ISSUES)


def _read_csv(path: Path) -> pa.Table:
    """Every column as text, so that a wrong value can be quoted as it stands."""
    if not path.is_file():
        raise DataError(f"{path} is no file; --labels takes the CSV with the labels")
    try:
        with path.open("rb") as file:
            header = file.readline().decode("utf-8-sig").strip()
        columns = [_column(name) for name in header.split(",")]
        repeated = sorted({name for name in columns if columns.count(name) > 1})
        if repeated:
            raise DataError(f"{path} has several columns {', '.join(map(repr, repeated))}; each must be there once")
        return pacsv.read_csv(
            path,
            read_options=pacsv.ReadOptions(column_names=columns, skip_rows=1),
            convert_options=pacsv.ConvertOptions(
                column_types={name: pa.string() for name in columns}, strings_can_be_null=False
            ),
        )
    except (OSError, UnicodeDecodeError, pa.ArrowException) as error:
        raise DataError(f"cannot read {path} as CSV: {_QUOTED_ROW.sub(_ROW_LEFT_OUT, str(error))[:200]}") from None


def _column(text: str) -> str:
    name = text.strip().strip('"').strip()
    return _KNOWN_COLUMNS.get(name.lower(), name)


def _check_wide(table: pa.Table, path: Path) -> None:
    missing = [name for name in _WIDE_COLUMNS if name not in table.column_names]
    if not missing:
        return
    hint = f" {nearest(missing[0], table.column_names)}" if table.column_names else ""
    raise DataError(
        f"{path} lacks the columns {', '.join(missing)}; expected either {','.join(_COMPETITION_COLUMNS)} as "
        f"in the competition, or {','.join(_WIDE_COLUMNS)}.{hint}"
    )


_LabelRows = tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]


def _competition_rows(table: pa.Table, path: Path) -> _LabelRows:
    """Of each ``ID_xxx_subtype`` row the number of its image, of its label, and its value; and the images."""
    parts = pc.split_pattern(table["ID"].combine_chunks(), "_", max_splits=1, reverse=True)
    is_split = pc.equal(pc.list_value_length(parts), 2).to_numpy(zero_copy_only=False)
    _check_rows(is_split, table["ID"], path, "ID must be an image id, an underscore and a label name")
    named = pc.list_element(parts, 1).dictionary_encode()
    known = np.array([LABELS.index(name) if name in LABELS else -1 for name in named.dictionary.to_pylist()], int)
    labels = known[named.indices.to_numpy()] if len(known) else np.empty(0, int)
    _check_rows(labels >= 0, table["ID"], path, f"ID must end in one of {', '.join(LABELS)}")
    images = pc.list_element(parts, 0).dictionary_encode()
    names = images.dictionary.to_numpy(zero_copy_only=False)
    return images.indices.to_numpy(), labels, _values(table["Label"], path, "Label"), names


def _wide_rows(table: pa.Table, path: Path) -> _LabelRows:
    """The same from a wide table; an empty cell is a label that is not given."""
    image_ids = table[_IMAGE_ID].combine_chunks()
    _check_rows(pc.not_equal(image_ids, "").to_numpy(zero_copy_only=False), table[_IMAGE_ID], path, "no image_id")
    values = np.stack([_values(table[label], path, label, may_be_empty=True) for label in LABELS], axis=1)
    images = image_ids.dictionary_encode()
    names = images.dictionary.to_numpy(zero_copy_only=False)
    labels = np.tile(np.arange(N_LABELS), len(image_ids))
    return np.repeat(images.indices.to_numpy(), N_LABELS), labels, values.ravel(), names


def _values(column: pa.ChunkedArray, path: Path, name: str, may_be_empty: bool = False) -> np.ndarray:
    encoded = column.combine_chunks().dictionary_encode()
    known = [_value(text) for text in encoded.dictionary.to_pylist()]
    values = np.array(known, float)[encoded.indices.to_numpy()] if known else np.empty(0)
    is_empty = pc.equal(pc.utf8_trim_whitespace(column), "").to_numpy() & may_be_empty
    hint = "; a sample submission holds no labels" if "sample" in path.name.lower() else ""
    _check_rows(~np.isnan(values) | is_empty, column, path, f"{name} must be 0 or 1{hint}")
    return values


def _value(text: str) -> float:
    """0 or 1; NaN for anything else."""
    try:
        value = float(text)
    except ValueError:
        return np.nan
    return value if value in (0.0, 1.0) else np.nan


def _check_rows(is_good: np.ndarray, column: pa.ChunkedArray, path: Path, rule: str) -> None:
    if is_good.all():
        return
    row = int(np.argmin(is_good))
    raise DataError(f"{path}, line {_line_of(row, path)}: {rule}, got {column[row].as_py()[:80]!r}")


def _line_of(row: int, path: Path) -> int:
    """Line of a row below the header; blank lines are lines, but no rows."""
    with path.open("rb") as file:
        with_content = (number for number, line in enumerate(file, start=1) if line.strip(b"\r\n"))
        return next(islice(with_content, row + 1, None), row + 2)


def _collapse(images: np.ndarray, labels: np.ndarray, values: np.ndarray, names: np.ndarray) -> LabelTable:
    """One row an image from one row a label: repeats are compared, gaps and contradictions listed."""
    cell = images.astype(np.int64) * N_LABELS + labels
    shape = (len(names), N_LABELS)
    n_given = np.bincount(cell, ~np.isnan(values), minlength=len(names) * N_LABELS).reshape(shape)
    n_positive = np.bincount(cell, np.nan_to_num(values), minlength=len(names) * N_LABELS).reshape(shape)
    with np.errstate(invalid="ignore"):
        share = n_positive / n_given
    is_repeated = (n_given > 1).any(axis=1)
    disagrees = ((share > 0) & (share < 1)).any(axis=1)
    is_incomplete = (n_given == 0).any(axis=1)
    matrix = np.where((disagrees | is_incomplete)[:, None], np.nan, share).astype(np.float32)
    usable = ~np.isnan(matrix).any(axis=1)
    highest = matrix[:, _FIRST_SUBTYPE:].max(axis=1)
    conflicts = usable & (matrix[:, _ANY] != highest)
    agrees = is_repeated & ~disagrees
    issues = [
        _issues(names[agrees], "duplicate_agrees", _repeats_detail(n_given[agrees])),
        _issues(names[disagrees], "duplicate_disagrees", _rows_detail(n_given[disagrees])),
        _issues(names[is_incomplete], "incomplete_labels", _missing_detail(n_given[is_incomplete])),
        _issues(
            names[conflicts],
            "any_conflict",
            [f"any={a:g}, subtypes say {1 - a:g}" for a in matrix[conflicts, _ANY]],
        ),
        _issues([name for name in names if name in KNOWN_BAD], "known_bad"),
    ]
    columns = {label: matrix[:, column] for column, label in enumerate(LABELS)}
    frame = pd.DataFrame({_IMAGE_ID: pd.Series(names, dtype="string"), **columns})
    return LabelTable(frame, conform(pd.concat(issues, ignore_index=True), LABEL_ISSUES))


def _rows_detail(n_given: np.ndarray) -> list[str]:
    return [f"{int(counts.max())} rows a label" for counts in n_given]


def _repeats_detail(n_given: np.ndarray) -> list[str]:
    n_extra = np.maximum(n_given - 1, 0).sum(axis=1)
    return [f"{int(n)} rows repeat the same values; used once" for n in n_extra]


def _missing_detail(n_given: np.ndarray) -> list[str]:
    return ["missing " + ", ".join(np.array(LABELS)[counts == 0]) for counts in n_given]


def _issues(
    image_ids: Sequence[str] | np.ndarray | pd.Index, issue: str, details: list[str] | None = None
) -> pd.DataFrame:
    ids = list(image_ids)
    return pd.DataFrame(
        {
            _IMAGE_ID: ids,
            "issue": [issue] * len(ids),
            "detail": details or [LABEL_ISSUE_KINDS[issue]] * len(ids),
        },
        dtype="string",
    )
