import json

import pytest

from ichtune.ensemble.members.run_records import check_have_models, is_foreign, run_title
from ichtune.errors import DataError


def test_a_run_says_its_recipe_in_one_line(make_blend_workspace):
    made = make_blend_workspace(noises=(1.0, 1.2))
    path = made.root / "runs" / "r0" / "recipe.json"
    path.write_text(json.dumps({"summary": "tiny_convnet|brain"}), encoding="utf-8")
    assert run_title(made.open(), "r0") == "tiny_convnet|brain"
    assert run_title(made.open(), "no such run") == ""
    for damaged, message in (("[1]", "must hold a JSON object"), ("{", "no readable JSON")):
        path.write_text(damaged, encoding="utf-8")
        with pytest.raises(DataError, match=message):
            run_title(made.open(), "r0")


def test_members_without_models_are_named_where_models_are_needed(make_blend_workspace):
    made = make_blend_workspace(noises=(1.0, 1.2))
    check_have_models(made.open(), ["r0", "r1"], "a bundle")
    path = made.root / "runs" / "r1" / "recipe.json"
    path.write_text(json.dumps({"foreign": True, "name": "theirs"}), encoding="utf-8")
    assert is_foreign(made.open().run_about("r1"))
    assert not is_foreign(made.open().run_about("r0"))
    check_have_models(made.open(), ["r0"], "a bundle")
    with pytest.raises(DataError, match=r"a bundle needs the models of every member, and theirs \(r1\) came as"):
        check_have_models(made.open(), ["r0", "r1"], "a bundle")
