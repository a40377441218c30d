"""Run a blend on a workspace: load the members, fit, score cross-fitted, and write ``blends/<blend_id>/``."""

import hashlib
import json
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import pandas as pd

from ichtune.ensemble.blenders.auto import Auto, Tried
from ichtune.ensemble.comparisons import Compared, choices, member_losses, ways_tried
from ichtune.ensemble.fitting import FittedBlend, crossfit_blend, crossfit_stages, fit_blend
from ichtune.ensemble.ladder import (
    BEST_SINGLE,
    BLEND,
    EQUAL_MEAN,
    PRIOR,
    WITHOUT_SECOND_LEVEL,
    Rung,
    build_rungs,
    ladder_rows,
)
from ichtune.ensemble.members.member_tables import NO_FOLD_MODEL
from ichtune.ensemble.members.panel import Panel, load_panel
from ichtune.ensemble.post_processing.chain import Gain
from ichtune.ensemble.post_processing.prior_shift import estimated_rates
from ichtune.ensemble.scores.all_scores import scores_of
from ichtune.ensemble.scores.bootstrap import LEVEL, N_DRAWS, Interval, difference_interval
from ichtune.ensemble.scores.optimism import Optimism
from ichtune.ensemble.spec import BlendSpec
from ichtune.labels import LABELS
from ichtune.metrics import CLIP, per_label_log_loss, slice_losses
from ichtune.tables import P_COLUMNS, PREDICTIONS, write_json, write_table
from ichtune.workspace import Workspace

#: Hexadecimal digits of a blend_id.
ID_DIGITS = 12
#: The blend without its post-processing, among ``differences``.
BLEND_ALONE = "blend_alone"


@dataclass(frozen=True)
class BlendResult:
    """What a blend came to.

    Attributes:
        blend_id: hash of the specification, the members and their fold plan.
        fitted: the blend fitted on all labelled slices, which predicts the test set.
        panel: the members it was made from.
        p_crossfit_NL: its cross-fitted predictions of the labelled slices.
        p_test_TL: its predictions of the unlabelled slices ``panel.test_image_ids``.
        ladder: the rows of ladder.json.
        differences: cross-fitted loss of the blend minus that of another rung, by the rung's name, and of the blend
            without post-processing where there is some; below 0 is a gain.
        rates: of each label, ``training``; ``test_predicted``, the mean prediction in the test set; and
            ``test_estimated``, what prior shift takes for its rate there. Far beyond the second, the third is not to be
            believed. The last two are None without a test set.
        scores: of its cross-fitted predictions, for slices and series; see ``scores_of``.
        optimism: how much of the lead of what was chosen for being best is luck: ``best_single`` among the members,
            and ``blender`` among those that were tried. The cross-fitted losses of the ladder make each choice anew
            without the fold that they judge and need no correction.
        members_compared: each member with the cross-fitted blend.
        ways_compared: each way to blend that was tried with the first, the simplest one.
    """

    blend_id: str
    fitted: FittedBlend
    panel: Panel
    p_crossfit_NL: np.ndarray
    p_test_TL: np.ndarray
    ladder: list[dict[str, Any]]
    differences: dict[str, Interval]
    rates: dict[str, dict[str, float] | None]
    scores: dict[str, Any]
    optimism: dict[str, Optimism]
    members_compared: list[Compared]
    ways_compared: list[Compared]

    @property
    def gains(self) -> tuple[Gain, ...]:
        """What each step of post-processing did to each label, on patients that it was not fitted on."""
        return self.fitted.chain.gains

    @property
    def tried(self) -> tuple[Tried, ...]:
        """What the blender tried that chooses one; nothing of any other."""
        blender = self.fitted.blender
        return blender.tried_ if isinstance(blender, Auto) else ()

    @property
    def weights(self) -> dict[str, dict[str, float]] | None:
        """Weight of each member for each label, by recipe_id; None for a blender without weights."""
        weights_ML = self.fitted.weights(len(self.panel.members))
        if weights_ML is None:
            return None
        return {
            member.recipe_id: _by_label(weight_L)
            for member, weight_L in zip(self.panel.members, weights_ML, strict=True)
        }


def run_blend(workspace: Workspace, spec: BlendSpec) -> BlendResult:
    """Blend the runs of a workspace; writes ``blends/<blend_id>/`` and ``ladder.json``.

    Args:
        workspace: a prepared workspace with trained runs.
        spec: which members, and how.

    Returns:
        The fitted blend with its cross-fitted score.

    Raises:
        DataError, ConflictError, NothingUsableError: see ``load_panel``.
    """
    panel = load_panel(workspace, spec.wanted)
    fitted = fit_blend(spec, panel.p_MNL, panel.y_NL, panel.patient_N)
    p_alone_NL, p_crossfit_NL = crossfit_stages(spec, panel.p_MNL, panel.y_NL, panel.fold_N, panel.patient_N)
    blend_id = _blend_id(spec, panel)
    rungs = build_rungs(
        panel, fitted.predict_set(panel.p_MNL), p_crossfit_NL, blend_id, _without_second_level(spec, panel)
    )
    names, blend_N = [member.name for member in panel.members], slice_losses(panel.y_NL, p_crossfit_NL)
    alone = {BLEND_ALONE: slice_losses(panel.y_NL, p_alone_NL)} if spec.post_processing else {}
    result = BlendResult(
        blend_id=blend_id,
        fitted=fitted,
        panel=panel,
        p_crossfit_NL=p_crossfit_NL,
        p_test_TL=fitted.predict_set(panel.p_MTL),
        ladder=ladder_rows(panel, rungs),
        differences=_differences(panel, rungs, alone),
        rates=_rates(fitted, panel),
        scores=scores_of(panel.y_NL, p_crossfit_NL, panel.patient_N, panel.series_N),
        optimism=choices(fitted.blender, panel.member_losses, panel.patient_N),
        members_compared=member_losses(panel.member_losses, names, blend_N, panel.patient_N),
        ways_compared=ways_tried(fitted.blender),
    )
    _write(workspace, result)
    return result


def fit_first_level(spec: BlendSpec, panel: Panel) -> tuple[np.ndarray, FittedBlend] | None:
    """Fit the blend of the first level's members alone; None where the panel has no other ones, or none of these.

    Returns:
        Their numbers, and the blend.
    """
    first = panel.of_first_level
    return None if first is None else (first, fit_blend(spec, panel.p_MNL[first], panel.y_NL, panel.patient_N))


def _without_second_level(spec: BlendSpec, panel: Panel) -> tuple[np.ndarray, np.ndarray] | None:
    fitted = fit_first_level(spec, panel)
    if fitted is None:
        return None
    first, blend = fitted
    p_MNL = panel.p_MNL[first]
    return blend.predict_set(p_MNL), crossfit_blend(spec, p_MNL, panel.y_NL, panel.fold_N, panel.patient_N)


def _blend_id(spec: BlendSpec, panel: Panel) -> str:
    made_from = {
        "spec": spec.to_dict(),
        "members": [member.recipe_id for member in panel.members],
        "fold_plan_hash": panel.fold_plan_hash,
    }
    text = json.dumps(made_from, sort_keys=True, separators=(",", ":"), default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:ID_DIGITS]


def _differences(panel: Panel, rungs: list[Rung], others: dict[str, np.ndarray]) -> dict[str, Interval]:
    compared = (PRIOR, BEST_SINGLE, EQUAL_MEAN, WITHOUT_SECOND_LEVEL)
    losses = {
        rung.name: slice_losses(panel.y_NL, rung.p_crossfit_NL) for rung in rungs if rung.name in (*compared, BLEND)
    }
    losses |= others
    return {
        name: difference_interval(losses[BLEND], losses[name], panel.patient_N)
        for name in (*compared, *others)
        if name in losses
    }


def _rates(fitted: FittedBlend, panel: Panel) -> dict[str, dict[str, float] | None]:
    """The labels' rates in training and, whether or not a step adapts to them, in the test set."""
    training_L = panel.y_NL.mean(axis=0)
    predicted = estimated = None
    if len(panel.test_image_ids):
        p_TL = fitted.predict(panel.p_MTL)
        predicted = _by_label(p_TL.mean(axis=0))
        estimated = _by_label(estimated_rates(p_TL, np.clip(training_L, CLIP, 1.0 - CLIP)))
    return {"training": _by_label(training_L), "test_predicted": predicted, "test_estimated": estimated}


def _by_label(value_L: np.ndarray) -> dict[str, float]:
    return {label: float(value) for label, value in zip(LABELS, value_L, strict=True)}


def _write(workspace: Workspace, result: BlendResult) -> None:
    folder, panel = workspace.layout.blends / result.blend_id, result.panel
    recipe_ids = [member.recipe_id for member in panel.members]
    inputs = {"fold_plan_hash": panel.fold_plan_hash, "recipe_id": result.blend_id, "members": recipe_ids}
    oof = _frame(result.blend_id, panel.fold_N, panel.image_ids, result.p_crossfit_NL)
    test = _frame(result.blend_id, NO_FOLD_MODEL, panel.test_image_ids, result.p_test_TL)
    write_table(oof, folder / "oof.parquet", PREDICTIONS, inputs)
    write_table(test, folder / "test.parquet", PREDICTIONS, inputs)
    write_json(_about(result), folder / "blend.json")
    write_json(result.ladder, workspace.layout.ladder)


def _about(result: BlendResult) -> dict[str, Any]:
    panel = result.panel
    blender = result.fitted.blender
    gap = getattr(blender.chosen_ if isinstance(blender, Auto) else blender, "gap_", None)
    return {
        "blend_id": result.blend_id,
        "spec": result.fitted.spec.to_dict(),
        "fold_plan_hash": panel.fold_plan_hash,
        "members": [asdict(member) for member in panel.members],
        "chosen": [panel.members[m].recipe_id for m in result.fitted.chosen],
        "collapsed": panel.collapsed,
        "searches": panel.searches,
        "unfinished": list(panel.unfinished),
        "suspicions": [asdict(suspicion) for suspicion in panel.suspicions],
        "alike": [asdict(pair) for pair in panel.alike],
        "weights": result.weights,
        "learned": result.fitted.learned(),
        "post_processing": [asdict(gain) for gain in result.gains],
        "rates": result.rates,
        "duality_gap": gap if gap is None or np.isfinite(gap) else None,
        "loss": next(row for row in result.ladder if row["name"] == BLEND),
        "per_label": per_label_log_loss(panel.y_NL, result.p_crossfit_NL),
        "differences": {name: asdict(interval) for name, interval in result.differences.items()},
        "scores": result.scores,
        "optimism": {name: asdict(one) for name, one in result.optimism.items()},
        "members_compared": [asdict(one) for one in result.members_compared],
        "ways_compared": [asdict(one) for one in result.ways_compared],
        "interval": {"level": LEVEL, "draws": N_DRAWS, "unit": "patient"},
        "n_slices": len(panel.image_ids),
        "n_test_slices": len(panel.test_image_ids),
        "n_test_patients": panel.n_test_patients,
    }


def _frame(blend_id: str, fold: np.ndarray | int, image_ids: np.ndarray, p_NL: np.ndarray) -> pd.DataFrame:
    frame = pd.DataFrame(p_NL, columns=list(P_COLUMNS))
    return frame.assign(recipe_id=blend_id, fold=fold, image_id=image_ids)
