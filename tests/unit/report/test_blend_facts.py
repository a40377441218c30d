import json

import pytest

from ichtune.ensemble.blend import run_blend
from ichtune.ensemble.post_processing.steps import DEFAULT_STEPS
from ichtune.ensemble.spec import BlendSpec
from ichtune.errors import DataError
from ichtune.labels import LABELS
from ichtune.report.blend_facts import collect_blend, collect_ladder
from ichtune.tables import write_json

pytestmark = pytest.mark.slow  # whole workspaces are searched, trained, blended or drawn


def test_nothing_blended_is_nothing(make_blend_workspace):
    workspace = make_blend_workspace().open()
    assert collect_ladder(workspace) == ()
    assert collect_blend(workspace) is None


def test_the_ladder_is_that_of_the_file(full_workspace):
    workspace = full_workspace.open()
    rows = json.loads(workspace.layout.ladder.read_text(encoding="utf-8"))
    ladder = collect_ladder(workspace)
    assert [row.name for row in ladder] == [row["name"] for row in rows]
    assert [row.crossfit_loss for row in ladder] == [row["crossfit_loss"] for row in rows]
    assert sum(row.is_single for row in ladder) == 3
    assert ladder[0].title == "label rates only (prior)"
    assert ladder[0].is_inside is None
    rows[-1]["test_loss"] = rows[-1]["crossfit_loss"]
    write_json(rows, workspace.layout.ladder)
    assert collect_ladder(workspace)[-1].is_inside
    rows[-1]["test_loss"] = 99.0
    write_json(rows, workspace.layout.ladder)
    assert collect_ladder(workspace)[-1].is_inside is False


def test_a_ladder_of_four_bare_figures_is_enough(make_blend_workspace):
    workspace = make_blend_workspace().open()
    bare = {"oof_loss": 0.2, "crossfit_loss": None, "test_loss": None}
    write_json([{"name": "prior", **bare}, {"name": "blend", **bare}], workspace.layout.ladder)
    assert [row.oof_loss for row in collect_ladder(workspace)] == [0.2, 0.2]
    assert collect_blend(workspace) is None


@pytest.mark.parametrize("text", ['{"name": 1}', "[1]", '[{"loss": 1}]', "["])
def test_a_ladder_that_is_none_names_the_file(make_blend_workspace, text):
    workspace = make_blend_workspace().open()
    workspace.layout.ladder.write_text(text, encoding="utf-8")
    with pytest.raises(DataError, match=r"ladder\.json .*run `ichtune blend` again"):
        collect_ladder(workspace)


def test_what_auto_chose_is_the_method(make_blend_workspace):
    workspace = make_blend_workspace().open()
    blended = run_blend(workspace, BlendSpec(blender="auto"))
    (chosen,) = [tried for tried in blended.tried if tried.chosen]
    assert collect_blend(workspace).method.startswith(f"auto, chose {chosen.title}, ")


def test_weights_labels_and_gains(full_workspace):
    workspace = full_workspace.open()
    blend = collect_blend(workspace)
    assert blend.method.startswith("convex")
    weights = [member.weights for member in blend.members]
    assert sum(w[0] for w in weights) == pytest.approx(1.0)
    assert blend.is_shared == all(len(set(w)) == 1 for w in weights)
    assert blend.labels[0].label == "any"
    weighted = (2 * blend.labels[0].blend + sum(row.blend for row in blend.labels[1:])) / 7
    assert weighted == pytest.approx(collect_ladder(workspace)[-1].crossfit_loss)
    assert all(row.best_single is not None for row in blend.labels)
    assert {title for title, *_ in blend.gains} == {
        "label rates only (prior)",
        "best single run",
        "equal mean",
        "blend without post-processing",
    }
    assert sum(point["n"] for point in blend.reliability) == 300
    assert blend.notes == ("halfway: not every fold is trained",)


def test_what_each_step_did_and_the_rates_of_the_test_set(full_workspace):
    workspace = full_workspace.open()
    blend = collect_blend(workspace)
    assert [step.title for step in blend.steps] == [name.replace("_", " ") for name in DEFAULT_STEPS]
    by_title = {step.title: step.gains for step in blend.steps}
    assert [gain.label for gain in by_title["platt"]] == list(LABELS)
    assert [gain is None for gain in by_title["any noisy or"]] == [False] + [True] * 5
    (path,) = workspace.layout.blends.glob("*/blend.json")
    told = json.loads(path.read_text(encoding="utf-8"))["rates"]
    assert {row.label: row.predicted_rate for row in blend.labels} == told["test_predicted"]
    assert {row.label: row.estimated_rate for row in blend.labels} == told["test_estimated"]


def test_filled_slices_are_counted_by_reason(full_workspace):
    submission = collect_blend(full_workspace.open()).submission
    assert submission == {"n_slices": 120, "n_filled": 1, "by_reason": {"truncated_pixel_data": 1}}


def test_without_a_submission_it_says_so(full_workspace):
    workspace = full_workspace.open()
    workspace.layout.submission.unlink()
    blend = collect_blend(workspace)
    assert blend.submission is None
    assert "ichtune blend" in blend.submission_note


def test_a_blender_without_weights_and_an_older_blend(full_workspace):
    workspace = full_workspace.open()
    blended = run_blend(workspace, BlendSpec(blender="equal_mean"))
    about_path = workspace.layout.blends / blended.blend_id / "blend.json"
    about = json.loads(about_path.read_text(encoding="utf-8"))
    kept = {key: about[key] for key in ("blend_id", "members")}  # absent keys are tolerated
    write_json(kept, about_path)
    blend = collect_blend(workspace)
    assert [member.weights for member in blend.members] == [None, None, None]
    assert not blend.is_shared
    assert blend.n_other_blends == 1
    assert [row.blend for row in blend.labels] == [None] * 6
