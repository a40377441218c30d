import json

import numpy as np
import pandas as pd
import pytest

from ichtune.ensemble.members.panel import load_panel
from ichtune.errors import ConfigError, ConflictError, DataError, NothingUsableError
from ichtune.labels import LABELS
from ichtune.metrics import weighted_log_loss
from ichtune.tables import P_COLUMNS, TRIALS, write_table


def logit(p):
    return np.log(p / (1 - p))


def test_a_panel_holds_every_member_over_the_same_slices(make_blend_workspace):
    made = make_blend_workspace()
    panel = load_panel(made.open())
    n, t = len(made.labelled), len(made.test)
    assert [m.recipe_id for m in panel.members] == ["r0", "r1", "r2"]
    assert panel.members[0].name == "net_r0|brain|64px|lr=1.0e-03"
    assert panel.p_MNL.shape == (3, n, len(LABELS))
    assert panel.p_MTL.shape == (3, t, len(LABELS))
    assert panel.n_test_patients == 12
    assert panel.fold_plan_hash == made.plan.plan_hash
    np.testing.assert_array_equal(panel.y_NL, made.y_NL[made.labelled])


def test_rows_are_joined_by_image_id_whatever_their_order(make_blend_workspace):
    made = make_blend_workspace(noises=())
    oof, test = made.predictions("r0", 1.0)
    made.write_run("r0", oof, test)
    straight = load_panel(made.open())
    made.write_run("r0", oof.sample(frac=1, random_state=1), test.sample(frac=1, random_state=2))
    shuffled = load_panel(made.open())
    np.testing.assert_array_equal(shuffled.p_MNL, straight.p_MNL)
    np.testing.assert_array_equal(shuffled.p_MTL, straight.p_MTL)
    np.testing.assert_array_equal(straight.p_MNL[0], oof[list(P_COLUMNS)].to_numpy())


def test_fold_models_are_averaged_in_log_odds(make_blend_workspace):
    made = make_blend_workspace(noises=())
    oof, test = made.predictions("r0", 1.0)
    made.write_run("r0", oof, test)
    panel = load_panel(made.open())
    first = test[test["image_id"] == panel.test_image_ids[0]]
    assert len(first) == 3
    expected = logit(first[list(P_COLUMNS)].to_numpy()).mean(axis=0)
    np.testing.assert_allclose(logit(panel.p_MTL[0, 0]), expected, rtol=1e-6)


def test_identical_members_are_left_out_with_a_note(make_blend_workspace):
    made = make_blend_workspace(noises=(1.0, 1.2))
    oof, test = made.predictions("r5", 0.9)
    made.write_run("r5", oof, test)
    made.write_run("r7", oof.assign(recipe_id="r7"), test.assign(recipe_id="r7"))
    panel = load_panel(made.open())
    assert [m.recipe_id for m in panel.members] == ["r0", "r1", "r5"]
    assert panel.collapsed == {"r7": "r5"}
    assert len(panel.p_MNL) == len(panel.p_MTL) == 3


def test_equal_summaries_are_told_apart(make_blend_workspace):
    made = make_blend_workspace(noises=(1.0, 1.2))
    for run in ("r0", "r1"):
        path = made.root / "runs" / run / "recipe.json"
        path.write_text(json.dumps({"summary": "net|brain|±1|64px|lr=1.0e-03"}), encoding="utf-8")
    names = [m.name for m in load_panel(made.open()).members]
    assert names == ["net|brain|±1|64px|lr=1.0e-03|r0", "net|brain|±1|64px|lr=1.0e-03|r1"]


def test_a_leaked_row_is_refused(make_blend_workspace):
    made = make_blend_workspace(noises=(1.0,))
    oof, test = made.predictions("r9", 1.0)
    oof.loc[17, "fold"] = (oof.loc[17, "fold"] + 1) % 3
    made.write_run("r9", oof, test)
    with pytest.raises(ConflictError, match=f"leaked rows: member r9 .*1 slices.*{oof.loc[17, 'image_id']}"):
        load_panel(made.open())


def test_members_of_another_fold_plan_are_refused(make_blend_workspace):
    made = make_blend_workspace(noises=(1.0,))
    made.write_run("r9", *made.predictions("r9", 1.0), plan_hash="0123456789abcdef")
    with pytest.raises(ConflictError, match=r"0123456789abcdef.*cannot be blended") as caught:
        load_panel(made.open())
    assert caught.value.exit_code == 4
    assert load_panel(made.open(), ["r0"]).members[0].recipe_id == "r0"


def test_coverage_is_exact(make_blend_workspace):
    made = make_blend_workspace(noises=())
    oof, test = made.predictions("r0", 1.0)
    stranger = oof.iloc[:1].assign(image_id="ID_stranger")
    twice = oof.iloc[:1].assign(fold=lambda f: (f["fold"] + 1) % 3)
    for bad_oof, bad_test, error, message in [
        (oof.iloc[3:], test, DataError, "3 of 300 are missing"),
        (pd.concat([oof, stranger]), test, DataError, "do not belong there.*ID_stranger"),
        (pd.concat([oof, twice]), test, ConflictError, "once, got .* 2 times"),
        (oof, test[test["fold"] != 1], DataError, r"folds \[0, 1, 2\], got \[0, 2\]"),
        (oof, test.iloc[1:], DataError, "fold model 0 must cover every slice, 1 of 119"),
    ]:
        made.write_run("r0", bad_oof, bad_test)
        with pytest.raises(error, match=message):
            load_panel(made.open())


@pytest.mark.parametrize("value", [float("nan"), 1.2, -0.1])
def test_a_value_that_is_no_probability_is_named(make_blend_workspace, value):
    made = make_blend_workspace(noises=())
    oof, test = made.predictions("r0", 1.0)
    oof.loc[5, "p_subdural"] = value
    made.write_run("r0", oof, test)
    with pytest.raises(DataError, match=f"member r0, slice '{oof.loc[5, 'image_id']}', label 'subdural'"):
        load_panel(made.open())


def test_predictions_under_another_recipe_id_are_refused(make_blend_workspace):
    made = make_blend_workspace(noises=())
    oof, test = made.predictions("r0", 1.0)
    made.write_run("r0", oof.assign(recipe_id="r1"), test)
    with pytest.raises(ConflictError, match="must hold recipe_id 'r0' only, got 'r1'"):
        load_panel(made.open())


def test_what_is_missing_names_the_command_that_makes_it(make_blend_workspace):
    made = make_blend_workspace(noises=())
    with pytest.raises(DataError, match=r"no run in .*`ichtune train`"):
        load_panel(made.open())
    (made.root / "runs" / "r3" / "fold_0").mkdir(parents=True)
    with pytest.raises(NothingUsableError, match="none of the 1 runs"):
        load_panel(made.open())
    with pytest.raises(DataError, match="r3 has no out-of-fold predictions"):
        load_panel(made.open(), ["r3"])
    made.write_run("r4", made.predictions("r4", 1.0)[0], None)
    with pytest.raises(DataError, match=r"test.parquet does not exist yet: run `ichtune train`"):
        load_panel(made.open())
    with pytest.raises(ConfigError, match=r"no run has recipe_id 'r44'.*Did you mean 'r4'"):
        load_panel(made.open(), ["r44"])


def test_unfinished_runs_are_left_out_and_listed(make_blend_workspace):
    made = make_blend_workspace(noises=(1.0,))
    (made.root / "runs" / "r3" / "fold_0").mkdir(parents=True)
    panel = load_panel(made.open())
    assert [m.recipe_id for m in panel.members] == ["r0"]
    assert panel.unfinished == ("r3",)


def test_without_unlabelled_slices_no_test_predictions_are_needed(make_blend_workspace):
    made = make_blend_workspace(n_test_patients=0, noises=())
    made.write_run("r0", made.predictions("r0", 1.0)[0], None)
    panel = load_panel(made.open())
    assert panel.p_MTL.shape == (1, 0, len(LABELS))
    assert panel.n_test_patients == 0


def test_members_that_are_nearly_the_same_or_suspected_take_part_with_a_warning(make_blend_workspace):
    made = make_blend_workspace(n_patients=120, noises=(1.0, 1.1, 1.2))
    oof, test = made.predictions("r3", 1.0)
    columns = list(P_COLUMNS)
    near = oof.assign(recipe_id="r4")
    near[columns] = (oof[columns] * (1 - 1e-5)).to_numpy()
    made.write_run("r3", oof, test)
    made.write_run("r4", near, test.assign(recipe_id="r4"))
    honest = load_panel(made.open())
    assert honest.suspicions == ()
    assert [(pair.recipe_id, pair.other) for pair in honest.alike] == [("r3", "r4")]
    assert ["say nearly the same" in line for line in honest.warnings] == [True]
    told = oof.assign(recipe_id="r4")
    rows = made.rng.choice(len(oof), 40, replace=False)
    told.loc[rows, columns] = np.where(made.y_NL[made.labelled][rows] > 0.5, 1 - 1e-6, 1e-6)
    made.write_run("r4", told, test.assign(recipe_id="r4"))
    panel = load_panel(made.open())
    assert [suspicion.recipe_id for suspicion in panel.suspicions] == ["r4"]
    assert [line.split(":")[0] for line in panel.warnings] == ["leak suspected"]
    assert [m.recipe_id for m in panel.members] == ["r0", "r1", "r2", "r3", "r4"]


def test_many_members_are_kept_in_half_the_memory(make_blend_workspace, monkeypatch):
    made = make_blend_workspace()
    exact = load_panel(made.open())
    assert exact.p_MNL.dtype == exact.p_MTL.dtype == np.float64
    monkeypatch.setattr("ichtune.ensemble.members.panel.MAX_FLOAT64_BYTES", exact.p_MNL.nbytes)
    rounded = load_panel(made.open())
    assert rounded.p_MNL.dtype == rounded.p_MTL.dtype == np.float32
    for p_NL, q_NL in zip(exact.p_MNL, rounded.p_MNL, strict=True):
        assert weighted_log_loss(exact.y_NL, q_NL) == pytest.approx(weighted_log_loss(exact.y_NL, p_NL), abs=1e-7)


def test_members_are_named_by_what_people_call_them(make_blend_workspace):
    made = make_blend_workspace(noises=(1.0, 1.1))
    record = {"foreign": True, "name": "theirs", "summary": "theirs"}
    (made.root / "runs" / "r1" / "recipe.json").write_text(json.dumps(record), encoding="utf-8")
    panel = load_panel(made.open(), ["theirs"])
    assert [(m.recipe_id, m.name, m.foreign) for m in panel.members] == [("r1", "theirs", True)]
    assert [m.foreign for m in load_panel(made.open()).members] == [False, True]


def say(made, recipe_id, **record):
    (made.root / "runs" / recipe_id / "recipe.json").write_text(json.dumps(record), encoding="utf-8")


def test_of_a_copy_the_run_of_the_first_level_is_kept_whatever_the_ids(make_blend_workspace):
    made = make_blend_workspace()
    oof, test = made.predictions("r9", 1.0)
    made.write_run("r9", oof, test)
    made.write_run("a0", oof.assign(recipe_id="a0"), test.assign(recipe_id="a0"))
    say(made, "a0", summary="gaussian", recipe={"level": 2})
    panel = load_panel(made.open())
    assert panel.collapsed["a0"] == "r9"
    assert [member.level for member in panel.members] == [1] * len(panel.members)
    say(made, "r1", summary="gru", recipe={"level": 2})
    assert load_panel(made.open()).members[-1].recipe_id == "r1", "of the second level, behind the others"


def test_searches_whose_winners_take_part_are_counted(make_blend_workspace):
    made = make_blend_workspace()
    assert load_panel(made.open()).searches == {}
    frame = pd.DataFrame({column: [0] * 4 for column, kind in TRIALS.columns.items() if kind != "string"})
    frame = frame.assign(**{column: "" for column, kind in TRIALS.columns.items() if kind == "string"})
    frame = frame.assign(
        search=["windows", "windows", "windows", "lr"], recipe_id=["r1", "x", "y", "z"], trial=range(4)
    )
    write_table(frame, made.root / "trials.parquet", TRIALS)
    assert load_panel(made.open()).searches == {"windows": 3}
