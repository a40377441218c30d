"""Reading one member's Predictions: checked, joined to the workspace's slices by image_id, and lean.

Dimension key: N labelled slices, T unlabelled slices, F fold models, L labels.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from ichtune.ensemble.blenders.equal_mean_logit import mean_of_logits
from ichtune.errors import ConflictError, DataError
from ichtune.labels import LABELS, N_LABELS
from ichtune.tables import P_COLUMNS, PREDICTIONS, SCHEMA_VERSION, read_table, table_about

#: The fold of test predictions that are one table for all fold models, their mean taken elsewhere.
NO_FOLD_MODEL = -1
_COLUMNS = ("recipe_id", "fold", "image_id", *P_COLUMNS)


@dataclass(frozen=True)
class MemberTable:
    """Rows as they are in the file: image_ids (arrow strings), fold (n,), probabilities float64 (n, L)."""

    image_ids: pa.Array
    fold: np.ndarray
    p: np.ndarray


class SliceOrder:
    """Slices in the workspace's order; finds rows by image_id, at once where a table has the last one's order.

    Args:
        image_ids: the slices.
    """

    def __init__(self, image_ids: np.ndarray) -> None:
        self.image_ids = pd.Index(image_ids)
        self._last: tuple[pa.Array, np.ndarray] | None = None

    def __len__(self) -> int:
        return len(self.image_ids)

    def positions(self, image_ids: pa.Array, what: str) -> np.ndarray:
        """Return the place of each row, every slice being named exactly once.

        Args:
            image_ids: of the rows.
            what: the rows, for messages.

        Raises:
            DataError: a slice that does not belong there, or one that is missing.
            ConflictError: a slice that is named twice.
        """
        if self._last is not None and self._last[0].equals(image_ids):
            return self._last[1]
        ids = image_ids.to_numpy(zero_copy_only=False)
        position = self.image_ids.get_indexer(pd.Index(ids))
        unknown = np.flatnonzero(position < 0)
        if len(unknown):
            raise DataError(
                f"{what} hold {len(unknown)} slices that do not belong there, the first is {ids[unknown[0]]!r}; "
                "was `ichtune prepare` run again? Then run `ichtune train` again"
            )
        self._check_once(position, what)
        self._last = (image_ids, position)
        return position

    def _check_once(self, position: np.ndarray, what: str) -> None:
        times = np.bincount(position, minlength=len(self))
        if (times > 1).any():
            raise ConflictError(
                f"{what} must hold each slice once, got {self.image_ids[int(times.argmax())]!r} {times.max()} times"
            )
        if (times == 0).any():
            missing = np.flatnonzero(times == 0)
            raise DataError(
                f"{what} must cover every slice, {len(missing)} of {len(self)} are missing, the first is "
                f"{self.image_ids[missing[0]]!r}; run `ichtune train` again"
            )


def read_member(path: Path, recipe_id: str, plan_hash: str) -> MemberTable:
    """Read and check one member's table, whatever slices it holds.

    Raises:
        DataError: no such table, or values that are no probabilities.
        ConflictError: of another fold plan or recipe.
    """
    table = _read(path)
    got = table_about(path).get("inputs", {}).get("fold_plan_hash")
    if got != plan_hash:
        raise ConflictError(
            f"{path} comes from fold plan {got!r}, but the workspace's plan is {plan_hash!r}: members of "
            "different plans cannot be blended, since one's training patients are another's held-out ones; "
            "run `ichtune train` again, or leave this run out under `members`"
        )
    counts = table["recipe_id"].value_counts().to_pylist()
    others = [(count["values"], count["counts"]) for count in counts if count["values"] != recipe_id]
    if others:
        raise ConflictError(
            f"{path} must hold recipe_id {recipe_id!r} only, got {others[0][0]!r} in "
            f"{sum(n for _, n in others)} rows; run `ichtune train` again"
        )
    image_ids = table["image_id"].combine_chunks()
    p = np.empty((table.num_rows, N_LABELS))
    for label, column in enumerate(P_COLUMNS):
        p[:, label] = table[column].to_numpy()
    _check_probabilities(p, image_ids, path, recipe_id)
    return MemberTable(image_ids, table["fold"].to_numpy(), p)


def out_of_fold(member: MemberTable, recipe_id: str, slices: SliceOrder, fold_N: np.ndarray) -> np.ndarray:
    """Return probabilities (N, L) in the order of ``slices``, each once, by the model of its own fold.

    Raises:
        DataError, ConflictError: see ``SliceOrder.positions``; or a row that a model predicted which saw its patient.
    """
    position = slices.positions(member.image_ids, f"out-of-fold predictions of {recipe_id}")
    leaked = np.flatnonzero(member.fold != fold_N[position])
    if len(leaked):
        row = leaked[0]
        raise ConflictError(
            f"leaked rows: member {recipe_id} predicts {len(leaked)} slices with a model that saw their "
            f"patient, the first is {member.image_ids[row].as_py()!r}: predicted by the model of fold "
            f"{member.fold[row]}, its patient lies in fold {fold_N[position[row]]}; run `ichtune train` again"
        )
    p_NL = np.empty((len(slices), N_LABELS))
    p_NL[position] = member.p
    return p_NL


def mean_of_fold_models(member: MemberTable, recipe_id: str, slices: SliceOrder, folds: np.ndarray) -> np.ndarray:
    """Return the mean over fold models in log odds, (T, L); a table of no single fold's model is taken as it is.

    Raises:
        DataError, ConflictError: see ``SliceOrder.positions``; or fold models that are not those of ``folds``.
    """
    found = np.unique(member.fold)
    is_one = found.tolist() == [NO_FOLD_MODEL]
    if not is_one and found.tolist() != folds.tolist():
        raise DataError(
            f"test predictions of {recipe_id} must come from the models of folds {folds.tolist()}, got "
            f"{found.tolist()}; run `ichtune train` again"
        )
    p_FTL = np.empty((len(found), len(slices), N_LABELS))
    for f, fold in enumerate(found):
        rows = np.flatnonzero(member.fold == fold)
        what = f"test predictions of {recipe_id}" + ("" if is_one else f", fold model {fold}")
        p_FTL[f, slices.positions(member.image_ids.take(pa.array(rows)), what)] = member.p[rows]
    return p_FTL[0] if is_one else mean_of_logits(p_FTL)


def _read(path: Path) -> pa.Table:
    """The columns of a Predictions table; whatever is unusual goes the long way, which says what is wrong."""
    try:
        if table_about(path).get("schema_version") == SCHEMA_VERSION:
            table = pq.read_table(path, columns=list(_COLUMNS), partitioning=None)
            if _is_plain(table):
                return table
    except (OSError, pa.ArrowException):
        pass
    frame = read_table(path, PREDICTIONS)
    return pa.Table.from_pandas(frame, preserve_index=False)


def _is_plain(table: pa.Table) -> bool:
    texts = all(pa.types.is_string(t) or pa.types.is_large_string(t) for t in _types(table, "recipe_id", "image_id"))
    numbers = all(pa.types.is_float64(t) for t in _types(table, *P_COLUMNS))
    whole = pa.types.is_int32(table.schema.field("fold").type)
    return texts and numbers and whole and all(column.null_count == 0 for column in table.columns)


def _types(table: pa.Table, *names: str) -> list[pa.DataType]:
    return [table.schema.field(name).type for name in names]


def _check_probabilities(p: np.ndarray, image_ids: pa.Array, path: Path, recipe_id: str) -> None:
    bad = ~((p >= 0.0) & (p <= 1.0))
    if bad.any():
        row, label = np.argwhere(bad)[0]
        raise DataError(
            f"{path}: predictions must be probabilities in [0, 1], got {p[row, label]} for member "
            f"{recipe_id}, slice {image_ids[int(row)].as_py()!r}, label {LABELS[label]!r} ({int(bad.sum())} such)"
        )
