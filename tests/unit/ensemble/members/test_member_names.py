import json
import sys
from dataclasses import replace

import pandas as pd
import pytest

from ichtune.ensemble.members.member_names import foreign_names, resolve_members, started_runs
from ichtune.errors import ConfigError, DataError
from ichtune.recipe_file import read_recipe, read_second_level_recipe
from ichtune.tables import TRIALS, write_table


@pytest.fixture
def made(make_blend_workspace):
    made = make_blend_workspace(noises=(1.0, 1.1, 1.2, 1.3))
    record = {"foreign": True, "name": "theirs", "summary": "theirs"}
    (made.root / "runs" / "r3" / "recipe.json").write_text(json.dumps(record), encoding="utf-8")
    return made


def write_trials(made, *rows):
    frame = pd.DataFrame({column: [0] * len(rows) for column, d in TRIALS.columns.items() if d != "string"})
    frame = frame.assign(**{column: "" for column, d in TRIALS.columns.items() if d == "string"})
    frame["search"], frame["recipe_id"] = [s for s, _ in rows], [r for _, r in rows]
    frame["trial"] = range(len(rows))
    write_table(frame, made.root / "trials.parquet", TRIALS)


def test_ids_names_and_searches_are_runs(made):
    write_trials(made, ("windows", "r2"), ("windows", "r0"), ("windows", "untrained"), ("lr", "r1"))
    work = made.open()
    assert resolve_members(work, ["r2", "r0"]) == ["r2", "r0"]
    assert resolve_members(work, ["theirs"]) == ["r3"]
    assert resolve_members(work, [{"search": "windows"}]) == ["r0", "r2"]
    assert resolve_members(work, ["r2", {"search": "windows"}, {"search": "lr"}]) == ["r2", "r0", "r1"]
    assert foreign_names(work) == {"theirs": "r3"}
    assert started_runs(work) == ["r0", "r1", "r2", "r3"]


def test_a_recipe_is_the_run_that_was_trained_from_it(made, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "torch", None)  # a laptop that only blends has none
    recipe_id = read_recipe("exp_00").recipe_id
    with pytest.raises(
        DataError, match=rf"recipe exp_00 \({recipe_id}\) is not trained .*`ichtune train --recipe exp_00`"
    ):
        resolve_members(made.open(), ["exp_00"])
    made.write_run(recipe_id, *made.predictions(recipe_id, 1.0))
    file = tmp_path / "mine.yaml"
    file.write_text("architecture: tiny_convnet\n", encoding="utf-8")
    own_id = read_recipe(str(file)).recipe_id
    made.write_run(own_id, *made.predictions(own_id, 1.0))
    assert resolve_members(made.open(), ["exp_00", str(file)]) == [recipe_id, own_id]


def write_second_level(made, recipe_id, recipe):
    made.write_run(recipe_id, *made.predictions(recipe_id, 1.0))
    record = {"summary": "gru", "recipe": recipe.to_dict()}
    (made.root / "runs" / recipe_id / "recipe.json").write_text(json.dumps(record), encoding="utf-8")


def test_runs_of_the_second_level_are_named_by_level_or_by_their_recipe(made):
    with pytest.raises(DataError, match=r"no run of level 2 .*`ichtune stack`"):
        resolve_members(made.open(), [{"level": 2}])
    with pytest.raises(DataError, match=r"recipe level2_gru is not trained .*`ichtune stack --recipe level2_gru`"):
        resolve_members(made.open(), ["level2_gru"])
    gru = read_second_level_recipe("level2_gru")
    write_second_level(made, "s0", replace(gru, members=("000000000001", "000000000002")))
    write_second_level(made, "s1", replace(gru, members=("000000000001",), hidden=8))
    assert resolve_members(made.open(), ["level2_gru"]) == ["s0"]
    assert resolve_members(made.open(), [{"level": 2}]) == ["s0", "s1"]
    assert resolve_members(made.open(), [{"level": 1}, "s1"]) == ["r0", "r1", "r2", "r3", "s1"]
    write_second_level(made, "s2", replace(gru, members=("000000000001",)))
    with pytest.raises(ConfigError, match="level2_gru has runs on several sets of members: name one of s0, s2"):
        resolve_members(made.open(), ["level2_gru"])


def test_what_means_nothing_is_answered_with_the_nearest(made):
    with pytest.raises(ConfigError, match=r"'thiers'.*Did you mean 'theirs'"):
        resolve_members(made.open(), ["thiers"])
    with pytest.raises(ConfigError, match=r"no search 'windows' .*Nothing has been searched"):
        resolve_members(made.open(), [{"search": "windows"}])
    write_trials(made, ("windows", "untrained"))
    with pytest.raises(ConfigError, match=r"no search 'window' .*Did you mean 'windows'"):
        resolve_members(made.open(), [{"search": "window"}])
    with pytest.raises(DataError, match=r"no recipe of search 'windows' .*`ichtune train --search windows`"):
        resolve_members(made.open(), [{"search": "windows"}])
    with pytest.raises(ConfigError, match=r"a name, \{search: NAME\} or \{level: 2\}"):
        resolve_members(made.open(), [{"searches": "windows"}])
