import json
import os

import numpy as np
import pytest

from ichtune.ensemble.blend import run_blend
from ichtune.ensemble.spec import BlendSpec
from ichtune.errors import ConflictError, DataError
from ichtune.report.fold_ensemble import CacheNeed, FoldWeights, ensemble_of
from ichtune.tables import write_json


def blend_json(workspace):
    (path,) = workspace.layout.blends.glob("*/blend.json")
    return path, json.loads(path.read_text(encoding="utf-8"))


def test_it_is_the_blend_as_it_was_scored_and_the_models_of_its_members(blended_networks):
    workspace = blended_networks(spec=BlendSpec(parameters={"weights": "per_label"}))
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


def test_the_newest_blend_counts(blended_networks):
    workspace = blended_networks()
    newer = run_blend(workspace, BlendSpec(blender="equal_mean"))
    assert ensemble_of(workspace).blend.spec.blender == "equal_mean"
    os.utime(workspace.layout.blends / newer.blend_id / "blend.json", (1, 1))
    assert ensemble_of(workspace).blend.spec.blender == "equal_mean_logit"


def test_without_a_blend_the_command_is_named(fake_workspace):
    with pytest.raises(DataError, match="run `ichtune blend` first"):
        ensemble_of(fake_workspace())


def test_a_blend_without_its_numbers_is_not_guessed(blended_networks):
    workspace = blended_networks()
    path, about = blend_json(workspace)
    del about["learned"]
    write_json(about, path)
    with pytest.raises(DataError, match=r"'learned'.*an older ichtune wrote it; run `ichtune blend` again"):
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
