"""Rows of a foreign table find their slices in the workspace: every slice once, and nothing left over unexplained.

Dimension key: R rows of a foreign table, S slices of the workspace, N slices that are wanted, L labels.
"""

from dataclasses import dataclass, replace

import numpy as np
import pandas as pd

from ichtune.data.label_table import spoilt_labels
from ichtune.ensemble.members.foreign_tables import ForeignTable
from ichtune.errors import ConflictError, DataError
from ichtune.workspace import Workspace

#: Slices that are named in a note.
N_NAMED = 5


@dataclass(frozen=True)
class Placed:
    """The rows that count, and where they belong.

    Attributes:
        kept: the table without rows that are ignored.
        position_R: place of each row among the wanted slices.
        notes: what was ignored.
        what: the slices that are wanted, for messages.
        wanted: their image_ids (N,).
    """

    kept: ForeignTable
    position_R: np.ndarray
    notes: tuple[str, ...]
    what: str
    wanted: np.ndarray

    def check_once(self, fold_R: np.ndarray, n_wanted: int) -> None:
        """Raise unless every wanted slice is there once, or once a fold model.

        Raises:
            ConflictError: a slice that is there twice; its rows are named.
            DataError: slices that are missing; some are named.
        """
        for fold in np.unique(fold_R):
            rows = np.flatnonzero(fold_R == fold)
            times = np.bincount(self.position_R[rows], minlength=n_wanted)
            of = "" if (fold_R == fold).all() else f" of one fold model ({fold})"
            if (times > 1).any():
                twice = rows[self.position_R[rows] == int(times.argmax())]
                raise ConflictError(
                    f"{self.kept.path}: each slice must be there once{of}, got {self.kept.named(twice)}"
                )
            missing = np.flatnonzero(times == 0)
            if len(missing):
                named = ", ".join(map(repr, self.wanted[missing[:N_NAMED]].tolist()))
                raise DataError(
                    f"{self.kept.path} must cover every {self.what}: {len(missing)} of {n_wanted} are missing{of}, "
                    f"such as {named}"
                )

    def in_order(self, n_wanted: int) -> np.ndarray:
        """Return probabilities (N, L) in the order of the wanted slices; see ``check_once`` for what it raises."""
        self.check_once(np.zeros(len(self.position_R)), n_wanted)
        p_NL = np.empty((n_wanted, self.kept.p_RL.shape[1]))
        p_NL[self.position_R] = self.kept.p_RL
        return p_NL


def place_labelled(workspace: Workspace, table: ForeignTable) -> Placed:
    """Find the labelled slice of each row; slices that cannot be used here are ignored with a note.

    Raises:
        DataError: rows of slices that the workspace does not have, or that have no label; they are named.
    """
    slice_R, is_ok_R = _slices_of(workspace, table)
    slices = workspace.slices
    is_labelled_R = slices["is_labelled"].to_numpy(bool)[slice_R]
    spoilt = spoilt_labels(workspace.label_issues) if workspace.layout.label_issues.is_file() else frozenset()
    is_spoilt_R = slices["image_id"].isin(list(spoilt)).to_numpy(bool)[slice_R]
    stray = np.flatnonzero(is_ok_R & ~is_labelled_R & ~is_spoilt_R)
    if len(stray):
        raise DataError(
            f"{table.path}: {len(stray)} rows are of slices without a label, such as {table.named(stray)}; out-of-fold "
            "predictions are of labelled slices, those of other slices go into the file for --test"
        )
    use_R = is_ok_R & is_labelled_R
    return _placed(table, use_R, slice_R, workspace.labelled, "labelled slice")


def place_unlabelled(workspace: Workspace, table: ForeignTable) -> Placed:
    """Find the unlabelled slice of each row; slices that cannot be used here are ignored with a note.

    Raises:
        DataError: rows of slices that the workspace does not have, or that have labels; they are named.
    """
    slice_R, is_ok_R = _slices_of(workspace, table)
    is_labelled_R = workspace.slices["is_labelled"].to_numpy(bool)[slice_R]
    stray = np.flatnonzero(is_ok_R & is_labelled_R)
    if len(stray):
        raise DataError(
            f"{table.path}: {len(stray)} rows are of labelled slices, such as {table.named(stray)}; --test takes "
            "predictions of slices without a label only"
        )
    return _placed(table, is_ok_R, slice_R, workspace.unlabelled, "slice without a label")


def _slices_of(workspace: Workspace, table: ForeignTable) -> tuple[np.ndarray, np.ndarray]:
    """Return the row in the SliceTable of each row, and whether that slice can be used."""
    slices = workspace.slices
    slice_R = pd.Index(slices["image_id"].to_numpy(object)).get_indexer(pd.Index(table.ids))
    left = np.flatnonzero(slice_R < 0)
    if len(left):
        uids = pd.Series(slices["sop_instance_uid"].to_numpy(object))
        uids = uids[(uids != "") & ~uids.duplicated(keep=False)]
        by_uid = pd.Index(uids).get_indexer(pd.Index(table.ids[left]))
        unknown = left[by_uid < 0]
        if len(unknown):
            raise DataError(
                f"{table.path}: {len(unknown)} rows are of slices that this workspace does not have, such as "
                f"{table.named(unknown)}; its slices are called like {slices['image_id'].iloc[0]!r}"
            )
        slice_R[left] = uids.index.to_numpy()[by_uid]
    return slice_R, (slices["status"] == "ok").to_numpy(bool)[slice_R]


def _placed(table: ForeignTable, use_R: np.ndarray, slice_R: np.ndarray, wanted: pd.DataFrame, what: str) -> Placed:
    kept = replace(
        table,
        ids=table.ids[use_R],
        p_RL=table.p_RL[use_R],
        fold_R=None if table.fold_R is None else table.fold_R[use_R],
        row_R=table.row_R[use_R],
    )
    ignored = np.flatnonzero(~use_R)
    note = (
        f"{table.path.name}: {len(ignored)} rows of slices that cannot be used here are ignored: {table.named(ignored)}"
    )
    position_R = pd.Index(wanted.index).get_indexer(pd.Index(slice_R[use_R]))
    return Placed(kept, position_R, (note,) if len(ignored) else (), what, wanted["image_id"].to_numpy(object))
