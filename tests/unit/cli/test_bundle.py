import json
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest

from ichtune.cli.main import main
from ichtune.report import bundle as bundle_module
from ichtune.report import fold_ensemble
from ichtune.report.bundle import BundleSummary


@pytest.fixture
def asked(monkeypatch):
    """What was to be written."""
    calls = []

    def write(ensemble, out, licence, *, replace_old, onnx_on):
        calls.append((ensemble.root, out, licence, replace_old))
        summary = BundleSummary(out, n_members=2, n_models=6, n_bytes=2_500_000, generated=True, n_left_out=3)
        if onnx_on is None:
            return summary
        return replace(summary, n_onnx=3, n_second_level=1, onnx_difference=2e-7)

    networks = (SimpleNamespace(folds=(1, 2, 3)),)
    monkeypatch.setattr(
        fold_ensemble, "ensemble_of", lambda workspace: SimpleNamespace(root=workspace.layout.root, networks=networks)
    )
    monkeypatch.setattr(bundle_module, "write_bundle", write)
    return calls


def test_it_writes_the_last_blend_and_names_the_next_command(asked, tmp_path, capsys):
    out = tmp_path / "my bundle"

    assert main(["bundle", "--work", str(tmp_path), "--out", str(out), "--licence", "CC BY 4.0", "--replace"]) == 0

    said = capsys.readouterr()
    assert asked == [(tmp_path, out, "CC BY 4.0", True)]
    assert "6 models of 2 recipes, 2.5 MB" in said.out
    assert said.err.splitlines() == [
        "recipes left out, since their weight in the blend is zero: 3; no prediction depends on them",
        f"next: ichtune predict DICOM_DIR --bundle '{out}'",
    ]


def test_a_missing_licence_is_remarked(asked, tmp_path, capsys):
    main(["bundle", "--work", str(tmp_path)])
    assert "no licence was given" in capsys.readouterr().err
    assert asked == [(tmp_path, Path("ichtune-bundle"), "", False)]


def test_json_and_quiet(asked, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    main(["bundle", "--work", str(tmp_path), "--out", "b", "--json", "--quiet"])
    said = capsys.readouterr()
    assert json.loads(said.out) == {
        "path": "b",
        "n_members": 2,
        "n_models": 6,
        "n_bytes": 2_500_000,
        "generated": True,
        "n_left_out": 3,
        "n_second_level": 0,
        "n_onnx": 0,
        "onnx_difference": None,
    }
    assert said.err == ""
    main(["bundle", "--work", str(tmp_path), "--quiet"])
    said = capsys.readouterr()
    assert said.out == "Wrote ichtune-bundle: 6 models of 2 recipes, 2.5 MB.\n"
    assert said.err == ""


def test_onnx_is_exported_and_compared(asked, tmp_path, capsys):
    assert main(["bundle", "--work", str(tmp_path), "--out", str(tmp_path / "b"), "--licence", "x", "--onnx"]) == 0
    said = capsys.readouterr()
    assert said.out.splitlines()[-1] == "ONNX: 3 networks, at most 2.0e-07 from torch in a probability."
    assert "exporting 3 networks as ONNX" in said.err
    assert "models of the second level are not exported as ONNX" in said.err


def test_without_its_packages_onnx_names_the_extra(asked, tmp_path, capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    assert main(["bundle", "--work", str(tmp_path), "--out", str(tmp_path / "b"), "--onnx"]) == 2
    said = capsys.readouterr().err
    assert "ONNX export needs the package onnxruntime" in said
    assert "pip install 'ichtune[onnx]'" in said
    assert asked == []


def test_a_place_that_cannot_be_written_is_known_before_the_models_are_looked_for(tmp_path, capsys):
    (tmp_path / "file").touch()
    assert main(["bundle", "--work", str(tmp_path / "none"), "--out", str(tmp_path / "file" / "b")]) == 5
    assert f"cannot write {tmp_path / 'file' / 'b'}" in capsys.readouterr().err
    assert main(["bundle", "--work", str(tmp_path / "none"), "--out", str(tmp_path)]) == 2
    assert "exists and is no bundle" in capsys.readouterr().err


def test_without_a_workspace_it_names_the_command(tmp_path, capsys):
    assert main(["bundle", "--work", str(tmp_path / "none")]) == 3
    assert "ichtune prepare" in capsys.readouterr().err
