"""The blend and the score ladder, as plain values.

Dimension key: N labelled slices, L labels.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from ichtune.ensemble.blend import BLEND_ALONE
from ichtune.ensemble.ladder import BEST_SINGLE, BLEND, EQUAL_MEAN, PRIOR, SINGLE_PREFIX, WITHOUT_SECOND_LEVEL
from ichtune.ensemble.members.run_records import run_title
from ichtune.ensemble.post_processing.chain import Gain
from ichtune.errors import DataError, IchtuneError
from ichtune.labels import ANY, LABELS
from ichtune.metrics import per_label_log_loss, prior_predictions
from ichtune.report.json_files import read_json, read_json_object
from ichtune.report.reliability import reliability
from ichtune.report.run_facts import joined_predictions
from ichtune.report.score_facts import (
    ComparedRow,
    LuckRow,
    ScoreTable,
    chosen_way,
    compared_rows,
    luck_rows,
    score_tables,
    search_caveat,
    warnings_of,
)
from ichtune.report.submission import fill_missing, submission_rows
from ichtune.tables import PREDICTIONS, read_table
from ichtune.workspace import Workspace

TITLES = {
    PRIOR: "label rates only (prior)",
    BEST_SINGLE: "best single run",
    EQUAL_MEAN: "equal mean",
    WITHOUT_SECOND_LEVEL: "blend without the second level",
    BLEND: "blend",
    BLEND_ALONE: "blend without post-processing",
}


@dataclass(frozen=True)
class LadderRow:
    """One rung; losses are None where they are not known."""

    name: str
    title: str
    oof_loss: float | None
    crossfit_loss: float | None
    crossfit_low: float | None
    crossfit_high: float | None
    expected_low: float | None
    expected_high: float | None
    test_loss: float | None
    recipe_id: str

    @property
    def is_single(self) -> bool:
        """Whether it is one run of many, not a rung of its own."""
        return self.name.startswith(SINGLE_PREFIX)

    @property
    def is_inside(self) -> bool | None:
        """Whether the test loss lies where it was expected; None where either is unknown."""
        if self.test_loss is None or self.expected_low is None or self.expected_high is None:
            return None
        return self.expected_low <= self.test_loss <= self.expected_high


@dataclass(frozen=True)
class MemberRow:
    """A member of the blend and its weights in label order; None for a blender without weights."""

    recipe_id: str
    title: str
    weights: tuple[float, ...] | None


@dataclass(frozen=True)
class LabelRow:
    """Log losses of one label, and its rate in the test set as predicted and as prior shift estimates it.

    None where they are not known.
    """

    label: str
    rate: float
    predicted_rate: float | None
    estimated_rate: float | None
    prior: float
    best_single: float | None
    blend: float | None


@dataclass(frozen=True)
class StepRow:
    """A step of post-processing: what it did to each label, in label order; None for one that it cannot change."""

    title: str
    gains: tuple[Gain | None, ...]


@dataclass(frozen=True)
class BlendFacts:
    """The blend that the ladder is about.

    Attributes:
        method: blender and settings in words.
        is_shared: whether every label has the same weights.
        gains: cross-fitted loss minus that of another rung with its interval: title, estimate, low, high.
        steps: of post-processing, in the order in which they were tried.
        reliability: a mapping a bin: predicted, observed, low, high, n.
        submission: how many slices the submission holds and how many got the label rates, by reason; None
            without one, and ``submission_note`` says why.
        scores: of slices, then of series, cross-fitted.
        luck: what of the lead of each choice by loss is luck.
        members_compared: each member with the blend.
        ways_compared: each way to blend that was tried with the first one, and whether it was chosen.
        search_caveat: a sentence on members that a search chose.
        warnings: on members that are suspected or nearly the same.
        notes: members left out, and why.
    """

    blend_id: str
    method: str
    n_slices: int
    n_patients: int
    n_test_patients: int | None
    members: tuple[MemberRow, ...]
    is_shared: bool
    labels: tuple[LabelRow, ...]
    gains: tuple[tuple[str, float, float, float], ...]
    steps: tuple[StepRow, ...]
    reliability: tuple[dict[str, float], ...]
    submission: dict[str, Any] | None
    submission_note: str
    scores: tuple[ScoreTable, ...]
    luck: tuple[LuckRow, ...]
    members_compared: tuple[ComparedRow, ...]
    ways_compared: tuple[ComparedRow, ...]
    search_caveat: str
    warnings: tuple[str, ...]
    notes: tuple[str, ...]
    n_other_blends: int


def collect_ladder(workspace: Workspace) -> tuple[LadderRow, ...]:
    """Return the rungs of ladder.json; empty where there is none."""
    return tuple(_rung(row, workspace) for row in _ladder(workspace))


def _ladder(workspace: Workspace) -> list[dict[str, Any]]:
    path = workspace.layout.ladder
    rows = read_json(path, "blend") or []
    if not isinstance(rows, list) or not all(isinstance(row, dict) and "name" in row for row in rows):
        raise DataError(f"{path} must be a list of rows with a name, got {str(rows)[:80]!r}; run `ichtune blend` again")
    return rows


def _rung(row: Mapping[str, Any], workspace: Workspace) -> LadderRow:
    name, recipe_id = str(row["name"]), str(row.get("recipe_id") or "")
    title = run_title(workspace, recipe_id) if name.startswith(SINGLE_PREFIX) and recipe_id else ""
    return LadderRow(
        name=name,
        title=title or TITLES.get(name, name.removeprefix(SINGLE_PREFIX)),
        oof_loss=row.get("oof_loss"),
        crossfit_loss=row.get("crossfit_loss"),
        crossfit_low=row.get("crossfit_low"),
        crossfit_high=row.get("crossfit_high"),
        expected_low=row.get("expected_test_low"),
        expected_high=row.get("expected_test_high"),
        test_loss=row.get("test_loss"),
        recipe_id=recipe_id,
    )


def collect_blend(workspace: Workspace) -> BlendFacts | None:
    """Return the blend that the ladder is about; None where there is none."""
    blend_id = next((row.get("blend_id") for row in _ladder(workspace) if row["name"] == BLEND), None)
    folder = workspace.layout.blends / str(blend_id)
    about = read_json_object(folder / "blend.json", "blend")
    if blend_id is None or about is None:
        return None
    labelled = workspace.labelled
    members = _members(workspace, about)
    submission, note = _submission(workspace, folder)
    return BlendFacts(
        blend_id=str(blend_id),
        method=_method(about),
        n_slices=int(about.get("n_slices") or len(labelled)),
        n_patients=int(labelled["patient_id"].nunique()),
        n_test_patients=about.get("n_test_patients"),
        members=members,
        is_shared=all(m.weights is not None and max(m.weights) - min(m.weights) < 1e-12 for m in members),
        labels=_label_rows(workspace, about),
        gains=tuple(
            (TITLES.get(name, name), gain["estimate"], gain["low"], gain["high"])
            for name, gain in sorted((about.get("differences") or {}).items(), key=lambda one: _place(one[0]))
        ),
        steps=_steps(about),
        reliability=_reliability_of(workspace, folder),
        submission=submission,
        submission_note=note,
        scores=score_tables(about),
        luck=luck_rows(about),
        members_compared=compared_rows(about, "members_compared"),
        ways_compared=compared_rows(about, "ways_compared"),
        search_caveat=search_caveat(about),
        warnings=warnings_of(about),
        notes=_notes(about),
        n_other_blends=len(list(workspace.layout.blends.glob("*/blend.json"))) - 1,
    )


def _place(rung: str) -> int:
    """Return where a rung stands in the ladder; what is not known stands last."""
    return list(TITLES).index(rung) if rung in TITLES else len(TITLES)


def _members(workspace: Workspace, about: Mapping[str, Any]) -> tuple[MemberRow, ...]:
    weights = about.get("weights") or {}
    rows = []
    for member in about.get("members") or []:
        recipe_id = str(member.get("recipe_id") or "")
        title = run_title(workspace, recipe_id) or str(member.get("name") or "")
        by_label = weights.get(recipe_id)
        rows.append(
            MemberRow(recipe_id, title, tuple(float(by_label[label]) for label in LABELS) if by_label else None)
        )
    return tuple(sorted(rows, key=lambda row: (-sum(row.weights or ()), row.recipe_id)))


def _method(about: Mapping[str, Any]) -> str:
    spec = about.get("spec") or {}
    parts = [str(spec["blender"])] if spec.get("blender") else []
    chosen = chosen_way(about)
    parts += [f"chose {chosen}"] if chosen else []
    parts += [f"{key} {value}" for key, value in (spec.get("parameters") or {}).items()]
    parts += [f"clip {spec['clip']}"] if "clip" in spec else []
    return ", ".join(part.replace("_", " ") for part in parts)


def _steps(about: Mapping[str, Any]) -> tuple[StepRow, ...]:
    gains = [Gain(**one) for one in about.get("post_processing") or []]
    by_step: dict[str, dict[str, Gain]] = {}
    for gain in gains:
        by_step.setdefault(gain.step, {})[gain.label] = gain
    return tuple(
        StepRow(step.replace("_", " "), tuple(of_label.get(label) for label in LABELS))
        for step, of_label in by_step.items()
    )


def _notes(about: Mapping[str, Any]) -> tuple[str, ...]:
    same = [
        f"{run} predicts what {kept} does, but for rounding" for run, kept in (about.get("collapsed") or {}).items()
    ]
    unfinished = [f"{run}: not every fold is trained" for run in about.get("unfinished") or []]
    return (*same, *unfinished)


def _label_rows(workspace: Workspace, about: Mapping[str, Any]) -> tuple[LabelRow, ...]:
    y_NL = workspace.labelled[list(LABELS)].to_numpy(np.float64)
    prior = per_label_log_loss(y_NL, prior_predictions(y_NL, len(y_NL)))
    blend = about.get("per_label") or {}
    best_id = next((row.get("recipe_id") for row in _ladder(workspace) if row["name"] == BEST_SINGLE), None)
    best: dict[str, float] = {}
    if best_id and workspace.layout.oof(best_id).is_file():
        rows, p_NL, _ = joined_predictions(workspace, workspace.layout.oof(best_id))
        best = per_label_log_loss(y_NL[rows], p_NL)
    rates = y_NL.mean(axis=0)
    told = about.get("rates") or {}
    predicted, estimated = told.get("test_predicted") or {}, told.get("test_estimated") or {}
    return tuple(
        LabelRow(
            label=label,
            rate=float(rate),
            predicted_rate=predicted.get(label),
            estimated_rate=estimated.get(label),
            prior=prior[label],
            best_single=best.get(label),
            blend=blend.get(label),
        )
        for label, rate in zip(LABELS, rates, strict=True)
    )


def _reliability_of(workspace: Workspace, folder: Path) -> tuple[dict[str, float], ...]:
    if not (folder / "oof.parquet").is_file():
        return ()
    rows, p_NL, _ = joined_predictions(workspace, folder / "oof.parquet")
    labelled = workspace.labelled.iloc[rows]
    column = LABELS.index(ANY)
    return reliability(labelled[ANY].to_numpy(np.float64), p_NL[:, column], labelled["patient_id"].to_numpy(object))


def _submission(workspace: Workspace, folder: Path) -> tuple[dict[str, Any] | None, str]:
    """Count what the submission holds; the second value says why there is nothing to count."""
    if not workspace.layout.submission.is_file() or not (folder / "test.parquet").is_file():
        return None, "no submission.csv in the workspace: run `ichtune blend`"
    test = read_table(folder / "test.parquet", PREDICTIONS)
    image_ids = test["image_id"].to_numpy(object)
    try:
        wanted = submission_rows(workspace, image_ids).image_ids
        _, filled = fill_missing(workspace, wanted, image_ids, np.full((len(test), len(LABELS)), 0.5))
    except IchtuneError as error:
        return None, str(error)
    by_reason = pd.Series([reason.split(":")[0] for reason in filled.values()], dtype=object).value_counts()
    counts = {str(code): int(n) for code, n in sorted(by_reason.items())}
    return {"n_slices": len(wanted), "n_filled": len(filled), "by_reason": counts}, ""
