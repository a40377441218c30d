import json

import pytest

from ichtune.cli.main import main


@pytest.fixture
def made(make_blend_workspace, tmp_path, monkeypatch):
    made = make_blend_workspace(noises=(1.0, 1.1))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("ICHTUNE_WORK", str(made.root))
    for name, frame in zip(("oof.csv", "test.csv"), made.predictions("r8", 0.9), strict=True):
        frame.drop(columns="recipe_id").to_csv(name, index=False)
    return made


ADD = ["ensemble", "add", "oof.csv", "--name", "theirs", "--fold-plan", "this", "--test", "test.csv"]


def test_predictions_are_added_listed_blended_and_removed(made, capsys):
    assert main(ADD) == 0
    shown = capsys.readouterr()
    assert "Added theirs as run " in shown.out
    assert "on 300 labelled slices; 119 slices without a label" in shown.out
    assert shown.err.splitlines()[-1] == "next: ichtune blend"
    assert main(ADD) == 0
    assert "Kept theirs as run " in capsys.readouterr().out
    assert main(["ensemble", "list"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert sorted(line.split()[1] for line in lines) == ["added", "trained", "trained"]
    assert main(["blend", "--ensemble", "mean", "--json"]) == 0
    assert "theirs" in [member["name"] for member in json.loads(capsys.readouterr().out)["members"]]
    assert main(["ensemble", "remove", "theirs"]) == 0
    assert capsys.readouterr().err.startswith("removed run ")
    assert main(["ensemble", "remove", "theirs"]) == 2
    assert "no predictions were added as 'theirs'" in capsys.readouterr().err


def test_json_is_all_there_is_on_stdout(made, capsys):
    assert main([*ADD, "--json"]) == 0
    added = json.loads(capsys.readouterr().out)
    assert {"recipe_id", "name", "oof_loss", "is_new", "notes"} <= set(added)
    assert main(["ensemble", "list", "--json"]) == 0
    rows = json.loads(capsys.readouterr().out)
    assert [row["name"] for row in rows if row["foreign"]] == ["theirs"]


def test_another_plan_ends_as_a_contradiction(made, capsys):
    assert main([*ADD[:6], "0123456789abcdef", *ADD[7:]]) == 4
    assert "is not this workspace's" in capsys.readouterr().err


def test_rows_that_are_ignored_are_told(made, capsys):
    refused = made.slices.loc[made.slices["status"] == "refused", "image_id"].iloc[0]
    with open("oof.csv", encoding="utf-8") as file:
        header, first, *rest = file.read().splitlines()
    own = first.split(",")
    own[header.split(",").index("image_id")] = refused
    own[header.split(",").index("fold")] = "1"
    with open("oof.csv", "w", encoding="utf-8") as file:
        file.write("\n".join([header, first, *rest, ",".join(own)]) + "\n")
    assert main(ADD) == 0
    assert f"are ignored: row 301 '{refused}'" in capsys.readouterr().err


def test_nothing_to_list_is_an_error(make_blend_workspace, capsys):
    made = make_blend_workspace(noises=())
    assert main(["ensemble", "list", "--work", str(made.root)]) == 3
    assert "`ichtune ensemble add`" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["add", "list", "remove"])
def test_every_command_explains_itself_with_an_example(name, capsys):
    assert main(["ensemble", name, "--help"]) == 0
    assert f"Example: ichtune ensemble {name}" in capsys.readouterr().out
