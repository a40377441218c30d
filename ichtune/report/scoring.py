"""Score a submission against the truth, both in the competition's ``ID,Label`` form, joined by ID.

Dimension key: N slices, L labels.
"""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from ichtune.ensemble.blend import fit_first_level
from ichtune.ensemble.ladder import BLEND, predict_rungs
from ichtune.ensemble.members.panel import load_panel
from ichtune.ensemble.spec import BlendSpec
from ichtune.errors import ConflictError, DataError
from ichtune.labels import LABELS
from ichtune.metrics import check_probabilities, per_label_log_loss, weighted_log_loss
from ichtune.report.submission import N_NAMED, fill_missing, read_competition_csv, split_row_ids
from ichtune.tables import P_COLUMNS, PREDICTIONS, read_table, write_json
from ichtune.workspace import Workspace

#: Two submissions are the same where no value differs by more.
TOLERANCE = 1e-6


@dataclass(frozen=True)
class LabelMatrix:
    """A competition CSV as a matrix: slices in order of appearance, values (N, L) in label order."""

    image_ids: np.ndarray
    values_NL: np.ndarray


def score_submission(submission: Path, truth: Path) -> dict[str, Any]:
    """Score a submission by the competition's metric.

    Args:
        submission: CSV ``ID,Label`` with probabilities.
        truth: CSV ``ID,Label`` with 0 or 1.

    Returns:
        ``{"weighted_log_loss", "per_label": {label: log loss}, "n": slices}``.

    Raises:
        DataError: a file that is missing or unreadable, values outside [0, 1], slices without all six labels.
        ConflictError: IDs that repeat, or that only one of the two files holds.
    """
    p, y = read_label_matrix(submission), read_label_matrix(truth)
    p_NL = _aligned(p, y.image_ids, str(submission), str(truth))
    return {
        "weighted_log_loss": weighted_log_loss(y.values_NL, p_NL),
        "per_label": per_label_log_loss(y.values_NL, p_NL),
        "n": len(y.image_ids),
    }


def read_label_matrix(path: Path) -> LabelMatrix:
    """Read a competition CSV; see ``score_submission`` for what it raises."""
    table = read_competition_csv(path)
    rows = split_row_ids(table.column("ID"), str(path))
    rows.check_unique(str(path))
    missing_NL = rows.times() == 0
    if missing_NL.any():
        raise DataError(
            f"{path} must hold all {len(LABELS)} labels of each slice, {int(missing_NL.sum())} rows are missing: "
            f"{rows.named(missing_NL)}"
        )
    values_NL = np.empty(missing_NL.shape)
    values_NL[rows.slice_R, rows.label_R] = table.column("Label").to_numpy()
    check_probabilities(values_NL, str(path))
    return LabelMatrix(rows.image_ids, values_NL)


def add_test_losses(workspace: Workspace, submission: Path, truth: Path) -> list[dict[str, Any]]:
    """Score every rung of the workspace's ladder on the truth and write ``ladder.json`` again.

    Each rung is scored as it would be submitted: slices without a prediction count with the training rates.

    Args:
        workspace: with the ladder of its last blend.
        submission: the CSV of that blend; refused if it is another one, since the rung ``blend`` stands for
            it.
        truth: CSV ``ID,Label`` with 0 or 1.

    Returns:
        The ladder's rows with ``test_loss``.

    Raises:
        DataError: no ladder yet.
        ConflictError: the submission is not that of the ladder's blend, or see ``score_submission``.
    """
    rows = _read_ladder(workspace.layout.ladder)
    blend_id = next(row["blend_id"] for row in rows if row["name"] == BLEND)
    folder = workspace.layout.blends / blend_id
    about = json.loads((folder / "blend.json").read_text(encoding="utf-8"))
    panel = load_panel(workspace, [member["recipe_id"] for member in about["members"]])
    blend = read_table(folder / "test.parquet", PREDICTIONS).set_index("image_id")
    p_blend_TL = blend.loc[panel.test_image_ids, list(P_COLUMNS)].to_numpy()
    y = read_label_matrix(truth)
    submitted = _aligned(read_label_matrix(submission), y.image_ids, str(submission), str(truth))
    losses = {}
    without = fit_first_level(BlendSpec(**about["spec"]), panel)
    p_without_TL = None if without is None else without[1].predict_set(panel.p_MTL[without[0]])
    for name, p_TL in predict_rungs(panel, p_blend_TL, p_without_TL).items():
        p_NL, _ = fill_missing(workspace, y.image_ids, panel.test_image_ids, p_TL)
        if name == BLEND and np.abs(p_NL - submitted).max() > TOLERANCE:
            raise ConflictError(
                f"{submission} is not the submission of blend {blend_id}, which {workspace.layout.ladder} is "
                "about: run `ichtune blend` again, or score without --ladder"
            )
        losses[name] = weighted_log_loss(y.values_NL, p_NL)
    scored = [{**row, "test_loss": losses.get(row["name"])} for row in rows]
    write_json(scored, workspace.layout.ladder)
    return scored


def _read_ladder(path: Path) -> list[dict[str, Any]]:
    if not path.is_file():
        raise DataError(f"{path} does not exist yet: run `ichtune blend` first, it writes the ladder")
    try:
        rows: list[dict[str, Any]] = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise DataError(f"{path} is no readable JSON ({error}); run `ichtune blend` again") from error
    return rows


def _aligned(matrix: LabelMatrix, image_ids: np.ndarray, name: str, other: str) -> np.ndarray:
    """Return the values in the order of ``image_ids``; both must hold the same slices."""
    index = pd.Index(matrix.image_ids, dtype=object)
    position = index.get_indexer(pd.Index(image_ids, dtype=object))
    missing, extra = image_ids[position < 0], index.difference(pd.Index(image_ids, dtype=object))
    if len(missing) or len(extra):
        raise ConflictError(
            f"{name} and {other} must hold the same slices: {len(missing)} of {len(image_ids)} are missing"
            f"{_examples(missing)}, {len(extra)} are not in the truth{_examples(extra)}"
        )
    return matrix.values_NL[position]


def _examples(ids: Any) -> str:
    return f" ({', '.join(str(i) for i in ids[:N_NAMED])}{', ...' if len(ids) > N_NAMED else ''})" if len(ids) else ""
