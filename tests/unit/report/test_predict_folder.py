import json
import shutil

import numpy as np
import pandas as pd
import pytest

from ichtune.data.phantom.generate import PhantomSpec, write_phantom
from ichtune.ensemble.blend import run_blend
from ichtune.ensemble.spec import BlendSpec
from ichtune.errors import DataError
from ichtune.recipe import Recipe
from ichtune.report.predict_folder import last_blend, predict_folder, write_predictions
from ichtune.tables import P_COLUMNS, write_json
from ichtune.training.crossval import assemble_run, train_fold
from ichtune.workspace import Workspace

COMMON = {"architecture": "tiny_convnet", "image_px": 32, "batch_size": 8, "epochs": 1, "lr": 3e-3}


@pytest.fixture(scope="module")
def dicom(tmp_path_factory):
    """A few generated patients; one of the training files is truncated."""
    folder = tmp_path_factory.mktemp("dicom")
    write_phantom(folder, PhantomSpec(n_patients=4, size_px=64), n_processes=1)
    return folder / "stage_2_train"


@pytest.fixture
def blended(fake_workspace):
    workspace = fake_workspace()
    for windows in ("brain", "subdural"):
        recipe = Recipe(**COMMON, windows=windows)
        for fold in range(3):
            train_fold(workspace, recipe, fold)
        assemble_run(workspace, recipe)
    run_blend(workspace, BlendSpec(blender="equal_mean_logit"))
    return workspace


def test_every_file_is_a_row_and_the_unreadable_one_says_why(blended, dicom, tmp_path):
    steps = []

    predictions = predict_folder(blended, dicom, on_step=lambda done, total: steps.append((done, total)))
    write_predictions(predictions, tmp_path / "out" / "new.csv")

    rows = pd.read_csv(tmp_path / "out" / "new.csv")
    assert len(rows) == len(list(dicom.glob("*.dcm")))
    refused = rows[rows["status"] != "ok"]
    assert refused["reason"].str.startswith("truncated_pixel_data").tolist() == [True]
    assert refused[list(P_COLUMNS)].isna().all(axis=None)
    usable = rows[rows["status"] == "ok"]
    assert usable[list(P_COLUMNS)].to_numpy().min() > 0
    assert usable[list(P_COLUMNS)].to_numpy().max() < 1
    assert steps == [(done, 6) for done in range(1, 7)]
    assert predictions.n_models == 6


def test_the_crops_that_its_members_learnt_from_are_prepared(fake_workspace, dicom):
    workspace = fake_workspace()
    base = workspace.hu_cache.folder
    shutil.copytree(base, base.with_name("cropped"))
    about = json.loads((base / "cache.json").read_text(encoding="utf-8"))
    write_json({**about, "cache_id": "cropped", "crop": "head"}, base.with_name("cropped") / "cache.json")
    added = {"cache_id": "cropped", "size_px": 32, "crop": "head"}
    write_json({**workspace.about, "caches": [*workspace.caches, added]}, workspace.layout.workspace_json)
    workspace = Workspace(workspace.layout.root)
    recipe = Recipe(**COMMON, crop="head")
    for fold in range(3):
        train_fold(workspace, recipe, fold)
    assemble_run(workspace, recipe)
    run_blend(workspace, BlendSpec(blender="equal_mean_logit"))

    predictions = predict_folder(workspace, dicom)

    assert predictions.n_predicted > 0
    (new,) = [Workspace(path) for path in workspace.layout.new.iterdir()]
    assert [(cache["size_px"], cache["crop"]) for cache in new.caches] == [(32, "none"), (32, "head")]
    assert predict_folder(workspace, dicom, size_px=48).n_predicted == predictions.n_predicted
    (new,) = [Workspace(path) for path in workspace.layout.new.iterdir()]
    assert new.caches[-1] | {"cache_id": ""} == {"cache_id": "", "size_px": 48, "crop": "head"}


def test_a_run_without_its_recipe_is_named(blended, dicom):
    (blended.layout.runs / blended.run_ids()[0] / "recipe.json").unlink()
    with pytest.raises(DataError, match=r"recipe.json does not hold the run's recipe; run `ichtune train` again"):
        predict_folder(blended, dicom)


def test_a_second_call_gives_the_same_without_reading_the_files_again(blended, dicom, monkeypatch):
    first = predict_folder(blended, dicom)
    monkeypatch.setattr("ichtune.data.index.read_file", lambda *a: pytest.fail("a file was read again"))

    second = predict_folder(blended, dicom)

    np.testing.assert_array_equal(first.frame[list(P_COLUMNS)], second.frame[list(P_COLUMNS)])


def test_the_last_blend_is_the_one_that_predicts_without_runs_trained_since(blended):
    members = blended.run_ids()
    run_blend(blended, BlendSpec(blender="equal_mean"))
    later = Recipe(**COMMON, windows="bone")
    for fold in range(3):
        train_fold(blended, later, fold)
    assemble_run(blended, later)

    spec, recipe_ids = last_blend(blended)

    assert spec.blender == "equal_mean"
    assert sorted(recipe_ids) == members
    assert later.recipe_id in blended.run_ids()


def test_without_a_blend_it_names_the_command(fake_workspace, dicom):
    with pytest.raises(DataError, match="run `ichtune blend` first"):
        predict_folder(fake_workspace("bare"), dicom)
