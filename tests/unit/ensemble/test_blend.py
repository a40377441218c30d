import json

import numpy as np
import pytest

from ichtune.ensemble import fitting
from ichtune.ensemble.blend import fit_first_level, run_blend
from ichtune.ensemble.fitting import restore_blend
from ichtune.ensemble.members.member_tables import NO_FOLD_MODEL
from ichtune.ensemble.post_processing.chain import Chain, Gain, Link
from ichtune.ensemble.post_processing.prior_shift import PriorShift, estimated_rates
from ichtune.ensemble.post_processing.steps import DEFAULT_STEPS
from ichtune.ensemble.scores.all_scores import scores_of
from ichtune.ensemble.spec import BlendSpec
from ichtune.labels import LABELS
from ichtune.metrics import weighted_log_loss
from ichtune.tables import P_COLUMNS, PREDICTIONS, read_table, table_about


def rows_of(result):
    return {row["name"]: row for row in result.ladder}


def test_a_blend_is_written_and_reads_back(make_blend_workspace):
    made = make_blend_workspace()
    result = run_blend(made.open(), BlendSpec(blender="convex", parameters={"shrinkage": 0.1}))
    folder = made.root / "blends" / result.blend_id
    about = json.loads((folder / "blend.json").read_text(encoding="utf-8"))
    assert about["fold_plan_hash"] == made.plan.plan_hash
    assert [m["recipe_id"] for m in about["members"]] == ["r0", "r1", "r2"]
    assert sum(about["weights"][r]["any"] for r in about["weights"]) == pytest.approx(1)
    oof = read_table(folder / "oof.parquet", PREDICTIONS)
    np.testing.assert_array_equal(oof["image_id"].to_numpy(object), result.panel.image_ids)
    np.testing.assert_array_equal(oof["fold"], result.panel.fold_N)
    np.testing.assert_array_equal(oof[list(P_COLUMNS)].to_numpy(), result.p_crossfit_NL)
    test = read_table(folder / "test.parquet", PREDICTIONS)
    assert set(test["fold"]) == {NO_FOLD_MODEL}
    assert set(test["recipe_id"]) == {result.blend_id}
    assert table_about(folder / "test.parquet")["inputs"]["fold_plan_hash"] == made.plan.plan_hash
    ladder = json.loads((made.root / "ladder.json").read_text(encoding="utf-8"))
    assert ladder == result.ladder
    assert {"prior", "best_single", "equal_mean", "blend"} <= {row["name"] for row in ladder}


def test_the_fitted_blend_can_be_read_from_what_is_written(make_blend_workspace):
    made = make_blend_workspace()
    result = run_blend(
        made.open(), BlendSpec(blender="convex", members={"top": 2}, parameters={"weights": "per_label"})
    )
    about = json.loads((made.root / "blends" / result.blend_id / "blend.json").read_text(encoding="utf-8"))
    assert about["learned"]["post_processing"]
    restored = restore_blend(BlendSpec(**about["spec"]), about["learned"], len(about["chosen"]))
    chosen = [member.recipe_id in about["chosen"] for member in result.panel.members]
    np.testing.assert_array_equal(restored.predict(result.panel.p_MTL[chosen]), result.p_test_TL)


def test_blending_good_members_beats_the_best_of_them_and_says_so_honestly(make_blend_workspace):
    made = make_blend_workspace(n_patients=60, noises=(0.9, 0.9, 1.0, 1.0))
    result = run_blend(made.open(), BlendSpec(blender="convex"))
    rows = rows_of(result)
    assert rows["blend"]["crossfit_loss"] < rows["best_single"]["crossfit_loss"] < rows["prior"]["crossfit_loss"]
    assert rows["blend"]["crossfit_loss"] >= rows["blend"]["oof_loss"]
    assert result.differences["best_single"].high < 0
    y_test = made.y_NL[made.test]
    blend_loss = weighted_log_loss(y_test, result.p_test_TL)
    single = result.panel.p_MTL[int(np.argmin([row["oof_loss"] for row in result.ladder[1:5]]))]
    assert blend_loss < weighted_log_loss(y_test, single)


def test_the_estimate_holds_on_new_patients(make_blend_workspace):
    """Members whose fold models are one model: the cross-fitted estimate and the test loss estimate the same."""
    made = make_blend_workspace(n_patients=60, n_test_patients=40, noises=())
    for m, noise in enumerate((1.0, 1.4)):
        oof, test = made.predictions(f"r{m}", noise)
        one = test[test["fold"] == 0]
        same = np.concatenate([one[list(P_COLUMNS)].to_numpy()] * made.plan.k)
        test[list(P_COLUMNS)] = same
        made.write_run(f"r{m}", oof, test)
    result = run_blend(made.open(), BlendSpec(blender="convex"))
    row = rows_of(result)["blend"]
    loss = weighted_log_loss(made.y_NL[made.test], result.p_test_TL)
    assert row["expected_test_low"] <= loss <= row["expected_test_high"]


def test_members_in_shuffled_row_order_give_the_same_blend(make_blend_workspace):
    made = make_blend_workspace(noises=())
    tables = {f"r{m}": made.predictions(f"r{m}", 1.0 + 0.2 * m) for m in range(3)}
    for recipe_id, (oof, test) in tables.items():
        made.write_run(recipe_id, oof, test)
    straight = run_blend(made.open(), BlendSpec(blender="convex"))
    for seed, (recipe_id, (oof, test)) in enumerate(tables.items()):
        made.write_run(recipe_id, oof.sample(frac=1, random_state=seed), test.sample(frac=1, random_state=seed))
    shuffled = run_blend(made.open(), BlendSpec(blender="convex"))
    np.testing.assert_allclose(shuffled.p_test_TL, straight.p_test_TL, rtol=0, atol=1e-12)
    assert shuffled.blend_id == straight.blend_id


@pytest.mark.slow  # takes seconds
@pytest.mark.parametrize("blender", ["convex", "equal_mean", "equal_mean_logit"])
def test_a_duplicate_member_changes_nothing(make_blend_workspace, blender):
    made = make_blend_workspace(noises=(1.0,))
    oof, test = made.predictions("r1", 1.2)
    made.write_run("r1", oof, test)
    before = run_blend(made.open(), BlendSpec(blender=blender))
    made.write_run("r2", oof.assign(recipe_id="r2"), test.assign(recipe_id="r2"))
    after = run_blend(made.open(), BlendSpec(blender=blender))
    np.testing.assert_allclose(after.p_test_TL, before.p_test_TL, atol=1e-6)
    assert after.panel.collapsed == {"r2": "r1"}


def test_hard_and_single_members_give_finite_figures(make_blend_workspace):
    made = make_blend_workspace(noises=())
    oof, test = made.predictions("r0", 1.0)
    columns = list(P_COLUMNS)
    made.write_run("r0", oof.assign(**(oof[columns] > 0.5).astype(float)), test.assign(**(test[columns] > 0.5) * 1.0))
    result = run_blend(made.open(), BlendSpec(blender="convex", clip=1e-5))
    assert np.isfinite(result.p_test_TL).all()
    assert result.weights == {"r0": dict.fromkeys(LABELS, 1.0)}
    assert all(np.isfinite(row["crossfit_loss"]) for row in result.ladder)


def test_another_method_is_another_blend(make_blend_workspace):
    made = make_blend_workspace()
    ids = {
        run_blend(made.open(), spec).blend_id
        for spec in (
            BlendSpec(blender="convex"),
            BlendSpec(blender="convex", clip=1e-4),
            BlendSpec(blender="convex", members=["r0"]),
        )
    }
    assert len(ids) == 3
    assert sorted(path.name for path in (made.root / "blends").iterdir()) == sorted(ids)


def test_what_post_processing_gained_and_the_rates_of_the_test_set_are_written(make_blend_workspace):
    made = make_blend_workspace(n_patients=60, n_test_patients=40, noises=(2.0, 2.0))
    result = run_blend(made.open(), BlendSpec(blender="convex"))
    about = json.loads((made.root / "blends" / result.blend_id / "blend.json").read_text(encoding="utf-8"))
    assert [Gain(**one) for one in about["post_processing"]] == list(result.gains)
    assert {gain.step for gain in result.gains} == set(DEFAULT_STEPS)
    assert any(gain.applied for gain in result.gains)
    assert about["differences"]["blend_alone"]["high"] < 0, "so noisy members are too sure"
    assert about["rates"] == result.rates
    assert list(result.rates["training"].values()) == result.panel.y_NL.mean(axis=0).tolist()
    true_L = made.y_NL[made.test].mean(axis=0)
    np.testing.assert_allclose(list(result.rates["test_predicted"].values()), true_L, atol=0.1)
    estimated_L = estimated_rates(result.p_test_TL, result.panel.y_NL.mean(axis=0))
    np.testing.assert_allclose(list(result.rates["test_estimated"].values()), estimated_L)


def test_a_shift_is_adapted_to_in_the_test_set_alone(make_blend_workspace, monkeypatch):
    made = make_blend_workspace()
    plain = run_blend(made.open(), BlendSpec(blender="convex", post_processing="none"))
    shift = Link(PriorShift().fit(plain.p_crossfit_NL, plain.panel.y_NL), LABELS)
    monkeypatch.setattr(fitting, "fit_chain", lambda *_: Chain((shift,)))
    shifted = run_blend(made.open(), BlendSpec(blender="convex", post_processing=["prior_shift"]))
    np.testing.assert_array_equal(shifted.p_test_TL, np.clip(shift.predict(plain.p_test_TL), 1e-6, 1 - 1e-6))
    np.testing.assert_array_equal(shifted.fitted.predict(shifted.panel.p_MTL), plain.p_test_TL)
    assert shifted.rates == plain.rates


def test_what_it_is_worth_is_kept_with_the_luck_of_each_choice(make_blend_workspace):
    made = make_blend_workspace(n_patients=60)
    result = run_blend(made.open(), BlendSpec())
    about = json.loads((made.root / "blends" / result.blend_id / "blend.json").read_text(encoding="utf-8"))
    panel = result.panel
    assert about["scores"] == scores_of(panel.y_NL, result.p_crossfit_NL, panel.patient_N, panel.series_N)
    assert about["scores"]["slices"]["pooled"]["log_loss"]["estimate"] == pytest.approx(about["loss"]["crossfit_loss"])
    assert about["scores"]["series"]["n"] == len(set(panel.series_N)) == 60
    assert set(about["optimism"]) == {"best_single", "blender"}
    best = about["optimism"]["best_single"]
    assert panel.members[best["chosen"]].recipe_id == rows_of(result)["best_single"]["recipe_id"]
    assert best["loss"] == pytest.approx(rows_of(result)["best_single"]["oof_loss"])
    (chosen,) = [one.loss for one in result.tried if one.chosen]
    assert about["optimism"]["blender"]["loss"] == pytest.approx(chosen)
    assert about["optimism"]["blender"]["n_candidates"] == len(result.tried)


def test_what_the_second_level_is_worth_is_a_rung(make_blend_workspace):
    """Two members of the first level, and a better one that is said to have learnt from them."""
    made = make_blend_workspace(n_patients=60, noises=(1.5, 1.5, 0.4))
    record = {"summary": "gru", "recipe": {"level": 2, "model": "gru", "members": ["r0", "r1"]}}
    (made.root / "runs" / "r2" / "recipe.json").write_text(json.dumps(record), encoding="utf-8")
    spec = BlendSpec(blender="convex", post_processing="none")
    result = run_blend(made.open(), spec)
    assert [member.level for member in result.panel.members] == [1, 1, 2]
    first = run_blend(made.open(), BlendSpec(blender="convex", post_processing="none", members=["r0", "r1"]))
    without, alone = rows_of(result)["without_second_level"], rows_of(first)["blend"]
    assert without["crossfit_loss"] == pytest.approx(alone["crossfit_loss"], abs=1e-12)
    assert without["oof_loss"] == pytest.approx(alone["oof_loss"], abs=1e-12)
    assert "without_second_level" not in rows_of(first)
    gain = result.differences["without_second_level"]
    assert gain.high < 0
    assert gain.estimate == pytest.approx(rows_of(result)["blend"]["crossfit_loss"] - without["crossfit_loss"])
    of_first, fitted = fit_first_level(spec, result.panel)
    np.testing.assert_allclose(fitted.predict_set(result.panel.p_MTL[of_first]), first.p_test_TL, atol=1e-12)


def test_without_a_choice_there_is_no_luck(make_blend_workspace):
    made = make_blend_workspace(noises=(1.0,))
    assert run_blend(made.open(), BlendSpec(blender="convex")).optimism == {}


def test_nothing_is_told_of_steps_that_were_not_tried(make_blend_workspace):
    made = make_blend_workspace(n_test_patients=0, noises=())
    made.write_run("r0", made.predictions("r0", 1.0)[0], None)
    result = run_blend(made.open(), BlendSpec(blender="convex", post_processing="none"))
    assert (result.gains, "blend_alone" in result.differences) == ((), False)
    assert (result.rates["test_predicted"], result.rates["test_estimated"]) == (None, None)
