import json
import shutil
import sys
from dataclasses import replace

import numpy as np
import pytest
import torch

from ichtune.ensemble.post_processing.any_at_least_max import AnyAtLeastMax
from ichtune.ensemble.post_processing.chain import Chain, Link
from ichtune.ensemble.post_processing.isotonic import Isotonic
from ichtune.ensemble.spec import BlendSpec
from ichtune.errors import ConfigError, DataError, StorageError
from ichtune.labels import LABELS
from ichtune.report import bundle as module
from ichtune.report.bundle import read_bundle, write_bundle
from ichtune.report.fold_ensemble import FoldEnsemble, ensemble_of
from ichtune.report.member_predictions import member_predictions
from ichtune.tables import write_json
from ichtune.training.checkpoint import load_checkpoint
from ichtune.training.predict import load_model
from ichtune.workspace import Workspace

pytestmark = pytest.mark.slow  # whole workspaces are searched, trained, blended or drawn

PER_LABEL = BlendSpec(blender="convex", parameters={"weights": "per_label"}, clip=1e-4)


def files_of(folder):
    return sorted(path for path in folder.rglob("*") if path.is_file())


def post_processing():
    """Steps that nine patients would not be enough for."""
    rng = np.random.default_rng(1)
    p, y = rng.random((200, 6)), rng.integers(0, 2, (200, 6)).astype(float)
    return Chain((Link(Isotonic().fit(p, y), LABELS[1:]), Link(AnyAtLeastMax(), LABELS[:1])))


@pytest.fixture
def made(blended_networks, tmp_path):
    """A bundle, and the workspace's own ensemble."""
    ensemble = ensemble_of(blended_networks(spec=PER_LABEL))
    ensemble = replace(ensemble, blend=replace(ensemble.blend, chain=post_processing()))
    write_bundle(ensemble, tmp_path / "bundle", "CC BY 4.0")
    return tmp_path / "bundle", ensemble


def test_a_bundle_reads_back_as_the_ensemble_that_it_was_made_from(made):
    folder, ensemble = made
    read = read_bundle(folder)
    p_MNL = np.random.default_rng(0).random((2, 50, 6))
    np.testing.assert_array_equal(read.blend.predict(p_MNL), ensemble.blend.predict(p_MNL))
    assert np.abs(read.blend.predict(p_MNL) - read.blend.blend(p_MNL)).max() > 0.01
    for field in ("caches", "fold_plan_hash", "trained_on"):
        assert getattr(read, field) == getattr(ensemble, field)
    assert [(m.recipe_id, m.name, m.recipe) for m in read.members] == [
        (m.recipe_id, m.name, m.recipe) for m in ensemble.members
    ]
    for own, bundled in zip(ensemble.weights, read.weights, strict=True):
        bundled.check()
        assert bundled.fold == own.fold
        tensors = load_checkpoint(own.path, "weights")[0]
        copied, about = load_checkpoint(bundled.path, "weights")
        assert all(torch.equal(copied[name], tensor) for name, tensor in tensors.items())
        assert copied.keys() == tensors.keys()
        assert about["fold_plan_hash"] == ensemble.fold_plan_hash
        load_model(bundled.path, torch.device("cpu"))


def test_bundle_json_says_what_there_is(made):
    folder, ensemble = made
    about = json.loads((folder / "bundle.json").read_text(encoding="utf-8"))
    assert {"schema_version", "ichtune_version", "bundle_format"} <= about.keys()
    assert about["labels"][0] == "any"
    assert about["generated"] is True
    assert about["licence"] == "CC BY 4.0"
    assert about["caches"] == [{"crop": "none", "size_px": 32}]
    assert about["trained_on"]["n_patients"] == 9
    assert about["trained_on"]["crossfit_loss"] == ensemble.trained_on.crossfit_loss
    assert "CC BY 4.0" in (folder / "MODEL_CARD.md").read_text(encoding="utf-8")
    assert len(files_of(folder)) == 2 + 6


def test_whoever_may_read_one_file_of_it_may_read_all(made):
    assert len({path.stat().st_mode for path in files_of(made[0])}) == 1


def test_nothing_of_the_training_data_is_in_it(blended_networks, tmp_path):
    """Not even where a recipe names a file of the workspace, or a sidecar lists whom a model has learnt from."""
    start = str(tmp_path / "work" / "runs" / "P000" / "start.safetensors")
    workspace = blended_networks({"warm_start": start}, {"pretrained": start}, {"pseudo_labels": "C:\\P000\\p.parquet"})
    ensemble = ensemble_of(workspace)
    told = [member for member in ensemble.members if start.encode() in member.folds[0].path.read_bytes()]
    assert len(told) == 2, "the workspace's own files name it"
    slices = workspace.slices
    marks = {
        mark
        for weights in ensemble.weights
        for mark in json.loads(weights.path.with_suffix(".json").read_text(encoding="utf-8"))["learnt_from"]
    }
    private = {*slices["image_id"], *slices["patient_id"], *slices["series_instance_uid"], *marks, str(tmp_path)}
    private |= {"labels_sha256", "labels.csv"}

    write_bundle(ensemble, tmp_path / "bundle")

    for path in files_of(tmp_path / "bundle"):
        data = path.read_bytes()
        assert [text for text in private if text.encode() in data] == [], path
    recipes = [member.recipe for member in read_bundle(tmp_path / "bundle").members]
    told = {recipe.warm_start or recipe.pretrained or recipe.pseudo_labels for recipe in recipes}
    assert told == {"start.safetensors", "p.parquet"}


def test_a_bundle_is_not_overwritten_in_passing(made):
    folder, ensemble = made
    with pytest.raises(ConfigError, match=r"exists; add --replace"):
        write_bundle(ensemble, folder)
    left = folder / "weights" / "of_an_older_blend" / "fold_0.safetensors"
    left.parent.mkdir()
    left.touch()
    write_bundle(ensemble, folder, "mine", replace_old=True)
    assert not left.parent.exists()
    assert json.loads((folder / "bundle.json").read_text(encoding="utf-8"))["licence"] == "mine"
    assert [path.name for path in folder.parent.iterdir() if path.name.startswith(".")] == []


def test_what_is_no_bundle_is_never_replaced(made, tmp_path):
    other = tmp_path / "photographs"
    other.mkdir()
    with pytest.raises(ConfigError, match="exists and is no bundle"):
        write_bundle(made[1], other, replace_old=True)
    assert other.is_dir()


@pytest.mark.parametrize(
    "name", ["my_notes.txt", "weights/my_notes.txt", "weights/a/bundle.json", "more/weights/a/fold_0.safetensors"]
)
def test_a_folder_with_other_files_is_never_replaced(made, name):
    folder, ensemble = made
    (folder / name).parent.mkdir(parents=True, exist_ok=True)
    (folder / name).write_text("mine", encoding="utf-8")
    before = files_of(folder)
    with pytest.raises(ConfigError, match=f"holds {name}, which is no part of a bundle"):
        write_bundle(ensemble, folder, replace_old=True)
    assert files_of(folder) == before


def test_a_place_that_cannot_be_written_is_known_before_the_weights_are_read(made, tmp_path, monkeypatch):
    monkeypatch.setattr(module, "write_member", lambda *_: pytest.fail("the weights were read"))
    made[1].weights[0].path.unlink()
    (tmp_path / "file").touch()
    with pytest.raises(StorageError, match=f"cannot write {tmp_path / 'file' / 'bundle'}"):
        write_bundle(made[1], tmp_path / "file" / "bundle")


def test_what_was_left_out_is_said_and_zero_weights_do_not_run(made, tmp_path):
    folder, ensemble = made
    written = write_bundle(replace(ensemble, n_left_out=2), folder, replace_old=True)
    assert (written.n_left_out, read_bundle(folder).n_left_out) == (2, 2)
    assert "their weight is zero: 2." in (folder / "MODEL_CARD.md").read_text(encoding="utf-8")
    about = json.loads((folder / "bundle.json").read_text(encoding="utf-8"))
    about["n_left_out"] = 0
    about["blend"]["learned"]["blender"] = {"weights_": [[0] * 6, [1] * 6]}
    write_json(about, folder / "bundle.json")
    read = read_bundle(folder)
    assert (read.members, read.n_left_out) == (read_bundle(folder).members[-1:], 1)
    assert read.members[0].recipe_id == about["members"][1]["recipe_id"]


@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), KeyboardInterrupt()])
def test_a_bundle_is_whole_or_not_there(made, tmp_path, monkeypatch, error):
    def fail(*_):
        raise error

    monkeypatch.setattr(module, "model_card", fail)
    with pytest.raises(StorageError if isinstance(error, OSError) else KeyboardInterrupt):
        write_bundle(made[1], tmp_path / "other")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["bundle", "work"]
    with pytest.raises(StorageError if isinstance(error, OSError) else KeyboardInterrupt):
        write_bundle(made[1], made[0], replace_old=True)
    assert isinstance(read_bundle(made[0]), FoldEnsemble)


def test_missing_weights_are_named_before_anything_is_written(made, tmp_path):
    made[1].weights[4].path.unlink()
    with pytest.raises(DataError, match=f"{made[1].weights[4].path} is missing"):
        write_bundle(made[1], tmp_path / "other")
    assert not (tmp_path / "other").exists()


def test_a_folder_without_a_bundle_is_named(tmp_path):
    with pytest.raises(DataError, match=r"none does not exist; name a folder that `ichtune bundle` wrote"):
        read_bundle(tmp_path / "none")
    with pytest.raises(DataError, match=r"holds no bundle.json"):
        read_bundle(tmp_path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"unweighted": None}, "damaged or of another version"),
        ({"account": {}}, "damaged or of another version"),
        ({"bundle_format": 99}, "bundle_format 99, expected 2"),
        ({"labels": ["subdural", "any"]}, "has labels"),
        ({"members": [{"recipe_id": "a"}]}, "damaged or of another version"),
        ({"blend": {"spec": {"blender": "witchcraft"}, "learned": {}}}, "witchcraft"),
        ({"trained_on": {}}, "damaged or of another version"),
    ],
)
def test_a_bundle_that_cannot_be_used_says_why(made, change, message):
    path = made[0] / "bundle.json"
    write_json(json.loads(path.read_text(encoding="utf-8")) | change, path)
    with pytest.raises(DataError, match=message):
        read_bundle(made[0])


@pytest.mark.parametrize("file", ["../work/secret.safetensors", "/etc/weights.safetensors"])
def test_weights_outside_of_the_bundle_are_refused(made, file):
    path = made[0] / "bundle.json"
    about = json.loads(path.read_text(encoding="utf-8"))
    about["members"][0]["folds"][0]["file"] = file
    write_json(about, path)
    with pytest.raises(DataError, match="does not lie in the bundle"):
        read_bundle(made[0])


def test_a_bundle_can_be_moved(made, tmp_path):
    shutil.move(made[0], tmp_path / "elsewhere")
    shutil.rmtree(tmp_path / "work")
    for weights in read_bundle(tmp_path / "elsewhere").weights:
        weights.check()
    with pytest.raises(DataError, match="does not exist"):
        _ = Workspace(tmp_path / "work").about


def second_level_bundle(stacked_networks, folder, **settings):
    workspace, stacked = stacked_networks(**settings)
    ensemble = ensemble_of(workspace)
    write_bundle(ensemble, folder)
    return workspace, stacked, ensemble


def test_a_second_level_goes_with_the_networks_that_it_needs(stacked_networks, tmp_path):
    workspace, _, ensemble = second_level_bundle(stacked_networks, tmp_path / "bundle", alone=True)
    shutil.move(workspace.layout.root, tmp_path / "gone")
    read = read_bundle(tmp_path / "bundle")
    assert [member.recipe for member in read.stacked] == [member.recipe for member in ensemble.stacked]
    assert [member.members for member in read.stacked] == [member.members for member in ensemble.stacked]
    assert [one.recipe_id for one in read.unweighted] == [one.recipe_id for one in ensemble.unweighted]
    assert (len(read.weights), len(read.unweighted), read.n_left_out) == (12, 2, 0)
    assert read.account == ensemble.account
    assert read.caches == ensemble.caches
    for weights in read.weights:
        weights.check()
    for member in read.stacked:
        assert member.load().members == member.members
    moved = Workspace(tmp_path / "gone")
    rows = moved.unlabelled.index.to_numpy()
    np.testing.assert_array_equal(
        read.blend.predict(member_predictions(read, moved, rows)),
        ensemble.blend.predict(member_predictions(ensemble_of(moved), moved, rows)),
    )


def test_nothing_of_the_training_data_is_in_a_second_level(stacked_networks, tmp_path):
    workspace, stacked, _ = second_level_bundle(stacked_networks, tmp_path / "bundle")
    record = workspace.run_about(stacked[0])
    slices = workspace.slices
    private = {*slices["image_id"], *slices["patient_id"], *slices["series_instance_uid"], str(tmp_path)}
    private |= {record["labels_sha256"], record["rows_id"], *record["members"].values(), "labels_sha256"}
    for path in files_of(tmp_path / "bundle"):
        data = path.read_bytes()
        assert [text for text in private if text.encode() in data] == [], path


def test_the_names_of_members_are_no_paths(stacked_networks, tmp_path):
    workspace, _ = stacked_networks(alone=True)
    ensemble = ensemble_of(workspace)
    spec = replace(ensemble.blend.spec, members=("secret/folder/mine.yaml", {"search": "windows"}))
    write_bundle(replace(ensemble, blend=replace(ensemble.blend, spec=spec)), tmp_path / "bundle")
    assert "secret" not in (tmp_path / "bundle" / "bundle.json").read_text(encoding="utf-8")
    assert read_bundle(tmp_path / "bundle").blend.spec.members == tuple(one.recipe_id for one in ensemble.members)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda about: about["unweighted"].pop(), "needs the networks of .*, which it does not hold"),
        (lambda about: about["unweighted"][0]["folds"].pop(), r"must have a model of each fold, got \[2, 3\] models"),
        (lambda about: about["members"][0]["folds"].pop(0), r"must have the models of folds 0, 1, ..., got \[1, 2\]"),
        (lambda about: about["members"][0].pop("members"), "damaged or of another version: 'members'"),
        (lambda about: about["members"][0]["members"].append(about["members"][1]["recipe_id"]), "networks alone"),
    ],
)
def test_a_second_level_without_all_its_parts_is_refused(stacked_networks, tmp_path, change, message):
    second_level_bundle(stacked_networks, tmp_path / "bundle", alone=True)
    path = tmp_path / "bundle" / "bundle.json"
    about = json.loads(path.read_text(encoding="utf-8"))
    change(about)
    write_json(about, path)
    with pytest.raises(DataError, match=message):
        read_bundle(tmp_path / "bundle")


def test_a_network_of_zero_weight_stays_where_a_second_level_needs_it(stacked_networks, tmp_path):
    _, stacked, _ = second_level_bundle(stacked_networks, tmp_path / "bundle")
    path = tmp_path / "bundle" / "bundle.json"
    about = json.loads(path.read_text(encoding="utf-8"))
    of_second = [[float(member["recipe_id"] in stacked)] * 6 for member in about["members"]]
    about["blend"]["learned"]["blender"] = {"weights_": of_second}
    about["blend"]["spec"] |= {"blender": "convex", "parameters": {}}
    write_json(about, path)
    read = read_bundle(tmp_path / "bundle")
    assert sorted(member.recipe_id for member in read.members) == sorted(stacked)
    assert (len(read.unweighted), read.n_left_out) == (2, 0)


def test_onnx_that_is_not_installed_is_known_before_anything_is_written(made, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "onnxscript", None)
    with pytest.raises(ConfigError, match=r"pip install 'ichtune\[onnx\]'"):
        write_bundle(made[1], tmp_path / "other", onnx_on=Workspace(tmp_path / "work"))
    assert not (tmp_path / "other").exists()


@pytest.mark.slow  # an export takes seconds
def test_networks_are_exported_as_onnx_and_the_bundle_still_predicts(stacked_networks, tmp_path, capfd):
    workspace, _ = stacked_networks(alone=True)
    ensemble = ensemble_of(workspace)
    written = write_bundle(ensemble, tmp_path / "bundle", onnx_on=workspace)
    assert (written.n_onnx, written.n_second_level) == (6, 2)
    assert written.onnx_difference <= 1e-4
    assert capfd.readouterr().out == "", "stdout is for results"
    about = json.loads((tmp_path / "bundle" / "bundle.json").read_text(encoding="utf-8"))
    graphs = sorted(fold["onnx"]["file"] for member in about["unweighted"] for fold in member["folds"])
    assert graphs == sorted(str(path.relative_to(tmp_path / "bundle")) for path in tmp_path.glob("bundle/onnx/*/*"))
    write_bundle(read_bundle(tmp_path / "bundle"), tmp_path / "bundle", replace_old=True)
    assert not (tmp_path / "bundle" / "onnx").exists()
