import json
import shutil

import numpy as np
import pandas as pd
import pytest

from ichtune.data.phantom.generate import PhantomSpec, write_phantom
from ichtune.data.prepare import PrepareSpec, prepare
from ichtune.ensemble.blenders.logits import from_logits, to_logits
from ichtune.ensemble.fitting import restore_blend
from ichtune.ensemble.spec import BlendSpec
from ichtune.errors import DataError, NothingUsableError, StorageError
from ichtune.labels import LABELS
from ichtune.recipe import Recipe
from ichtune.report import fold_ensemble
from ichtune.report import predict_folder as module
from ichtune.report.bundle import read_bundle, write_bundle
from ichtune.report.fold_ensemble import ensemble_of
from ichtune.report.predict_folder import (
    predict_folder,
    predict_with_bundle,
    predict_with_workspace,
    with_series,
    write_predictions,
)
from ichtune.tables import P_COLUMNS, write_json
from ichtune.training.devices import best_device
from ichtune.training.fold_run import open_batches
from ichtune.training.predict import load_model, predict_rows
from ichtune.workspace import Workspace

pytestmark = pytest.mark.slow  # from DICOM files to predictions

GRU = {"model": "gru", "hidden": 8, "layers": 1, "epochs": 2, "batch_size": 4, "lr": 0.05}
SERIES_P = [f"series_p_{label}" for label in LABELS]


@pytest.fixture(scope="module")
def dicom(tmp_path_factory):
    """A few generated patients; one of the training files is truncated."""
    folder = tmp_path_factory.mktemp("dicom")
    write_phantom(folder, PhantomSpec(n_patients=4, size_px=64), n_processes=1)
    return folder / "stage_2_train"


@pytest.fixture
def bundle(blended_networks, tmp_path):
    """A bundle whose workspace is gone."""
    workspace = blended_networks()
    write_bundle(ensemble_of(workspace), tmp_path / "bundle")
    shutil.rmtree(workspace.layout.root)
    return tmp_path / "bundle"


def test_every_file_is_a_row_and_the_unreadable_one_says_why(bundle, dicom, tmp_path):
    steps = []

    predictions = predict_with_bundle(bundle, dicom, on_step=lambda done, total: steps.append((done, total)))
    write_predictions(predictions, tmp_path / "out" / "new.csv")

    rows = pd.read_csv(tmp_path / "out" / "new.csv")
    assert list(rows) == ["image_id", "series_instance_uid", "path", "status", "reason", *P_COLUMNS, *SERIES_P]
    assert len(rows) == len(list(dicom.glob("*.dcm")))
    refused = rows[rows["status"] != "ok"]
    assert refused["reason"].str.startswith("truncated_pixel_data").tolist() == [True]
    assert refused[list(P_COLUMNS)].isna().all(axis=None)
    usable = rows[rows["status"] == "ok"]
    assert usable[list(P_COLUMNS)].to_numpy().min() > 0
    assert usable[list(P_COLUMNS)].to_numpy().max() < 1
    assert steps == [(done, 6) for done in range(1, 7)]
    assert (predictions.n_models, predictions.n_series) == (6, rows["series_instance_uid"].nunique())
    assert (predictions.n_predicted, predictions.n_refused) == (len(usable), 1)
    assert predictions.generated


def test_a_series_is_as_suspicious_as_its_most_suspicious_slice(bundle, dicom):
    frame = predict_with_bundle(bundle, dicom).frame

    largest = frame[frame["status"] == "ok"].groupby("series_instance_uid")[list(P_COLUMNS)].max()
    expected = largest.loc[frame["series_instance_uid"]].to_numpy()  # the refused file's series is known
    np.testing.assert_array_equal(frame[SERIES_P].to_numpy(), expected)


def test_a_series_without_a_readable_slice_has_no_probability():
    frame = pd.DataFrame({"series_instance_uid": pd.Series(["a", "b", "a", "", ""], dtype="string")})
    frame = frame.assign(**{column: [0.25, np.nan, 0.75, 0.5, np.nan] for column in P_COLUMNS})
    for column in SERIES_P:
        np.testing.assert_array_equal(with_series(frame)[column], [0.75, np.nan, 0.75, np.nan, np.nan])


def test_the_probabilities_are_those_of_the_models_and_the_blend(blended_networks, dicom, tmp_path):
    workspace = blended_networks()
    ensemble = ensemble_of(workspace)

    predictions = predict_folder(ensemble, dicom, tmp_path / "new")

    new = Workspace(tmp_path / "new")
    rows = np.flatnonzero(new.slices["status"] == "ok")
    z = []
    for weights in ensemble.weights:
        model, recipe = load_model(weights.path, best_device())
        z.append(to_logits(predict_rows(model, recipe, open_batches(new, recipe), rows, best_device())))
    expected = from_logits(np.mean(z, axis=0))  # equal mean of log odds, of folds as of members
    np.testing.assert_allclose(predictions.frame.loc[rows, list(P_COLUMNS)], expected, rtol=1e-9)


def test_a_bundle_says_what_its_workspace_said_to_the_last_bit(blended_networks, dicom, tmp_path):
    workspace = blended_networks({"windows": "brain", "neighbours": 1}, {"windows": "bone", "tta": "flip"})
    write_bundle(ensemble_of(workspace), tmp_path / "bundle")
    expected = predict_with_workspace(workspace, dicom).frame
    shutil.rmtree(workspace.layout.root)

    pd.testing.assert_frame_equal(predict_with_bundle(tmp_path / "bundle", dicom).frame, expected, check_exact=True)


def test_models_without_weight_do_not_run_and_are_not_missed(blended_networks, dicom, tmp_path, monkeypatch):
    spec = BlendSpec(blender="convex", parameters={"weights": "per_label"})
    workspace = blended_networks({"windows": "brain"}, {"windows": "bone"}, {"windows": "subdural"}, spec=spec)
    (path,) = workspace.layout.blends.glob("*/blend.json")
    weights = [[0.25, 0, 0, 1, 0.5, 0.5], [0] * 6, [0.75, 1, 1, 0, 0.5, 0.5]]
    learned = {"blender": {"weights_": weights}, "post_processing": []}
    write_json(json.loads(path.read_text(encoding="utf-8")) | {"learned": learned}, path)
    with monkeypatch.context() as everybody_runs:
        run_all = lambda spec, learned, members: (members, restore_blend(spec, learned, len(members)))  # noqa: E731
        everybody_runs.setattr(fold_ensemble, "restore_live", run_all)
        expected = predict_with_workspace(workspace, dicom)
    assert (expected.n_models, expected.n_left_out) == (9, 0)

    here = predict_with_workspace(workspace, dicom)
    written = write_bundle(ensemble_of(workspace), tmp_path / "bundle")
    there = predict_with_bundle(tmp_path / "bundle", dicom)

    for found in (here, there):
        assert (found.n_models, found.n_left_out) == (6, 1)
        pd.testing.assert_frame_equal(found.frame, expected.frame, check_exact=True)
    assert (written.n_members, written.n_models, written.n_left_out) == (2, 6, 1)


def test_the_slices_of_a_bundle_are_cached_where_asked_and_gone_at_the_end(bundle, dicom, tmp_path, monkeypatch):
    seen = []
    monkeypatch.setattr(module, "predict_folder", lambda e, d, out, s: seen.append(out) or predict_folder(e, d, out, s))
    predict_with_bundle(bundle, dicom, tmp_path / "a" / "b")
    assert seen[0].is_relative_to(tmp_path / "a" / "b")
    assert list((tmp_path / "a" / "b").iterdir()) == []
    monkeypatch.setattr(module, "member_predictions", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        predict_with_bundle(bundle, dicom, tmp_path / "a")
    assert [path.name for path in (tmp_path / "a").iterdir()] == ["b"]
    with pytest.raises(StorageError, match="cannot make a temporary folder"):
        predict_with_bundle(bundle, dicom, bundle / "bundle.json")


@pytest.mark.parametrize("harm", ["changed", "missing"])
def test_harmed_weights_are_named_before_a_file_is_read(bundle, dicom, monkeypatch, harm):
    path = sorted(bundle.rglob("fold_2.safetensors"))[-1]
    if harm == "changed":
        data = bytearray(path.read_bytes())
        data[-1] ^= 1
        path.write_bytes(data)
    else:
        path.unlink()
    monkeypatch.setattr(module, "prepare", lambda *_: pytest.fail("the files were read"))
    with pytest.raises(DataError, match=f"weights file {path} (has changed|is missing)"):
        predict_with_bundle(bundle, dicom)


def test_recipes_of_one_cache_share_it(bundle, dicom, monkeypatch):
    specs, prepare = [], module.prepare
    monkeypatch.setattr(module, "prepare", lambda spec: specs.append(spec) or prepare(spec))
    predict_with_bundle(bundle, dicom)
    assert [(spec.size_px, spec.crops) for spec in specs] == [(32, ("none",))]


def test_crops_are_found_in_whole_slices_of_the_size_that_training_found_them_in(
    blended_networks, fake_workspace, dicom, tmp_path
):
    workspace = fake_workspace()
    base = workspace.hu_cache.folder
    shutil.copytree(base, base.with_name("cropped"))
    about = json.loads((base / "cache.json").read_text(encoding="utf-8"))
    write_json({**about, "cache_id": "cropped", "crop": "head"}, base.with_name("cropped") / "cache.json")
    caches = [{**workspace.caches[0], "size_px": 64}, {"cache_id": "cropped", "size_px": 32, "crop": "head"}]
    write_json({**workspace.about, "size_px": 64, "caches": caches}, workspace.layout.workspace_json)
    ensemble = ensemble_of(blended_networks({"crop": "head"}, workspace=Workspace(workspace.layout.root)))
    write_bundle(ensemble, tmp_path / "bundle")

    assert predict_folder(read_bundle(tmp_path / "bundle"), dicom, tmp_path / "new").n_predicted > 0

    new = Workspace(tmp_path / "new")
    assert [(cache["size_px"], cache["crop"]) for cache in new.caches] == [(64, "none"), (32, "head")]


def test_a_second_call_with_a_workspace_reads_no_file_again(blended_networks, dicom, monkeypatch):
    workspace = blended_networks()
    first = predict_with_workspace(workspace, dicom)
    monkeypatch.setattr("ichtune.data.index.read_file", lambda *a: pytest.fail("a file was read again"))

    second = predict_with_workspace(workspace, dicom)

    pd.testing.assert_frame_equal(first.frame, second.frame, check_exact=True)
    assert len(list(workspace.layout.new.iterdir())) == 1


def test_runs_trained_since_the_blend_take_no_part(blended_networks, dicom):
    workspace = blended_networks()
    expected = predict_with_workspace(workspace, dicom).frame
    later = Recipe.from_dict({**ensemble_of(workspace).members[0].recipe.to_dict(), "windows": "bone"})
    shutil.copytree(workspace.layout.runs / workspace.run_ids()[0], workspace.layout.runs / later.recipe_id)

    pd.testing.assert_frame_equal(predict_with_workspace(workspace, dicom).frame, expected)


def test_one_slice_of_one_patient_is_enough_and_none_is_not(bundle, dicom, tmp_path):
    (tmp_path / "one").mkdir()
    readable = predict_with_bundle(bundle, dicom).frame.query("status == 'ok'")["path"].iloc[0]
    shutil.copy(dicom / readable, tmp_path / "one")
    assert predict_with_bundle(bundle, tmp_path / "one").n_predicted == 1
    (tmp_path / "none").mkdir()
    with pytest.raises(NothingUsableError):
        predict_with_bundle(bundle, tmp_path / "none")


def test_a_bundle_with_a_second_level_says_of_the_test_set_what_its_workspace_said(
    stacked_networks, write_untrained, tmp_path
):
    """From the same DICOM files: prepared, stacked and blended there, and read anew from the bundle here."""
    write_phantom(tmp_path / "phantom", PhantomSpec(n_patients=24, size_px=64), n_processes=1)
    labels = tmp_path / "phantom" / "stage_2_train.csv"
    prepare(PrepareSpec(dicom_dir=tmp_path / "phantom", labels=labels, out=tmp_path / "job", size_px=32, k=3))
    workspace = Workspace(tmp_path / "job")
    for seed, windows in enumerate(("brain", "subdural")):
        keys = {"architecture": "tiny_convnet", "image_px": 32, "batch_size": 8, "epochs": 1}
        write_untrained(workspace, Recipe(**keys, windows=windows), seed)
    workspace, _ = stacked_networks(
        {"model": "gaussian"}, {"model": "hist_gradient_boosting", "rounds": 5}, GRU, alone=True, workspace=workspace
    )
    (blend,) = workspace.layout.blends.glob("*/test.parquet")
    expected = pd.read_parquet(blend).set_index("image_id")[list(P_COLUMNS)]
    write_bundle(ensemble_of(workspace), tmp_path / "bundle")
    shutil.rmtree(workspace.layout.root)

    predictions = predict_with_bundle(tmp_path / "bundle", tmp_path / "phantom" / "stage_2_test")

    found = predictions.frame.query("status == 'ok'").set_index("image_id")[list(P_COLUMNS)]
    assert sorted(found.index) == sorted(expected.index)
    assert (predictions.n_models, predictions.n_left_out) == (15, 0)
    np.testing.assert_allclose(found.loc[expected.index], expected, rtol=0, atol=1e-6)
    assert expected.std().min() > 1e-3
