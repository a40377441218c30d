"""The score ladder: from the label rates alone to the blend, each rung with an honest estimate.

Dimension key: M members, N labelled slices, T unlabelled slices, L labels.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np

from ichtune.ensemble.blenders.equal_mean import EqualMean
from ichtune.ensemble.crossfit import crossfit
from ichtune.ensemble.members.panel import Panel
from ichtune.ensemble.scores.bootstrap import loss_intervals, prediction_intervals
from ichtune.metrics import prior_predictions, slice_losses

PRIOR, BEST_SINGLE, EQUAL_MEAN, BLEND = "prior", "best_single", "equal_mean", "blend"
#: The blend made again without the second level, where there is one.
WITHOUT_SECOND_LEVEL = "without_second_level"
SINGLE_PREFIX = "single:"


@dataclass(frozen=True)
class Rung:
    """One row of the ladder before it is scored.

    Attributes:
        name: unique in the ladder.
        p_oof_NL: predictions of what was chosen and fitted on all labelled slices.
        p_crossfit_NL: predictions of what was chosen and fitted on the other folds only.
        about: further keys of the row, such as the recipe_id.
    """

    name: str
    p_oof_NL: np.ndarray
    p_crossfit_NL: np.ndarray
    about: dict[str, Any]


def build_rungs(
    panel: Panel,
    p_oof_NL: np.ndarray,
    p_crossfit_NL: np.ndarray,
    blend_id: str,
    without_second: tuple[np.ndarray, np.ndarray] | None = None,
) -> list[Rung]:
    """Return prior, every single member, the best of them, the equal mean, and the blend, in this order.

    Before the blend stands the same without the members of the second level, where some are of the first: what the
    second level is worth.

    A single member and the equal mean fit nothing on out-of-fold predictions: their cross-fitted predictions
    are the out-of-fold ones. The best member is a choice, and is made again without each fold.

    Args:
        panel: the members.
        p_oof_NL: the blend's predictions in sample.
        p_crossfit_NL: the blend's cross-fitted predictions.
        blend_id: of the blend.
        without_second: what the blend would predict without the second level, in sample and cross-fitted.
    """
    y_NL, p_MNL, fold_N = panel.y_NL, panel.p_MNL, panel.fold_N
    n_labels = y_NL.shape[1]
    losses_MN, best = panel.member_losses, best_member(panel)
    p_mean_NL = EqualMean().fit(p_MNL, y_NL).predict(p_MNL)

    def prior_of(fit_rows: np.ndarray, predict_rows: np.ndarray) -> np.ndarray:
        return prior_predictions(y_NL[fit_rows], len(predict_rows))

    def best_of(fit_rows: np.ndarray, predict_rows: np.ndarray) -> np.ndarray:
        return p_MNL[losses_MN[:, fit_rows].mean(axis=1).argmin(), predict_rows]

    singles = [
        Rung(f"{SINGLE_PREFIX}{member.name}", p_NL, p_NL, {"recipe_id": member.recipe_id})
        for member, p_NL in zip(panel.members, p_MNL, strict=True)
    ]
    about_best = {"recipe_id": panel.members[best].recipe_id}
    return [
        Rung(PRIOR, prior_predictions(y_NL, len(y_NL)), crossfit(prior_of, fold_N, n_labels), {}),
        *singles,
        Rung(BEST_SINGLE, p_MNL[best], crossfit(best_of, fold_N, n_labels), about_best),
        Rung(EQUAL_MEAN, p_mean_NL, p_mean_NL, {}),
        *([] if without_second is None else [Rung(WITHOUT_SECOND_LEVEL, *without_second, {})]),
        Rung(BLEND, p_oof_NL, p_crossfit_NL, {"blend_id": blend_id}),
    ]


def ladder_rows(panel: Panel, rungs: list[Rung]) -> list[dict[str, Any]]:
    """Score each rung, with 95 % patient-bootstrap intervals; losses on the test set stay null.

    Returns:
        Rows ``name, oof_loss, crossfit_loss, test_loss`` and ``oof_low, oof_high, crossfit_low,
        crossfit_high``; ``expected_test_low, expected_test_high`` is where the loss on the workspace's
        unlabelled patients should lie if they are drawn like the labelled ones (null without unlabelled
        patients).
    """
    oof_NC = np.stack([slice_losses(panel.y_NL, rung.p_oof_NL) for rung in rungs], axis=1)
    crossfit_NC = np.stack([slice_losses(panel.y_NL, rung.p_crossfit_NL) for rung in rungs], axis=1)
    oof = loss_intervals(oof_NC, panel.patient_N)
    crossfitted = loss_intervals(crossfit_NC, panel.patient_N)
    n_new = panel.n_test_patients
    expected = prediction_intervals(crossfit_NC, panel.patient_N, n_new) if n_new else None
    return [
        {
            "name": rung.name,
            "oof_loss": oof[c].estimate,
            "oof_low": oof[c].low,
            "oof_high": oof[c].high,
            "crossfit_loss": crossfitted[c].estimate,
            "crossfit_low": crossfitted[c].low,
            "crossfit_high": crossfitted[c].high,
            "expected_test_low": expected[c].low if expected else None,
            "expected_test_high": expected[c].high if expected else None,
            "test_loss": None,
            **rung.about,
        }
        for c, rung in enumerate(rungs)
    ]


def predict_rungs(
    panel: Panel, p_blend_TL: np.ndarray, p_without_TL: np.ndarray | None = None
) -> dict[str, np.ndarray]:
    """Return what each rung predicts for the unlabelled slices: (T, L) by the names of ``build_rungs``.

    Args:
        panel: the members.
        p_blend_TL: the blend's predictions.
        p_without_TL: those of the blend without the second level, where there is that rung.
    """
    singles = {f"{SINGLE_PREFIX}{m.name}": p_TL for m, p_TL in zip(panel.members, panel.p_MTL, strict=True)}
    return {
        PRIOR: prior_predictions(panel.y_NL, len(panel.test_image_ids)),
        **singles,
        BEST_SINGLE: panel.p_MTL[best_member(panel)],
        EQUAL_MEAN: EqualMean().predict(panel.p_MTL),
        **({} if p_without_TL is None else {WITHOUT_SECOND_LEVEL: p_without_TL}),
        BLEND: p_blend_TL,
    }


def best_member(panel: Panel) -> int:
    """Return the row of the member with the lowest out-of-fold loss; of equals the first."""
    return int(panel.member_losses.mean(axis=1).argmin())
