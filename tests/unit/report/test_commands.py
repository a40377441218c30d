import json

import pytest

from ichtune.ensemble.blend import run_blend
from ichtune.ensemble.members.foreign import add_predictions
from ichtune.ensemble.spec import read_spec
from ichtune.errors import DataError
from ichtune.report.commands import nested, redo_commands, search_starts
from ichtune.second_level.stacking_runs import stack
from ichtune.second_level_recipe import SecondLevelRecipe
from ichtune.shipped import shipped_files
from ichtune.tables import write_json

pytestmark = pytest.mark.slow  # whole workspaces are searched, trained, blended or drawn


def set_about(made, **values):
    path = made.open().layout.workspace_json
    write_json({**json.loads(path.read_text(encoding="utf-8")), **values}, path)


def test_the_whole_job_in_order(full_workspace):
    spec = {"n_patients": 42, "size_px": 8, "difficulty": 1.0, "seed": 5, "test_fraction": 0.25}
    (full_workspace.root / "phantom").mkdir()
    write_json({"spec": spec}, full_workspace.root / "phantom" / "phantom.json")
    workspace = full_workspace.open()
    run_blend(workspace, read_spec(shipped_files("ensembles")["demo"]))
    commands, notes = redo_commands(workspace)
    assert commands == [
        "ichtune phantom work/phantom --patients 42 --size 8 --difficulty 1.0 --seed 5 --test-fraction 0.25",
        "ichtune prepare work/phantom --labels work/phantom/labels.csv --out work --size 8 --folds 3 --seed 3",
        "ichtune search --space windows --work work",
        "ichtune train --recipe RECIPE.yaml --work work  # r0",
        "ichtune train --recipe RECIPE.yaml --work work  # r1",
        "ichtune train --recipe RECIPE.yaml --work work  # r2",
        "ichtune blend --ensemble demo --work work",
        "ichtune report --work work",
    ]
    assert notes == []


def test_every_size_and_crop_is_prepared_again(full_workspace):
    caches = [
        {"cache_id": "cache1", "size_px": 8, "crop": "none"},
        {"cache_id": "a", "size_px": 16, "crop": "head"},
        {"cache_id": "b", "size_px": 8, "crop": "tight"},
    ]
    set_about(full_workspace, caches=caches)
    commands, _ = redo_commands(full_workspace.open())
    prepared = [command.partition("--out work")[2] for command in commands if command.startswith("ichtune prepare")]
    assert prepared == [
        " --size 8 --crop none,tight --folds 3 --seed 3",
        " --size 16 --crop head --folds 3 --seed 3",
    ]


def test_one_folder_of_a_phantom_leads_to_the_whole_of_it(full_workspace):
    train = full_workspace.root / "phantom" / "stage_2_train"
    train.mkdir(parents=True)
    write_json({"spec": {"seed": 5}}, train.parent / "phantom.json")
    set_about(full_workspace, source_dir=str(train))
    commands, notes = redo_commands(full_workspace.open())
    assert commands[0] == "ichtune phantom work/phantom --seed 5"
    assert commands[1].startswith("ichtune prepare work/phantom/stage_2_train --labels work/phantom/labels.csv --out")
    assert not any("phantom's own settings" in note for note in notes)


def test_an_ensemble_that_is_not_shipped_is_written_out(full_workspace):
    commands, notes = redo_commands(full_workspace.open())
    assert "ichtune blend --ensemble ENSEMBLE.yaml --work work" in commands
    assert any(note.startswith("ENSEMBLE.yaml is {") and "convex" in note for note in notes)
    assert any("phantom's own settings are not known" in note for note in notes)


def test_real_data_elsewhere_keeps_its_path_but_no_patient(full_workspace):
    set_about(full_workspace, generated=False, source_dir="/data/P003/head ct", size_px=None)
    commands, _ = redo_commands(full_workspace.open())
    assert commands[0].startswith("ichtune prepare '/data/[hidden]/head ct' --labels labels.csv --out work")
    assert "--size native" in commands[0]


def test_winners_of_a_search_are_named_by_their_number(full_workspace):
    from ichtune.tables import TRIALS, read_table, write_table

    workspace = full_workspace.open()
    trials = read_table(workspace.layout.trials, TRIALS)
    trials["recipe_id"] = ["r0", "r1", "x", "y", "z"]
    write_table(trials.iloc[:4], workspace.layout.trials, TRIALS)
    commands, _ = redo_commands(full_workspace.open())
    assert "ichtune search --space windows --trials 4 --work work" in commands
    assert "ichtune train --top 2 --work work" in commands
    assert "ichtune train --recipe RECIPE.yaml --work work  # r2" in commands


def test_a_scored_ladder_is_scored_again(full_workspace):
    workspace = full_workspace.open()
    rows = json.loads(workspace.layout.ladder.read_text(encoding="utf-8"))
    write_json([{**row, "test_loss": 0.2} for row in rows], workspace.layout.ladder)
    scored = "ichtune score work/submission.csv --truth {} --ladder --work work"
    assert redo_commands(workspace)[0][-2] == scored.format("work/phantom/truth.csv")
    set_about(full_workspace, generated=False)
    assert redo_commands(full_workspace.open())[0][-2] == scored.format("TRUTH.csv")


def test_a_bare_workspace_can_be_prepared_again(make_blend_workspace):
    commands, _ = redo_commands(make_blend_workspace(noises=()).open())
    assert [command.split()[1] for command in commands] == ["phantom", "prepare", "report"]


def test_a_damaged_ledger_names_its_line(full_workspace):
    path = full_workspace.root / "searches" / "windows" / "ledger.jsonl"
    path.write_text("{oops\n", encoding="utf-8")
    with pytest.raises(DataError, match=r"ledger\.jsonl:1 is damaged"):
        search_starts(full_workspace.open())


def test_nested_values_may_be_absent():
    assert nested({"a": {"b": 1}}, "a", "b") == 1
    assert nested({"a": {"b": 1}}, "a", "c", "d") is None
    assert nested({"a": 1}, "a", "b") is None


def test_runs_of_the_second_level_follow_those_that_they_learnt_from(make_blend_workspace):
    made = make_blend_workspace(n_patients=12, noises=())
    made.add_run("aaaaaaaaaaaa", 1.0)
    for recipe in (SecondLevelRecipe(model="kernel"), SecondLevelRecipe(model="kernel", kernel="1-2-1")):
        stack(made.open(), recipe)
    trained, *stacked, last = redo_commands(made.open())[0][-4:]
    assert trained == "ichtune train --recipe RECIPE.yaml --work work  # aaaaaaaaaaaa"
    other = SecondLevelRecipe(model="kernel", kernel="1-2-1", members=("aaaaaaaaaaaa",)).recipe_id
    assert sorted(stacked) == [
        f"ichtune stack --recipe RECIPE.yaml --work work  # {other}",
        "ichtune stack --recipe level2_kernel --work work",
    ]
    assert last == "ichtune report --work work"


def test_added_predictions_are_added_again_and_not_trained(make_blend_workspace, tmp_path):
    made = make_blend_workspace(n_patients=12, noises=(1.0,))
    oof, test = made.predictions("r9", 1.0)
    oof.drop(columns=["recipe_id", "fold"]).to_csv(tmp_path / "my oof.csv", index=False)
    test[test["fold"] == 0].drop(columns=["recipe_id", "fold"]).to_csv(tmp_path / "test.csv", index=False)
    add_predictions(made.open(), tmp_path / "my oof.csv", "resnet", "this", tmp_path / "test.csv")
    commands = redo_commands(made.open())[0][-3:]
    assert commands == [
        "ichtune train --recipe RECIPE.yaml --work work  # r0",
        "ichtune ensemble add 'my oof.csv' --name resnet --fold-plan this --test test.csv --work work",
        "ichtune report --work work",
    ]
