"""What a model has learnt from, kept beside its weights, so that nobody is scored by a model that has seen them.

Patients are kept as hashes: enough to find one that is known, and no list of names.
"""

import hashlib
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np

from ichtune.data.cache.hu_cache import file_sha256
from ichtune.data.dataset import SliceBatches
from ichtune.errors import ConflictError
from ichtune.training.checkpoint import read_sidecar

#: Hexadecimal digits of a patient's mark: two of a million patients share one with a chance of 1 in 10 million.
MARK_DIGITS = 16


def patient_marks(patient_ids: Iterable[str]) -> frozenset[str]:
    """Return a hash for each patient."""
    return frozenset(hashlib.sha256(f"patient {p}".encode()).hexdigest()[:MARK_DIGITS] for p in set(patient_ids))


def learnt_from(path: Path, scored_marks: frozenset[str], purpose: str) -> tuple[frozenset[str], dict[str, Any]]:
    """Return whom a weights file has learnt from, and its whole sidecar, unless it knows who will be scored.

    Args:
        path: weights that ``ichtune train`` wrote.
        scored_marks: ``patient_marks`` of the patients whose slices will be scored.
        purpose: the recipe key that names the file, for the message.

    Raises:
        ConflictError: it has learnt from some of them.
        DataError: its sidecar is missing or another file's, so that nobody knows.
    """
    about = read_sidecar(path)
    seen = frozenset(about.get("learnt_from") or ())
    if not seen:
        raise ConflictError(f"{purpose}: {path} does not say which patients it has learnt from; train it again")
    known = seen & scored_marks
    if known:
        raise ConflictError(
            f"{purpose}: {path} has learnt from {len(known)} of the {len(scored_marks)} patients that would be scored, "
            f"so their score would be worthless; name the model of the same fold, which has not seen them"
        )
    return seen, about


def rows_id(data: SliceBatches, train_rows: np.ndarray, valid_rows: np.ndarray, start: Path | None) -> str:
    """Return a hash of what a run learns from, starts from and is judged on: a checkpoint of other rows would leak.

    Args:
        data: the slices, with the targets that are learnt.
        train_rows: cache rows to learn from.
        valid_rows: cache rows to be judged on.
        start: weights that the run starts from, if any.
    """
    digest = hashlib.sha256(data.cache.cache_id.encode())
    for rows in (train_rows, valid_rows):
        digest.update(np.ascontiguousarray(rows, dtype="<i8").tobytes())
        digest.update(data.targets.y_NK[rows].astype("<f4").tobytes())
        digest.update(data.targets.weight_NK[rows].astype("<f4").tobytes())
    if start is not None:
        digest.update(file_sha256(start).encode())
    return digest.hexdigest()
