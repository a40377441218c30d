import json

import numpy as np
import pandas as pd
import pytest

from ichtune.ensemble.blend import run_blend
from ichtune.ensemble.members.foreign import add_predictions, member_rows, remove_predictions
from ichtune.ensemble.members.panel import load_panel
from ichtune.ensemble.spec import BlendSpec
from ichtune.errors import ConfigError, ConflictError, DataError
from ichtune.labels import LABELS
from ichtune.metrics import weighted_log_loss
from ichtune.tables import P_COLUMNS


@pytest.fixture
def made(make_blend_workspace):
    return make_blend_workspace(noises=(1.0, 1.1))


class Files:
    """Predictions of one member as files, and the run that it would have been if trained here."""

    def __init__(self, made, folder):
        self.made, self.folder = made, folder
        self.oof, self.test = made.predictions("r8", 0.9)

    def csv(self, name, frame):
        frame.drop(columns="recipe_id").to_csv(self.folder / name, index=False)
        return self.folder / name

    def add(self, name="theirs", fold_plan="this", oof=None, test=None):
        oof, test = (mine if given is None else given for mine, given in ((self.oof, oof), (self.test, test)))
        return add_predictions(self.made.open(), self.csv("oof.csv", oof), name, fold_plan, self.csv("test.csv", test))


@pytest.fixture
def files(made, tmp_path):
    return Files(made, tmp_path)


def test_what_was_added_blends_as_if_it_had_been_trained_here(files, made):
    added = files.add()
    panel = load_panel(made.open(), [added.recipe_id])
    made.write_run("r8", files.oof, files.test)
    trained = load_panel(made.open(), ["r8"])
    np.testing.assert_allclose(panel.p_MNL, trained.p_MNL, rtol=0, atol=1e-15)
    np.testing.assert_allclose(panel.p_MTL, trained.p_MTL, rtol=0, atol=1e-12)
    assert added.oof_loss == pytest.approx(weighted_log_loss(trained.y_NL, trained.p_MNL[0]), abs=1e-12)
    assert (added.n_slices, added.n_test_slices, added.is_new) == (300, 119, True)
    assert panel.members[0].name == "theirs"
    assert panel.members[0].foreign


def test_its_record_says_where_it_came_from_without_folders(files, made):
    added = files.add(fold_plan=made.plan.plan_hash)
    record = json.loads((added.path / "recipe.json").read_text(encoding="utf-8"))
    assert record["foreign"] is True
    assert record["name"] == record["summary"] == "theirs"
    assert record["vouched"] == "hash"
    assert record["fold_plan_hash"] == made.plan.plan_hash
    assert {kind: file["name"] for kind, file in record["files"].items()} == {"oof": "oof.csv", "test": "test.csv"}
    assert len(record["files"]["oof"]["sha256"]) == 64
    assert str(files.folder) not in json.dumps(record)


def test_the_order_of_rows_changes_neither_id_nor_blend(files, made):
    straight = files.add()
    spec = BlendSpec(blender="convex", post_processing="none")
    before = run_blend(made.open(), spec)
    remove_predictions(made.open(), "theirs")
    shuffled = files.add(oof=files.oof.sample(frac=1, random_state=0), test=files.test.sample(frac=1, random_state=1))
    assert shuffled.recipe_id == straight.recipe_id
    after = run_blend(made.open(), spec)
    np.testing.assert_allclose(after.p_test_TL, before.p_test_TL, rtol=0, atol=1e-12)
    np.testing.assert_allclose(after.p_crossfit_NL, before.p_crossfit_NL, rtol=0, atol=1e-12)


def test_adding_again_changes_nothing_and_another_content_is_another_run(files):
    first, again = files.add(), files.add()
    assert (again.recipe_id, again.is_new) == (first.recipe_id, False)
    other = files.oof.assign(p_any=0.5)
    with pytest.raises(ConflictError, match=f"'theirs' is taken by run {first.recipe_id}"):
        files.add(oof=other)
    assert files.add("others", oof=other).recipe_id != first.recipe_id
    assert files.add("same").recipe_id != first.recipe_id


def test_one_table_for_all_fold_models_is_taken_as_such(files, made):
    one = files.test[files.test["fold"] == 1].drop(columns="fold")
    added = files.add(test=one)
    panel = load_panel(made.open(), [added.recipe_id])
    np.testing.assert_allclose(panel.p_MTL[0], one[list(P_COLUMNS)].to_numpy(), rtol=0, atol=1e-15)


def test_folds_may_be_numbered_otherwise(files, made, tmp_path):
    renamed = {0: "b", 1: "c", 2: "a"}
    plan = tmp_path / "plan.csv"
    rows = [(patient, renamed[fold]) for patient, fold in made.plan.fold_of.items()]
    pd.DataFrame(rows, columns=["patient_id", "fold"]).to_csv(plan, index=False)
    oof, test = (frame.assign(fold=frame["fold"].map(renamed)) for frame in (files.oof, files.test))
    straight = files.add("straight")
    other = files.add("other", str(plan), oof, test)
    unfolded = files.add("unfolded", str(plan), oof.drop(columns="fold"), test)
    panel = load_panel(made.open(), [straight.recipe_id])
    for added in (other, unfolded):
        same = load_panel(made.open(), [added.recipe_id])
        np.testing.assert_array_equal(same.p_MNL, panel.p_MNL)
        np.testing.assert_array_equal(same.p_MTL, panel.p_MTL)


def test_predictions_of_other_folds_are_refused(files, made):
    with pytest.raises(ConflictError, match="is not this workspace's"):
        files.add(fold_plan="0123456789abcdef")
    with pytest.raises(ConflictError, match="slices were predicted in a fold that is not their patient's"):
        files.add(oof=files.oof.assign(fold=np.arange(300) % 3))
    assert [run for run in made.open().run_ids() if run not in ("r0", "r1")] == []


def test_fold_models_must_be_all_there(files):
    with pytest.raises(DataError, match=r"predictions of the 3 fold models \(.*\) or one table .*got folds 0, 2"):
        files.add(test=files.test[files.test["fold"] != 1])
    with pytest.raises(DataError, match=r"1 of 119 are missing of one fold model \(0\)"):
        files.add(test=files.test.iloc[1:])
    with pytest.raises(DataError, match="119 slices without labels, which a submission predicts"):
        add_predictions(files.made.open(), files.csv("oof.csv", files.oof), "theirs", "this")


def test_without_unlabelled_slices_no_test_predictions_are_taken(make_blend_workspace, tmp_path):
    made = make_blend_workspace(n_test_patients=0, noises=())
    files = Files(made, tmp_path)
    added = add_predictions(made.open(), files.csv("oof.csv", files.oof), "theirs", "this")
    assert load_panel(made.open()).members[0].recipe_id == added.recipe_id
    with pytest.raises(DataError, match="has no slices without labels; leave --test"):
        files.add()


def test_names_that_would_be_taken_for_something_else(files):
    for name, message in (
        ("0123456789ab", "taken for a recipe_id"),
        ("r0", "taken for a recipe_id"),
        ("exp_40", "name of a shipped recipe"),
        ("../up", "letters, digits"),
        ("", "letters, digits"),
    ):
        with pytest.raises(ConfigError, match=message):
            files.add(name)


def test_only_what_was_added_is_removed(files, made):
    added = files.add()
    with pytest.raises(ConfigError, match="run r0 was trained here"):
        remove_predictions(made.open(), "r0")
    with pytest.raises(ConfigError, match=r"'thiers'.*Did you mean 'theirs'"):
        remove_predictions(made.open(), "thiers")
    assert remove_predictions(made.open(), "theirs") == added.recipe_id
    assert made.open().run_ids() == ["r0", "r1"]
    assert not added.path.exists()
    with pytest.raises(ConfigError, match="Nothing was added here"):
        remove_predictions(made.open(), "theirs")


def test_all_members_are_listed_best_first(files, made):
    added = files.add()
    rows = member_rows(made.open())
    assert {row["recipe_id"]: row["foreign"] for row in rows} == {"r0": False, "r1": False, added.recipe_id: True}
    losses = [row["oof_loss"] for row in rows]
    assert losses == sorted(losses)
    panel = load_panel(made.open(), ["r0"])
    assert dict(zip((row["recipe_id"] for row in rows), losses, strict=True))["r0"] == pytest.approx(
        weighted_log_loss(panel.y_NL, panel.p_MNL[0])
    )
    assert list(panel.y_NL.shape) == [300, len(LABELS)]
