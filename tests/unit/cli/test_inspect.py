import json
from pathlib import Path

import pytest

from ichtune.cli.inspect import picture_name, read_window_sets
from ichtune.cli.main import main
from ichtune.errors import ConfigError
from ichtune.windows import WINDOW_SETS, Window
from ichtune.workspace import Workspace

pytestmark = pytest.mark.slow  # whole workspaces are searched, trained, blended or drawn


@pytest.fixture
def work(fake_workspace) -> Path:
    return fake_workspace(n_patients=3, n_test_patients=1, k=2).layout.root


def listed(*arguments: str | Path, capsys: pytest.CaptureFixture[str]) -> dict:
    assert main(["inspect", *map(str, arguments), "--json"]) == 0
    return json.loads(capsys.readouterr().out)


def test_without_a_name_it_counts_and_draws_an_example(work, capsys):
    assert main(["inspect", "--work", str(work)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == f"Data card of {work} (generated data)"
    assert lines[-1] == f"Next: ichtune audit --work {work}"
    wrote = [Path(line.removeprefix("Wrote ")) for line in lines if line.startswith("Wrote ")]
    assert wrote[0] == work / "inspect" / "data_card.png"
    assert len(wrote) == 2
    assert all(path.is_file() for path in wrote)


def test_json_has_the_card_the_series_and_the_files(work, tmp_path, capsys):
    found = listed("--work", work, "--out", tmp_path / "pictures", "--windows", "brain", capsys=capsys)
    assert found["card"]["counts"]["rows"] == len(Workspace(work).slices)
    assert [Path(path).is_file() for path in found["files"]] == [True, True]
    assert Path(found["files"][0]).parent == tmp_path / "pictures"
    assert found["series"][0]["slices"] == 5


def test_a_patients_series_are_drawn_and_nothing_is_counted(work, capsys):
    found = listed("--work", work, "--patient", "P000", "--windows", "brain", capsys=capsys)
    assert found["card"] is None
    assert {series["patient_id"] for series in found["series"]} == {"P000"}
    assert len(found["files"]) == len(found["series"]) >= 1


def test_quiet_writes_the_pictures_and_says_nothing(work, capsys):
    assert main(["inspect", "--work", str(work), "--image", "ID_000003", "--windows", "brain", "--quiet"]) == 0
    assert capsys.readouterr() == ("", "")
    assert len(list((work / "inspect").glob("series_*.png"))) == 1


@pytest.mark.parametrize(
    ("options", "code", "said"),
    [
        (["--image", "ID_999999"], 3, "no image is called 'ID_999999'"),
        (["--series", "x", "--patient", "y"], 2, "give one of them"),
        (["--windows", "brian"], 2, "Did you mean 'brain'"),
        (["--crop", "heads"], 2, "Did you mean 'head'"),
        (["--crop", "head", "--image", "ID_000003"], 3, "has no cache with crop 'head'"),
        (["--work", "nowhere"], 3, "ichtune prepare"),
    ],
)
def test_what_cannot_be_shown_is_one_message(work, capsys, options, code, said):
    assert main(["inspect", "--work", str(work), *options]) == code
    captured = capsys.readouterr()
    assert said in captured.err
    assert captured.out == ""


def test_window_sets_are_read_by_name_or_by_numbers_once_each():
    assert read_window_sets("brain, bone,brain") == [WINDOW_SETS["brain"], WINDOW_SETS["bone"]]
    assert read_window_sets("40/80+80/200") == [(Window(40, 80), Window(80, 200))]
    for wrong in ("", "40/x", "40/80/2", "40/0"):
        with pytest.raises(ConfigError):
            read_window_sets(wrong)


def test_picture_names_hold_nothing_that_a_path_would_read():
    assert picture_name("1.2.3~2") == "series_1.2.3~2.png"
    assert picture_name("../a b", "head") == "series_.._a_b_head_crop.png"
    assert len(picture_name("1" * 500)) < 120
