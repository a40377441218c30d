import json

import pytest

from ichtune.ensemble.blend import run_blend
from ichtune.ensemble.spec import BlendSpec
from ichtune.labels import LABELS
from ichtune.report.score_facts import TITLES, compared_rows, luck_rows, score_tables, search_caveat, warnings_of


@pytest.fixture
def about(make_blend_workspace):
    made = make_blend_workspace(n_patients=40)
    blended = run_blend(made.open(), BlendSpec(blender="convex", post_processing="none"))
    return json.loads((made.root / "blends" / blended.blend_id / "blend.json").read_text(encoding="utf-8"))


def test_scores_of_slices_and_series_are_those_that_were_kept(about):
    slices, series = score_tables(about)
    assert (slices.unit, slices.n, series.unit, series.n) == ("slices", about["n_slices"], "series", 40)
    assert [row.title for row in slices.rows] == list(TITLES.values())
    assert "expected calibration error" not in [row.title for row in series.rows]
    kept = about["scores"]["slices"]
    auc = slices.rows[0].values
    assert [value.estimate for value in auc[:-1]] == [kept["labels"][label]["auc"]["estimate"] for label in LABELS]
    assert (auc[-1].low, auc[-1].high) == (kept["pooled"]["auc"]["low"], kept["pooled"]["auc"]["high"])
    assert slices.n_positive == tuple(kept["labels"][label]["n_positive"] for label in LABELS)
    undefined = [value for row in series.rows for value in row.values if value.estimate is None]
    assert all(value.reason for value in undefined)


def test_luck_is_named_after_the_choice(about):
    (row,) = luck_rows(about)
    told = about["optimism"]["best_single"]
    assert row.title == "the best of 3 runs"
    assert row.corrected == pytest.approx(row.loss + row.luck)
    assert (row.loss, row.low) == (told["loss"], told["corrected"]["low"])


def test_members_are_compared_with_the_blend_in_order(about):
    rows = compared_rows(about, "members_compared")
    assert [row.title for row in rows] == [member["name"] for member in about["members"]]
    for row, told in zip(rows, about["members_compared"], strict=True):
        assert row.estimate == pytest.approx(row.loss - about["loss"]["crossfit_loss"])
        assert (row.low, row.high) == (told["together"]["low"], told["together"]["high"])
    assert compared_rows(about, "ways_compared") == ()
    assert not rows[0].is_chosen


def test_the_chosen_way_is_marked():
    settings = {"parameters": {}, "loss": 0.1, "behind": 0.0, "standard_error": 0.0}
    tried = [{"blender": name, **settings, "chosen": name == "power_mean"} for name in ("equal_mean", "power_mean")]
    even = {"estimate": 0.0, "low": 0.0, "high": 0.0}
    ways = [{"name": name, "loss": 0.1, "together": even} for name in ("equal mean", "power mean")]
    rows = compared_rows({"learned": {"blender": {"tried": tried}}, "ways_compared": ways}, "ways_compared")
    assert [row.is_chosen for row in rows] == [False, True]


def test_warnings_name_members_and_no_slices():
    about = {
        "members": [{"recipe_id": "a1", "name": "resnet"}, {"recipe_id": "b2", "name": "theirs"}],
        "suspicions": [
            {"recipe_id": "a1", "kind": "rows", "n_patients": 3, "fold": None, "image_ids": ["ID_1"]},
            {"recipe_id": "b2", "kind": "fold", "n_patients": 9, "fold": 2, "image_ids": []},
        ],
        "alike": [{"recipe_id": "a1", "other": "b2", "correlation": 0.99995}],
    }
    rows, fold, alike = warnings_of(about)
    assert rows.startswith("Leak suspected: resnet (a1) is sure and right about slices of 3 patients")
    assert "fold 2" in fold
    assert "resnet (a1) and theirs (b2)" in alike
    assert "0.999950" in alike
    assert not any("ID_1" in line for line in (rows, fold, alike))


def test_members_that_won_a_search_are_told_of():
    told = search_caveat({"searches": {"windows": 60, "lr": 8}})
    assert "won a search: windows (60 trials), lr (8 trials)." in told
    assert search_caveat({"searches": {}}) == search_caveat({}) == ""


def test_an_older_blend_has_none():
    assert (score_tables({}), luck_rows({}), warnings_of({})) == ((), (), ())
