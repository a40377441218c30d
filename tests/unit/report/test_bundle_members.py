import json
from dataclasses import replace

import pytest
import torch

from ichtune.data.cache.hu_cache import file_sha256
from ichtune.report import bundle_members as module
from ichtune.report.bundle_members import read_member, write_member
from ichtune.report.fold_ensemble import ensemble_of
from ichtune.report.onnx_export import ExportedFold
from ichtune.second_level.state_file import load_state
from ichtune.training.checkpoint import load_checkpoint

pytestmark = pytest.mark.slow  # whole workspaces are searched, trained, blended or drawn


@pytest.fixture
def ensemble(stacked_networks):
    return ensemble_of(stacked_networks()[0])


def test_members_of_both_levels_read_back(ensemble, tmp_path):
    for member in ensemble.members:
        told = json.loads(json.dumps(write_member(member, tmp_path).told))
        read = read_member(tmp_path, told)
        assert replace(read, folds=()) == replace(member, folds=())
        for weights, fold in zip(read.folds, told["folds"], strict=True):
            weights.check()
            assert weights.path == tmp_path / fold["file"]
            assert weights.sha256 == fold["sha256"] == file_sha256(weights.path)
            assert "onnx" not in fold


def test_a_network_keeps_its_tensors_and_says_nothing_of_its_data(ensemble, tmp_path):
    member = ensemble.networks[0]
    write_member(member, tmp_path)
    for weights in member.folds:
        tensors, _ = load_checkpoint(weights.path, "weights")
        copied, about = load_checkpoint(
            tmp_path / "weights" / member.recipe_id / f"fold_{weights.fold}.safetensors", "weights"
        )
        assert all(torch.equal(copied[name], tensor) for name, tensor in tensors.items())
        assert not {"labels_sha256", "cache_id", "learnt_from"} & about.keys()


def test_a_second_level_keeps_its_arrays_and_says_nothing_of_its_inputs(ensemble, tmp_path):
    for member in ensemble.stacked:
        write_member(member, tmp_path)
        for weights in member.folds:
            arrays, told = load_state(weights.path, "weights")
            copied, about = load_state(
                tmp_path / "weights" / member.recipe_id / f"fold_{weights.fold}.safetensors", "weights"
            )
            assert all((copied[name] == array).all() for name, array in arrays.items())
            assert copied.keys() == arrays.keys()
            assert "inputs" in told
            assert "inputs" not in about
            assert (about["members"], about["model"]) == (told["members"], told["model"])


@pytest.mark.parametrize("file", ["../weights/a.safetensors", "/etc/weights.safetensors"])
def test_files_out_of_the_bundle_are_refused(ensemble, tmp_path, file):
    told = write_member(ensemble.stacked[0], tmp_path).told
    told["folds"][0]["file"] = file
    with pytest.raises(ValueError, match="does not lie in the bundle"):
        read_member(tmp_path, told)


def test_folds_are_counted_from_zero(ensemble, tmp_path):
    told = write_member(ensemble.networks[0], tmp_path).told
    for folds in ([], told["folds"][1:], told["folds"][::-1]):
        with pytest.raises(ValueError, match="must have the models of folds 0, 1"):
            read_member(tmp_path, {**told, "folds": folds})


def test_graphs_of_networks_lie_beside_their_weights(ensemble, tmp_path, monkeypatch):
    def export(weights, out, slices):
        out.parent.mkdir(parents=True, exist_ok=True)
        out.write_bytes(weights.read_bytes()[:9])
        return ExportedFold(("hu",), 1e-7 * int(weights.stem[-1]))

    monkeypatch.setattr(module, "export_fold", export)
    for member in ensemble.members:
        written = write_member(member, tmp_path, onnx_on=object())
        if member in ensemble.stacked:
            assert written.onnx_differences == ()
            assert not any("onnx" in fold for fold in written.told["folds"])
            continue
        assert written.onnx_differences == (0.0, 1e-7, 2e-7)
        told = written.told["folds"][2]["onnx"]
        assert told["file"] == f"onnx/{member.recipe_id}/fold_2.onnx"
        assert told["sha256"] == file_sha256(tmp_path / told["file"])
        assert (told["inputs"], told["largest_difference"]) == (["hu"], 2e-7)
