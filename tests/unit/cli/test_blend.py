import json

import numpy as np
import pytest

from ichtune.cli.blend import blend
from ichtune.ensemble.post_processing.steps import DEFAULT_STEPS, STEPS
from ichtune.errors import ConfigError, DataError, IchtuneError


@pytest.fixture
def run(run_alone):
    return run_alone(blend)


def test_json_is_all_there_is_on_stdout(make_blend_workspace, run):
    made = make_blend_workspace()
    made.write_sample()
    outcome = run("--work", made.root, "--json")
    shown = json.loads(outcome.stdout)
    assert {"ladder", "weights", "blend_id", "submission", "n_filled"} <= set(shown)
    assert shown["n_filled"] == 1
    assert shown["generated"] is True
    assert shown["ladder"] == json.loads((made.root / "ladder.json").read_text(encoding="utf-8"))
    assert (made.root / "submission.csv").is_file()
    assert "1 of 120 slices have no prediction" in outcome.stderr


def test_the_ladder_the_interval_and_the_next_command_are_shown(make_blend_workspace, run):
    made = make_blend_workspace()
    shown = run("--work", made.root, "--ensemble", "mean").stdout
    for text in (
        "prior",
        "best_single",
        "equal_mean",
        "blend",
        "95 % interval",
        "On 12 new patients",
        "net_r0",
        "in sample",
        "Weighted log loss on generated data (phantom)",
    ):
        assert text in shown
    assert "out-of-fold" not in shown, "the blend is fitted on what that column scores"
    assert "\x1b" not in shown, "no colour when piped"
    assert shown.strip().splitlines()[-1] == f"Next: ichtune report --work {made.root}"


@pytest.mark.slow  # takes seconds
def test_what_auto_tried_is_shown_and_told_to_scripts(make_blend_workspace, run):
    made = make_blend_workspace()
    shown = run("--work", made.root, "--ensemble", "auto").stdout
    assert "equal mean logit" in shown
    assert "logistic stacking: l2 0.1" in shown
    assert shown.count("chosen") == 1
    tried = json.loads(run("--work", made.root, "--ensemble", "auto", "--json").stdout)["tried"]
    assert [one["chosen"] for one in tried].count(True) == 1
    assert min(one["behind"] for one in tried) == 0


def test_what_each_step_gained_is_shown_and_told_to_scripts(make_blend_workspace, run):
    made = make_blend_workspace(n_patients=60, noises=(2.0, 2.0))
    ensemble = made.root / "convex.yaml"
    ensemble.write_text("blender: convex\n", encoding="utf-8")
    shown = run("--work", made.root, "--ensemble", ensemble).stdout
    lines = {line.split(":")[0].strip(): line for line in shown.splitlines() if line.startswith("  ")}
    assert list(DEFAULT_STEPS) == [name for name in lines if name in STEPS]
    told = json.loads(run("--work", made.root, "--ensemble", ensemble, "--json").stdout)
    for gain in told["post_processing"]:
        star = "*" if gain["applied"] else ""
        assert f"{gain['label']} {gain['gain']:+.5f}{star}" in lines[gain["step"]]
    assert "*" in lines["temperature"]
    assert f"With post-processing against without: {told['differences']['blend_alone']['estimate']:+.5f}" in shown
    rates = [told["rates"][key]["any"] for key in ("training", "test_predicted", "test_estimated")]
    assert f"any {', '.join(f'{rate:.1%}' for rate in rates)};" in shown


@pytest.mark.slow  # takes seconds
def test_scores_and_the_luck_of_a_choice_are_shown_and_told_to_scripts(make_blend_workspace, run):
    made = make_blend_workspace(n_patients=60)
    shown = run("--work", made.root).stdout
    told = json.loads(run("--work", made.root, "--json").stdout)
    any_label = told["scores"]["slices"]["labels"]["any"]
    (line,) = [line for line in shown.splitlines() if line.startswith("any of a slice:")]
    assert f"AUC {any_label['auc']['estimate']:.4f}" in line
    assert f"calibration error {any_label['calibration_error']['estimate']:.4f}" in line
    (line,) = [line for line in shown.splitlines() if line.startswith("any of a series:")]
    assert "AUC unknown (" in line, "each of these series has a slice with it"
    assert set(told["optimism"]) == {"best_single", "blender"}
    for choice in told["optimism"].values():
        assert f"Luck in the loss {choice['loss']:.5f} of the" in shown
        assert f"{choice['estimate']:+.5f}" in shown


@pytest.mark.parametrize("spoilt", ["folder", "sample"])
def test_what_cannot_be_written_is_known_before_the_ladder_is_another_one(make_blend_workspace, run, spoilt):
    made = make_blend_workspace()
    run("--work", made.root, "--ensemble", "mean", "--quiet")
    ladder, submission = ((made.root / name).read_bytes() for name in ("ladder.json", "submission.csv"))
    out = made.root / "submission.csv"
    if spoilt == "folder":
        out = made.root / "out"
        out.mkdir()
    else:
        (made.root / "sample_submission.csv").write_text("nothing,like,it\n", encoding="utf-8")
    with pytest.raises(IchtuneError):
        run("--work", made.root, "--ensemble", "greedy", "--out", out)
    assert (made.root / "ladder.json").read_bytes() == ladder
    assert (made.root / "submission.csv").read_bytes() == submission


def test_members_that_are_suspected_or_alike_are_named_and_told_to_scripts(make_blend_workspace, run):
    made = make_blend_workspace(n_patients=60)
    oof, test = made.predictions("r7", 1.0)
    made.write_run("r7", oof, test)
    made.write_run("r8", oof.assign(recipe_id="r8", p_any=oof["p_any"] * 0.9999), test.assign(recipe_id="r8"))
    y = made.y_NL[made.labelled]
    knows = oof["fold"].to_numpy() == 1
    told = oof.assign(recipe_id="r9")
    columns = [column for column in oof if column.startswith("p_")]
    told.loc[knows, columns] = np.clip(y[knows], 1e-3, 1 - 1e-3)
    made.write_run("r9", told, test.assign(recipe_id="r9"))

    outcome = run("--work", made.root, "--ensemble", "mean", "--json")

    shown = json.loads(outcome.stdout)
    assert {one["recipe_id"] for one in shown["suspicions"]} == {"r9"}
    assert [(one["recipe_id"], one["other"]) for one in shown["alike"]] == [("r7", "r8")]
    lines = outcome.stderr.splitlines()
    assert any(line.startswith("leak suspected: net_r9") for line in lines)
    assert any("net_r7" in line and "net_r8" in line and "say nearly the same" in line for line in lines)
    (path,) = made.root.glob("blends/*/blend.json")
    about = json.loads(path.read_text(encoding="utf-8"))
    assert (about["suspicions"], about["alike"]) == (shown["suspicions"], shown["alike"])
    assert run("--work", made.root, "--ensemble", "mean", "--quiet").output == ""


def test_members_may_be_a_search_or_a_name(make_blend_workspace, run, tmp_path):
    made = make_blend_workspace()
    (tmp_path / "mine.yaml").write_text("members: [r1, {search: none}]\n", encoding="utf-8")
    with pytest.raises(ConfigError, match="no search 'none'"):
        run("--work", made.root, "--ensemble", tmp_path / "mine.yaml")


def test_without_steps_nothing_is_said_of_them(make_blend_workspace, run):
    shown = run("--work", make_blend_workspace().root, "--ensemble", "mean").stdout
    assert "applied" not in shown
    assert "post-processing" not in shown


@pytest.mark.slow  # takes seconds
def test_real_data_is_not_called_generated(make_blend_workspace, run):
    made = make_blend_workspace()
    path = made.root / "workspace.json"
    path.write_text(json.dumps({**json.loads(path.read_text(encoding="utf-8")), "generated": False}), encoding="utf-8")
    assert "generated" not in run("--work", made.root).stdout
    assert json.loads(run("--work", made.root, "--json").stdout)["generated"] is False


def test_quiet_writes_files_and_nothing_else(make_blend_workspace, run, tmp_path):
    made = make_blend_workspace()
    outcome = run("--work", made.root, "--quiet", "--out", tmp_path / "mine.csv")
    assert outcome.output == ""
    assert (tmp_path / "mine.csv").is_file()
    assert not (made.root / "submission.csv").exists()


def test_without_unlabelled_slices_there_is_a_ladder_and_no_submission(make_blend_workspace, run):
    made = make_blend_workspace(n_test_patients=0, noises=())
    made.write_run("r0", made.predictions("r0", 1.0)[0], None)
    outcome = run("--work", made.root)
    assert "no unlabelled slices" in outcome.stderr
    assert "Cross-fitted loss" in outcome.stdout
    assert not (made.root / "submission.csv").exists()


def test_a_misspelt_ensemble_names_the_nearest_one(make_blend_workspace, run):
    with pytest.raises(ConfigError, match="Did you mean 'demo'"):
        run("--work", make_blend_workspace().root, "--ensemble", "dmeo")


def test_a_missing_workspace_names_the_command_that_makes_it(tmp_path, run):
    with pytest.raises(DataError, match="ichtune prepare"):
        run("--work", tmp_path / "nowhere")


def test_help_ends_with_an_example(run):
    assert "Example: ichtune blend" in run("--help").stdout
