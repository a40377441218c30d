import json

import pandas as pd
import pytest

from ichtune.cli.main import main
from ichtune.report import predict_folder as module
from ichtune.report.predict_folder import FolderPredictions
from ichtune.tables import P_COLUMNS


@pytest.fixture
def predicted(monkeypatch):
    frame = pd.DataFrame(
        {"image_id": ["a", "b"], "path": ["a", "b"], "status": ["ok", "refused"], "reason": ["", "why"]}
    )
    frame = frame.assign(**{column: [0.5, None] for column in P_COLUMNS})
    monkeypatch.setattr(module, "predict_folder", lambda work, folder, on_step: FolderPredictions(frame, 1, 1, 6))


def test_it_writes_a_row_a_file_and_says_what_was_refused(predicted, tmp_path, capsys):
    out = tmp_path / "new.csv"

    assert main(["predict", "somewhere", "--out", str(out), "--work", str(tmp_path)]) == 0

    said = capsys.readouterr()
    assert "1 slices predicted by 6 models" in said.out
    assert "1 files could not be read" in said.err
    assert pd.read_csv(out)["image_id"].tolist() == ["a", "b"]


def test_json_counts_them(predicted, tmp_path, capsys):
    out = tmp_path / "new.csv"

    main(["predict", "somewhere", "--out", str(out), "--work", str(tmp_path), "--json"])

    assert json.loads(capsys.readouterr().out) == {"predicted": 1, "refused": 1, "models": 6, "out": str(out)}


def test_it_names_what_is_missing(tmp_path, capsys):
    assert main(["predict", "somewhere", "--work", str(tmp_path / "none")]) == 3
    assert "ichtune prepare" in capsys.readouterr().err
