from dataclasses import replace

import numpy as np
import pytest

from ichtune.ensemble.ladder import best_member, build_rungs, ladder_rows, predict_rungs
from ichtune.ensemble.members.panel import load_panel
from ichtune.labels import LABELS
from ichtune.metrics import prior_predictions, weighted_log_loss


def ladder(panel):
    rungs = build_rungs(panel, panel.p_MNL[1], panel.p_MNL[-1], "b1")
    return rungs, {row["name"]: row for row in ladder_rows(panel, rungs)}


def test_rungs_stand_in_order_and_carry_their_losses(make_blend_workspace):
    panel = load_panel(make_blend_workspace(noises=(0.8, 1.2, 1.6)).open())
    rungs, rows = ladder(panel)
    singles = [f"single:{m.name}" for m in panel.members]
    assert [rung.name for rung in rungs] == ["prior", *singles, "best_single", "equal_mean", "blend"]
    y, p = panel.y_NL, panel.p_MNL
    expected = {
        "prior": weighted_log_loss(y, prior_predictions(y, len(y))),
        "best_single": min(weighted_log_loss(y, p_NL) for p_NL in p),
        "equal_mean": weighted_log_loss(y, p.mean(axis=0)),
        "blend": weighted_log_loss(y, p[1]),
    }
    for name, loss in expected.items():
        assert rows[name]["oof_loss"] == pytest.approx(loss, rel=1e-12)
        assert rows[name]["test_loss"] is None
        assert rows[name]["crossfit_low"] < rows[name]["crossfit_loss"] < rows[name]["crossfit_high"]
        assert rows[name]["expected_test_low"] < rows[name]["expected_test_high"]
    assert rows["blend"]["crossfit_loss"] == pytest.approx(weighted_log_loss(y, p[2]), rel=1e-12)
    assert rows["blend"]["blend_id"] == "b1"
    assert rows["best_single"]["recipe_id"] == "r0"
    assert rows["equal_mean"]["crossfit_loss"] == rows["equal_mean"]["oof_loss"]


def test_cross_fitted_prior_comes_from_the_other_folds(make_blend_workspace):
    panel = load_panel(make_blend_workspace().open())
    rungs, rows = ladder(panel)
    for fold in range(3):
        others = panel.y_NL[panel.fold_N != fold].mean(axis=0)
        assert np.abs(rungs[0].p_crossfit_NL[panel.fold_N == fold] - others).max() < 1e-12
    assert rows["prior"]["crossfit_loss"] > rows["prior"]["oof_loss"]


def test_best_single_is_chosen_again_without_each_fold(make_blend_workspace):
    """Two members of equal worth: each fold's best is the one that the other folds favour."""
    panel = load_panel(make_blend_workspace(noises=(1.0, 1.0), seed=5).open())
    rungs, _ = ladder(panel)
    rung = next(r for r in rungs if r.name == "best_single")
    for fold in range(3):
        fit, held_out = panel.fold_N != fold, panel.fold_N == fold
        losses = [weighted_log_loss(panel.y_NL[fit], p_NL[fit]) for p_NL in panel.p_MNL]
        np.testing.assert_array_equal(rung.p_crossfit_NL[held_out], panel.p_MNL[np.argmin(losses)][held_out])


def test_labels_of_a_fold_change_no_bit_of_what_prior_and_best_single_predict_for_it(make_blend_workspace):
    """A member that says little is the best of all slices, and of the other folds, once fold 0 is turned round."""
    panel = load_panel(make_blend_workspace(noises=(0.5, 0.8, 1.2)).open())
    p_MNL = panel.p_MNL.copy()
    p_MNL[-1] = 0.5
    panel = replace(panel, p_MNL=p_MNL)
    is_fold_0 = panel.fold_N == 0
    turned = replace(panel, y_NL=np.where(is_fold_0[:, None], 1.0 - panel.y_NL, panel.y_NL))
    assert (best_member(panel), best_member(turned)) == (0, 2), "a choice with fold 0 would be another one"
    for one, other in zip(ladder(panel)[0], ladder(turned)[0], strict=True):
        moved = {int(fold) for fold in panel.fold_N[(one.p_crossfit_NL != other.p_crossfit_NL).any(axis=1)]}
        assert moved == ({1, 2} if one.name in {"prior", "best_single"} else set()), one.name


def test_what_is_expected_of_the_test_set_comes_from_cross_fitted_predictions(make_blend_workspace):
    """A rung that knows every label in sample is expected to do as the member whose predictions it cross-fits to."""
    panel = load_panel(make_blend_workspace().open())
    in_sample = np.clip(panel.y_NL, 1e-5, 1 - 1e-5)
    member = panel.members[-1].name
    rows = {row["name"]: row for row in ladder_rows(panel, build_rungs(panel, in_sample, panel.p_MNL[-1], "b1"))}
    for key in ("crossfit_loss", "crossfit_low", "crossfit_high", "expected_test_low", "expected_test_high"):
        assert rows["blend"][key] == pytest.approx(rows[f"single:{member}"][key], rel=1e-12), key
    assert rows["blend"]["oof_high"] < 0.001 < rows["blend"]["expected_test_low"]


def test_each_rung_predicts_the_test_set(make_blend_workspace):
    panel = load_panel(make_blend_workspace().open())
    p_blend = np.full((len(panel.test_image_ids), len(LABELS)), 0.25)
    predicted = predict_rungs(panel, p_blend)
    rungs, _ = ladder(panel)
    assert list(predicted) == [rung.name for rung in rungs]
    np.testing.assert_array_equal(predicted["best_single"], panel.p_MTL[best_member(panel)])
    np.testing.assert_allclose(predicted["equal_mean"], panel.p_MTL.mean(axis=0), rtol=1e-12)
    np.testing.assert_array_equal(predicted["blend"], p_blend)


def test_the_blend_without_the_second_level_stands_before_the_blend(make_blend_workspace):
    panel = load_panel(make_blend_workspace().open())
    assert panel.of_first_level is None
    rungs = build_rungs(panel, panel.p_MNL[0], panel.p_MNL[0], "b1", (panel.p_MNL[1], panel.p_MNL[2]))
    assert [rung.name for rung in rungs][-2:] == ["without_second_level", "blend"]
    np.testing.assert_array_equal(rungs[-2].p_oof_NL, panel.p_MNL[1])
    np.testing.assert_array_equal(rungs[-2].p_crossfit_NL, panel.p_MNL[2])
    predicted = predict_rungs(panel, panel.p_MTL[0], panel.p_MTL[1])
    assert list(predicted) == [rung.name for rung in rungs]
    np.testing.assert_array_equal(predicted["without_second_level"], panel.p_MTL[1])


def test_without_test_patients_nothing_is_expected_of_them(make_blend_workspace):
    made = make_blend_workspace(n_test_patients=0, noises=())
    made.write_run("r0", made.predictions("r0", 1.0)[0], None)
    panel = load_panel(made.open())
    rows = ladder_rows(panel, build_rungs(panel, panel.p_MNL[0], panel.p_MNL[0], "b1"))
    assert all(row["expected_test_low"] is None for row in rows)
