import json
import sys

import pandas as pd
import pytest

from ichtune.ensemble.members.member_names import foreign_names, resolve_members, started_runs
from ichtune.errors import ConfigError, DataError
from ichtune.recipe_file import read_recipe
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
    with pytest.raises(ConfigError, match=r"a name or \{search: NAME\}"):
        resolve_members(made.open(), [{"searches": "windows"}])
