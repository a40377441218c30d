"""Cross-validated runs, as plain values.

Dimension key: N labelled slices, L labels.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from ichtune.ensemble.members.run_records import run_title
from ichtune.labels import LABELS
from ichtune.metrics import per_label_log_loss, slice_losses
from ichtune.report.json_files import read_json_object
from ichtune.tables import P_COLUMNS, PREDICTIONS, read_table
from ichtune.workspace import Workspace


@dataclass(frozen=True)
class RunRow:
    """One recipe trained on every fold.

    Attributes:
        title: the recipe in one line.
        n_slices: labelled slices that its out-of-fold predictions cover.
        oof_loss: weighted log loss over all of them.
        per_label: log loss of each label, in label order.
        per_fold: weighted log loss on each fold that it predicts.
        seconds: training time, all folds; None where it was not kept.
    """

    recipe_id: str
    title: str
    n_slices: int
    oof_loss: float
    per_label: tuple[float, ...]
    per_fold: dict[int, float]
    seconds: float | None


@dataclass(frozen=True)
class RunFacts:
    """Every run, best first; ``unfinished`` names those without out-of-fold predictions."""

    rows: tuple[RunRow, ...]
    folds: tuple[int, ...]
    n_labelled: int
    unfinished: tuple[str, ...]


def collect_runs(workspace: Workspace) -> RunFacts | None:
    """Return every run of a workspace; None where there is none."""
    folder = workspace.layout.runs
    started = sorted(path.name for path in folder.iterdir() if path.is_dir()) if folder.is_dir() else []
    if not started:
        return None
    complete = workspace.run_ids()
    rows = [row for row in (_run(workspace, recipe_id) for recipe_id in complete) if row is not None]
    return RunFacts(
        rows=tuple(sorted(rows, key=lambda row: (row.oof_loss, row.recipe_id))),
        folds=tuple(sorted({fold for row in rows for fold in row.per_fold})),
        n_labelled=len(workspace.labelled),
        unfinished=tuple(name for name in started if name not in complete),
    )


def _run(workspace: Workspace, recipe_id: str) -> RunRow | None:
    rows, p_NL, fold_N = joined_predictions(workspace, workspace.layout.oof(recipe_id))
    if not len(rows):
        return None
    y_NL = workspace.labelled[list(LABELS)].to_numpy(np.float64)[rows]
    losses_N = slice_losses(y_NL, p_NL)
    per_label = per_label_log_loss(y_NL, p_NL)
    return RunRow(
        recipe_id=recipe_id,
        title=run_title(workspace, recipe_id),
        n_slices=len(rows),
        oof_loss=float(losses_N.mean()),
        per_label=tuple(per_label[label] for label in LABELS),
        per_fold={int(fold): float(losses_N[fold_N == fold].mean()) for fold in np.unique(fold_N)},
        seconds=_seconds(workspace.layout.runs / recipe_id),
    )


def joined_predictions(workspace: Workspace, path: Path) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Join a Predictions table to the labelled slices by image_id.

    Args:
        workspace: with labels.
        path: an ``oof.parquet`` of a run or of a blend.

    Returns:
        Positions in ``workspace.labelled`` that are predicted (N,), probabilities (N, L), folds (N,).
    """
    table = read_table(path, PREDICTIONS)
    position = pd.Index(table["image_id"].to_numpy(object)).get_indexer(
        pd.Index(workspace.labelled["image_id"].to_numpy(object))
    )
    rows = np.flatnonzero(position >= 0)
    chosen = table.iloc[position[rows]]
    return rows, chosen[list(P_COLUMNS)].to_numpy(np.float64), chosen["fold"].to_numpy(np.int64)


def _seconds(folder: Path) -> float | None:
    folds = [read_json_object(path, "train") or {} for path in sorted(folder.glob("fold_*/run.json"))]
    return sum(float(fold.get("seconds") or 0.0) for fold in folds) if folds else None
