"""The competition's CSV: one row ``ID,Label`` for each slice and label, in the sample submission's exact
order.

Dimension key: T predicted slices, W slices of the file, R rows, L labels.
"""

from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as pa_csv

from ichtune.errors import ConflictError, DataError, StorageError, nearest
from ichtune.labels import ANY, LABELS, SUBTYPES
from ichtune.metrics import check_probabilities, prior_predictions
from ichtune.tables import whole_file
from ichtune.workspace import Workspace

COLUMNS = ("ID", "Label")
#: The order of the labels of one slice in the competition's own files.
COMPETITION_ORDER = (*SUBTYPES, ANY)
#: IDs that a message names.
N_NAMED = 3


@dataclass(frozen=True)
class RowIds:
    """The rows of a competition CSV, taken apart.

    Attributes:
        ids: as written, strings (R,).
        image_ids: the distinct slices (W,), in order of first appearance.
        slice_R: the position of each row's slice in ``image_ids``, int64.
        label_R: the position of each row's label in label order, int64.
    """

    ids: pa.Array
    image_ids: np.ndarray
    slice_R: np.ndarray
    label_R: np.ndarray

    def times(self) -> np.ndarray:
        """Return how often each slice and label is there, int64 (W, L)."""
        cells = self.slice_R * len(LABELS) + self.label_R
        return np.bincount(cells, minlength=len(self.image_ids) * len(LABELS)).reshape(-1, len(LABELS))

    def named(self, where_WL: np.ndarray) -> str:
        """Name the first few of the marked slices and labels, as IDs."""
        marked = np.argwhere(where_WL)
        names = [f"{self.image_ids[row]}_{LABELS[column]}" for row, column in marked[:N_NAMED]]
        return ", ".join(names) + (", ..." if len(marked) > N_NAMED else "")

    def check_unique(self, source: str) -> None:
        """Raise ``ConflictError`` if an ID repeats."""
        repeated_WL = self.times() > 1
        if repeated_WL.any():
            raise ConflictError(
                f"{source} must hold each ID once, got {self.named(repeated_WL)} more than once "
                f"({int(repeated_WL.sum())} such IDs)"
            )


@dataclass(frozen=True)
class SubmissionResult:
    """What was written.

    Attributes:
        path: the file.
        n_rows: rows in it.
        n_slices: slices in it.
        filled: slices of the sample without a prediction, and why; they got the training rate of each label.
        n_unused: predicted slices that the sample does not ask for.
    """

    path: Path
    n_rows: int
    n_slices: int
    filled: dict[str, str]
    n_unused: int

    @property
    def n_filled(self) -> int:
        """Slices that got the training rates."""
        return len(self.filled)

    @property
    def filled_by_reason(self) -> dict[str, int]:
        """Filled slices counted by the code of their reason."""
        return dict(Counter(reason.split(":")[0] for reason in self.filled.values()))


def write_submission(
    workspace: Workspace, image_ids: np.ndarray, p_TL: np.ndarray, path: Path | None = None
) -> SubmissionResult:
    """Write and check a submission.

    Args:
        workspace: gives the sample submission, the labels' training rates and the reasons of refused files.
        image_ids: the predicted slices (T,).
        p_TL: their probabilities (T, L) in label order.
        path: the file to write; None writes the workspace's ``submission.csv``.

    Raises:
        DataError: predictions that are no probabilities, or a sample that cannot be read.
        ConflictError: repeated slices, or a sample that asks for none of the predicted ones.
        StorageError: the file cannot be written, or does not read back as it was; one that lay there still does.
    """
    path = path or workspace.layout.submission
    rows = submission_rows(workspace, image_ids)
    p_WL, filled = fill_missing(workspace, rows.image_ids, image_ids, p_TL)
    value_R = p_WL[rows.slice_R, rows.label_R]
    _check_values(rows, value_R)
    _write(rows, value_R, path)
    n_unused = len(image_ids) - (len(rows.image_ids) - len(filled))
    return SubmissionResult(path, len(value_R), len(rows.image_ids), filled, n_unused)


def submission_rows(workspace: Workspace, image_ids: np.ndarray) -> RowIds:
    """Return the rows that a submission must hold, in order.

    They are the sample submission's where the workspace has one; otherwise the predicted slices in
    alphabetical order, each with its labels in the competition's order.

    Raises:
        ConflictError: the sample repeats an ID.
    """
    sample = workspace.layout.sample_submission
    if sample.is_file():
        rows = split_row_ids(read_competition_csv(sample).column("ID"), str(sample))
        rows.check_unique(str(sample))
        return rows
    wanted = np.sort(np.asarray(image_ids, dtype=object))
    slice_R = np.repeat(np.arange(len(wanted)), len(LABELS))
    label_R = np.tile([LABELS.index(label) for label in COMPETITION_ORDER], len(wanted)).astype(np.int64)
    ids = wanted[slice_R] + "_" + np.asarray(LABELS, dtype=object)[label_R]
    return RowIds(pa.array(ids, type=pa.string()), wanted, slice_R, label_R)


def fill_missing(
    workspace: Workspace, wanted: np.ndarray, image_ids: np.ndarray, p_TL: np.ndarray
) -> tuple[np.ndarray, dict[str, str]]:
    """Return probabilities (n_wanted, L) of the wanted slices, and the slices without a prediction with the
    reason.

    A slice without a prediction gets the rate of each label among the labelled slices, never another slice's
    prediction.

    Raises:
        DataError: predictions that are no probabilities.
        ConflictError: a slice is predicted twice, or none of the wanted ones is.
    """
    check_probabilities(p_TL, "predictions to submit")
    predicted = pd.Index(np.asarray(image_ids, dtype=object), dtype=object)
    if predicted.has_duplicates:
        twice = predicted[predicted.duplicated()][0]
        raise ConflictError(f"each slice must be predicted once to be submitted, got {twice!r} more than once")
    position = predicted.get_indexer(pd.Index(wanted, dtype=object))
    missing = position < 0
    if missing.all():
        raise ConflictError(
            f"the sample submission asks for {len(wanted)} slices, none of which is predicted: it starts "
            f"with {list(wanted[:2])}, the predictions with {list(predicted[:2])}; is it for other files?"
        )
    p_WL = p_TL[np.maximum(position, 0)].astype(np.float64)
    if missing.any():
        y_NL = workspace.labelled[list(LABELS)].to_numpy(np.float64)
        p_WL[missing] = prior_predictions(y_NL, int(missing.sum()))
    return p_WL, _reasons(workspace, wanted[missing])


def read_competition_csv(path: Path) -> pa.Table:
    """Read ``ID,Label`` as strings and float64.

    Raises:
        DataError: no such file, no such columns, or a label that is no number.
    """
    if not path.is_file():
        raise DataError(f"{path} does not exist: expected a CSV file with the columns ID,Label")
    options = pa_csv.ConvertOptions(
        column_types={"ID": pa.string(), "Label": pa.float64()}, include_columns=list(COLUMNS)
    )
    try:
        table = pa_csv.read_csv(path, convert_options=options)
    except (OSError, pa.ArrowException) as error:
        raise DataError(
            f"{path} must be a CSV file with the columns ID,Label and a number in each Label: {error}"
        ) from error
    if len(table) == 0:
        raise DataError(f"{path} has no rows below its header ID,Label")
    return table.combine_chunks()


def split_row_ids(ids: pa.Array | pa.ChunkedArray, source: str) -> RowIds:
    """Split each ``ID_xxx_subdural`` into slice and label.

    Args:
        ids: strings (R,).
        source: the file, for messages.

    Raises:
        DataError: an ID that does not end in ``_`` and a label.
    """
    ids = ids.combine_chunks() if isinstance(ids, pa.ChunkedArray) else ids
    parts = pc.split_pattern(ids, "_", max_splits=1, reverse=True)
    parts = pc.if_else(pc.equal(pc.list_value_length(parts), 2), parts, pa.scalar(["", ""]))
    label_R = pc.index_in(pc.list_element(parts, 1), value_set=pa.array(LABELS))
    if label_R.null_count:
        first = str(ids[pc.index(pc.is_null(label_R), True).as_py()].as_py())
        raise DataError(
            f"{source}: a row's ID must be a slice, an underscore and a label, got {first!r} "
            f"({label_R.null_count} such rows). {nearest(first.rpartition('_')[2], LABELS)}"
        )
    encoded = pc.dictionary_encode(pc.list_element(parts, 0))
    image_ids = np.asarray(encoded.dictionary.to_pylist(), dtype=object)
    slice_R = np.asarray(encoded.indices, dtype=np.int64)
    return RowIds(ids, image_ids, slice_R, np.asarray(label_R, dtype=np.int64))


def _reasons(workspace: Workspace, missing: np.ndarray) -> dict[str, str]:
    if len(missing) == 0:
        return {}
    known = workspace.slices.set_index("image_id")[["reason", "is_labelled"]]
    labelled = "labelled_slice: it was trained on, so no model may predict it for a submission"
    reasons = {}
    for image_id, reason, is_labelled in known.reindex(missing).itertuples():
        if pd.isna(is_labelled):
            reasons[str(image_id)] = "no_such_slice: not among the prepared files"
        else:
            reasons[str(image_id)] = str(reason) or (labelled if is_labelled else "not_predicted")
    return reasons


def _check_values(rows: RowIds, value_R: np.ndarray) -> None:
    bad = ~((value_R >= 0.0) & (value_R <= 1.0))
    if bad.any():
        row = int(bad.argmax())
        name = rows.ids[row].as_py()
        raise DataError(f"a submission must hold probabilities, got {value_R[row]} for {name!r}")


def _write(rows: RowIds, value_R: np.ndarray, path: Path) -> None:
    table = pa.table({"ID": rows.ids, "Label": value_R})
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise StorageError(f"cannot make the folder {path.parent}: {error.strerror or error}") from error
    try:
        with whole_file(path) as temporary, temporary.open("wb") as file:
            file.write(",".join(COLUMNS).encode() + b"\n")
            pa_csv.write_csv(table, file, pa_csv.WriteOptions(include_header=False, quoting_style="none"))
            file.flush()
            _check_written(temporary, table, path)
    except pa.ArrowInvalid as error:
        raise DataError(f"IDs must not hold commas, quotes or line breaks: {error}") from error


def _check_written(temporary: Path, table: pa.Table, path: Path) -> None:
    """Read the file as a scorer would, before it takes its place: the same IDs in the same order, the same numbers."""
    try:
        found = read_competition_csv(temporary)
        ids_agree = found.column("ID").combine_chunks().equals(table.column("ID").combine_chunks())
        values_agree = np.array_equal(found.column("Label").to_numpy(), table.column("Label").to_numpy())
        cause = (
            "" if ids_agree and values_agree else "its IDs are others" if not ids_agree else "its numbers are others"
        )
    except DataError as error:
        cause = str(error)
    if cause:
        raise StorageError(f"the submission for {path} does not read back as it was written ({cause}); write it anew")
