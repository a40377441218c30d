import json
import os
import shutil

import numpy as np
import pytest

from ichtune.ensemble.blend import run_blend
from ichtune.ensemble.blenders.base import Blender
from ichtune.ensemble.blenders.equal_mean import EqualMean
from ichtune.ensemble.fitting import restore_blend
from ichtune.ensemble.spec import BlendSpec
from ichtune.errors import ConflictError, DataError
from ichtune.report.fold_ensemble import CacheNeed, FoldWeights, ensemble_of, restore_live
from ichtune.tables import write_json

pytestmark = pytest.mark.slow  # whole workspaces are searched, trained, blended or drawn


def blend_json(workspace):
    (path,) = workspace.layout.blends.glob("*/blend.json")
    return path, json.loads(path.read_text(encoding="utf-8"))


def test_it_is_the_blend_as_it_was_scored_and_the_models_of_its_members(blended_networks):
    workspace = blended_networks(spec=BlendSpec(blender="convex", parameters={"weights": "per_label"}))
    about = blend_json(workspace)[1]
    ensemble = ensemble_of(workspace)
    assert [member.recipe_id for member in ensemble.members] == about["chosen"]
    assert [member.recipe.recipe_id for member in ensemble.members] == about["chosen"]
    weights_ML = np.array([list(about["weights"][recipe_id].values()) for recipe_id in about["chosen"]])
    np.testing.assert_array_equal(ensemble.blend.weights(2), weights_ML)
    assert ensemble.blend.spec.blender == "convex"
    assert [(w.fold, w.path.is_file()) for w in ensemble.weights] == [(0, True), (1, True), (2, True)] * 2
    assert ensemble.caches == (CacheNeed(32, "none"),)
    told = ensemble.trained_on
    assert (told.generated, told.n_patients, told.n_slices) == (True, 9, len(workspace.labelled))
    assert told.crossfit_low < told.crossfit_loss == about["loss"]["crossfit_loss"] < told.crossfit_high


def test_members_that_the_blend_did_not_choose_are_left_out(blended_networks):
    ensemble = ensemble_of(blended_networks(spec=BlendSpec(members={"top": 1}, blender="equal_mean")))
    assert len(ensemble.members) == 1
    p_MNL = np.full((1, 4, 6), 0.25)
    np.testing.assert_array_equal(ensemble.blend.predict(p_MNL), p_MNL[0])


PER_LABEL = BlendSpec(blender="convex", parameters={"weights": "per_label"})
WEIGHTS = [[0.25, 0, 0, 1, 0.5, 0.5], [0] * 6, [0.75, 1, 1, 0, 0.5, 0.5]]
STEPS = [
    {"step": "platt", "labels": ["any", "subdural"], "learned": {"scale": [1.3] * 6, "offset": [0.1] * 6}},
    {"step": "any_at_least_max", "labels": ["any"], "learned": {}},
]


def learned_of(weights, **more):
    return {"blender": {"weights_": weights, **more}, "post_processing": STEPS}


def test_members_without_weight_are_left_out_and_counted(blended_networks):
    workspace = blended_networks({"windows": "brain"}, {"windows": "bone"}, {"windows": "subdural"}, spec=PER_LABEL)
    path, about = blend_json(workspace)
    write_json(about | {"learned": learned_of(WEIGHTS)}, path)
    shutil.rmtree(workspace.layout.runs / about["chosen"][1])  # nobody asks for it

    ensemble = ensemble_of(workspace)

    assert [member.recipe_id for member in ensemble.members] == [about["chosen"][0], about["chosen"][2]]
    assert (len(ensemble.weights), ensemble.n_left_out) == (6, 1)


@pytest.mark.parametrize("space", ["logit", "probability"])
def test_the_blend_of_the_live_members_predicts_the_same_to_the_last_bit(space):
    spec = BlendSpec(blender="convex", parameters={"weights": "per_label", "space": space})
    p_MNL = np.random.default_rng(3).random((3, 100, 6))
    live, blend = restore_live(spec, learned_of(WEIGHTS), ["a", "b", "c"])
    assert live == ("a", "c")
    whole = restore_blend(spec, learned_of(WEIGHTS), 3)
    assert [link.step.name for link in whole.chain.links] == [link.step.name for link in blend.chain.links]
    expected = whole.predict(p_MNL)
    assert np.abs(expected - whole.blend(p_MNL)).max() > 0.01
    np.testing.assert_array_equal(blend.predict(p_MNL[[0, 2]]), expected)


class Weightless(EqualMean):
    def restore(self, learned):
        return self


class Learned(EqualMean):
    """Learns more than its weights, so that nobody else knows what a weight of zero means."""


@pytest.mark.parametrize(
    ("blender", "learned"), [(Weightless, learned_of(None)), (Learned, learned_of(WEIGHTS, offset=1))]
)
def test_every_member_stays_where_weights_do_not_tell_all(monkeypatch, blender: type[Blender], learned):
    monkeypatch.setattr("ichtune.ensemble.fitting.create_blender", lambda *_: blender())
    live, blend = restore_live(BlendSpec(blender="convex"), learned, ["a", "b", "c"])
    assert live == ("a", "b", "c")
    p_MNL = np.random.default_rng(3).random((3, 5, 6))
    np.testing.assert_allclose(blend.blend(p_MNL), p_MNL.mean(axis=0))


def test_a_blend_of_another_number_of_members_is_refused():
    with pytest.raises(DataError, match="weights of 3 members, got 2"):
        restore_live(PER_LABEL, learned_of(WEIGHTS), ["a", "b"])


def test_the_blend_of_the_ladder_counts_whatever_copying_did_to_the_times(blended_networks):
    workspace = blended_networks()
    newer = run_blend(workspace, BlendSpec(blender="equal_mean"))
    path = workspace.layout.blends / newer.blend_id / "blend.json"
    os.utime(path, (1, 1))
    assert ensemble_of(workspace).blend.spec.blender == "equal_mean"
    path.unlink()
    with pytest.raises(DataError, match=r"blend.json is missing.*ladder.json is about; run `ichtune blend` again"):
        ensemble_of(workspace)


@pytest.mark.parametrize("ladder", [None, [], [{"name": "prior"}]])
def test_the_newest_blend_counts_where_the_ladder_names_none(blended_networks, ladder):
    workspace = blended_networks()
    newer = run_blend(workspace, BlendSpec(blender="equal_mean"))
    workspace.layout.ladder.unlink()
    if ladder is not None:
        write_json(ladder, workspace.layout.ladder)
    assert ensemble_of(workspace).blend.spec.blender == "equal_mean"
    os.utime(workspace.layout.blends / newer.blend_id / "blend.json", (1, 1))
    assert ensemble_of(workspace).blend.spec.blender == "equal_mean_logit"


def test_without_a_blend_the_command_is_named(fake_workspace):
    with pytest.raises(DataError, match="run `ichtune blend` first"):
        ensemble_of(fake_workspace())


def test_a_blend_without_its_numbers_is_not_guessed(blended_networks):
    workspace = blended_networks()
    path, about = blend_json(workspace)
    write_json({key: value for key, value in about.items() if key != "learned"}, path)
    with pytest.raises(DataError, match=r"'learned'.*an older ichtune wrote it; run `ichtune blend` again"):
        ensemble_of(workspace)
    write_json(about | {"spec": about["spec"] | {"any_rule": "none"}}, path)
    with pytest.raises(DataError, match=r"'any_rule'.*an older ichtune wrote it; run `ichtune blend` again"):
        ensemble_of(workspace)


def test_models_of_another_fold_plan_are_refused(blended_networks):
    workspace = blended_networks()
    path, about = blend_json(workspace)
    write_json(about | {"fold_plan_hash": "other"}, path)
    with pytest.raises(ConflictError, match="blended on fold plan other"):
        ensemble_of(workspace)
    write_json(about, path)
    recipe_json = workspace.layout.runs / about["chosen"][1] / "recipe.json"
    recipe = json.loads(recipe_json.read_text(encoding="utf-8"))
    write_json(recipe | {"fold_plan_hash": "other"}, recipe_json)
    with pytest.raises(ConflictError, match="was trained on fold plan other"):
        ensemble_of(workspace)


def test_a_run_without_its_recipe_is_named(blended_networks):
    workspace = blended_networks()
    (workspace.layout.runs / workspace.run_ids()[0] / "recipe.json").unlink()
    with pytest.raises(DataError, match=r"recipe.json does not hold the run's recipe; run `ichtune train` again"):
        ensemble_of(workspace)


def test_weights_are_those_that_were_written(tmp_path):
    path = tmp_path / "weights.safetensors"
    path.write_bytes(b"abc")
    sha256 = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    FoldWeights(0, path).check()
    FoldWeights(0, path, sha256).check()
    path.write_bytes(b"abz")
    with pytest.raises(DataError, match=rf"{path} has changed .* expected {sha256}"):
        FoldWeights(0, path, sha256).check()
    path.unlink()
    with pytest.raises(DataError, match=f"{path} is missing"):
        FoldWeights(0, path).check()


def test_a_second_level_of_other_predictions_than_its_members_make_is_refused(stacked_networks):
    workspace, stacked = stacked_networks(alone=True)
    record = workspace.layout.runs / stacked[0] / "recipe.json"
    about = json.loads(record.read_text(encoding="utf-8"))
    member = next(iter(about["members"]))
    write_json(about | {"members": about["members"] | {member: "0" * 16}}, record)
    with pytest.raises(ConflictError, match=rf"learnt from other predictions than {member} now makes.*`ichtune stack`"):
        ensemble_of(workspace)


def test_runs_that_are_predictions_alone_have_no_models(stacked_networks):
    workspace, stacked = stacked_networks(alone=True)
    ensemble = ensemble_of(workspace)
    for recipe_id, purpose in ((ensemble.unweighted[0].recipe_id, "the second level"), (stacked[0], "predicting new")):
        path = workspace.layout.runs / recipe_id / "recipe.json"
        text = path.read_text(encoding="utf-8")
        write_json(json.loads(text) | {"foreign": True, "name": "resnet"}, path)
        with pytest.raises(DataError, match=rf"{purpose} .*needs the models of every member, and resnet"):
            ensemble_of(workspace)
        path.write_text(text, encoding="utf-8")


def test_the_account_is_of_the_blend_and_its_ladder(stacked_networks):
    workspace, _ = stacked_networks()
    account, about = ensemble_of(workspace).account, blend_json(workspace)[1]
    assert set(account.losses) == {member["recipe_id"] for member in about["members"]}
    assert [one.rung for one in account.compared][:3] == ["prior", "best_single", "equal_mean"]
    assert account.compared[0].estimate == about["differences"]["prior"]["estimate"]
