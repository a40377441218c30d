import json
from pathlib import Path

import pandas as pd
import pytest

from ichtune.cli.main import main
from ichtune.report import predict_folder as module
from ichtune.report.predict_folder import FolderPredictions
from ichtune.tables import P_COLUMNS


def predictions(generated=False, n_left_out=0):
    frame = pd.DataFrame(
        {"image_id": ["a", "b"], "path": ["a", "b"], "status": ["ok", "refused"], "reason": ["", "why"]}
    )
    frame = frame.assign(**{column: [0.5, None] for column in P_COLUMNS})
    counts = {"n_predicted": 1, "n_refused": 1, "n_series": 1, "n_models": 6, "n_left_out": n_left_out}
    return FolderPredictions(frame, generated=generated, **counts)


@pytest.fixture
def asked(monkeypatch):
    """What the two ways of predicting were asked for."""
    calls = []

    def with_workspace(workspace, folder, on_step):
        calls.append(("workspace", workspace.layout.root, folder))
        on_step(6, 6)
        return predictions()

    def with_bundle(bundle, folder, work_dir, on_step):
        calls.append(("bundle", bundle, folder, work_dir))
        on_step(6, 6)
        return predictions(generated=True, n_left_out=3)

    monkeypatch.setattr(module, "predict_with_workspace", with_workspace)
    monkeypatch.setattr(module, "predict_with_bundle", with_bundle)
    return calls


def test_it_writes_a_row_a_file_and_says_what_was_refused_and_what_is_next(asked, tmp_path, capsys):
    out = tmp_path / "new.csv"

    assert main(["predict", "somewhere", "--out", str(out), "--work", str(tmp_path)]) == 0

    said = capsys.readouterr()
    assert "1 slices of 1 series predicted by 6 models" in said.out
    assert "1 files could not be read" in said.err
    assert "did not run" not in said.err
    assert said.err.splitlines()[-1] == f"next: ichtune report --work {tmp_path}"
    assert pd.read_csv(out)["image_id"].tolist() == ["a", "b"]
    assert asked == [("workspace", tmp_path, Path("somewhere"))]


def test_a_bundle_is_used_without_a_workspace(asked, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)

    assert main(["predict", "somewhere", "--bundle", "b", "--work-dir", "scratch"]) == 0

    said = capsys.readouterr()
    assert asked == [("bundle", Path("b"), Path("somewhere"), Path("scratch"))]
    assert "trained on generated data (phantom)" in said.err
    assert "recipes that did not run, since their weight in the blend is zero: 3;" in said.err
    assert said.err.splitlines()[-1].startswith("next: open predictions.csv")
    assert (tmp_path / "predictions.csv").is_file()


def test_a_folder_for_the_cache_needs_a_bundle(asked, tmp_path, capsys):
    assert main(["predict", "somewhere", "--work", str(tmp_path), "--work-dir", "scratch"]) == 2
    assert "--work-dir goes with --bundle only" in capsys.readouterr().err
    assert asked == []


def test_a_file_that_cannot_be_written_is_known_before_anything_runs(asked, tmp_path, capsys):
    (tmp_path / "file").touch()
    for where in (("--work", str(tmp_path)), ("--bundle", "b")):
        assert main(["predict", "somewhere", "--out", str(tmp_path / "file" / "new.csv"), *where]) == 5
        assert f"cannot write {tmp_path / 'file' / 'new.csv'}" in capsys.readouterr().err
    assert asked == []


def test_json_counts_them_and_quiet_says_no_more(asked, tmp_path, capsys):
    out = tmp_path / "new.csv"

    main(["predict", "somewhere", "--out", str(out), "--bundle", "b", "--json", "--quiet"])

    said = capsys.readouterr()
    counts = {"predicted": 1, "refused": 1, "series": 1, "models": 6, "generated": True, "out": str(out)}
    assert json.loads(said.out) == counts
    assert said.err.splitlines() == [f"1 files could not be read; their rows in {out} say why"]


def test_the_help_names_every_column_in_order(capsys):
    main(["predict", "--help"])
    said = " ".join(capsys.readouterr().out.split()).split("Its columns:")[1]
    places = [said.index(f" {column}") for column in (*module.ABOUT_COLUMNS, *P_COLUMNS)]
    assert places == sorted(places)
    assert module.SERIES_P_COLUMNS[0] in said
    assert module.SERIES_P_COLUMNS[-1] in said


def test_it_names_what_is_missing(tmp_path, capsys):
    assert main(["predict", "somewhere", "--work", str(tmp_path / "none")]) == 3
    assert "ichtune prepare" in capsys.readouterr().err
    assert main(["predict", "somewhere", "--bundle", str(tmp_path / "none")]) == 3
    assert "`ichtune bundle`" in capsys.readouterr().err
