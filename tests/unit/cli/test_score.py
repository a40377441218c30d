import json

import pytest

from ichtune.cli.blend import blend
from ichtune.cli.score import score
from ichtune.errors import DataError

pytestmark = pytest.mark.slow  # whole workspaces are searched, trained, blended or drawn


@pytest.fixture
def run(run_alone):
    return run_alone(blend, score)


@pytest.fixture
def blended(make_blend_workspace, tmp_path, run):
    made = make_blend_workspace()
    made.write_sample()
    run("blend", "--work", made.root, "--quiet")
    return made, made.root / "submission.csv", made.write_truth(tmp_path / "truth.csv")


def test_json_holds_the_metric_and_its_parts(blended, run):
    _, submission, truth = blended
    shown = json.loads(run("score", submission, "--truth", truth, "--json").stdout)
    assert set(shown) == {"weighted_log_loss", "per_label", "n"}
    assert shown["n"] == 120


def test_the_ladder_is_completed_only_when_asked(blended, run):
    made, submission, truth = blended
    run("score", submission, "--truth", truth, "--work", made.root)
    assert all(row["test_loss"] is None for row in json.loads((made.root / "ladder.json").read_text()))
    shown = run("score", submission, "--truth", truth, "--work", made.root, "--ladder").stdout
    ladder = {row["name"]: row for row in json.loads((made.root / "ladder.json").read_text())}
    assert all(row["test_loss"] is not None for row in ladder.values())
    assert f"{ladder['blend']['test_loss']:.5f} lies" in shown
    assert "weighted log loss" in shown


def test_generated_data_is_called_generated(blended, run):
    made, submission, truth = blended
    call = ("score", submission, "--truth", truth)
    assert "generated" not in run(*call).stdout
    named = (*call, "--work", made.root)
    assert json.loads(run(*named, "--json").stdout)["generated"] is True
    assert "Weighted log loss on generated data (phantom)" in run(*named, "--ladder").stdout
    (truth.parent / "phantom.json").write_text("{}", encoding="utf-8")
    assert json.loads(run(*call, "--json").stdout)["generated"] is True
    assert run(*call).stdout.endswith("on 120 slices of generated data (phantom)\n")


def test_a_workspace_that_is_not_there_does_not_keep_a_submission_from_its_score(blended, run, tmp_path):
    _, submission, truth = blended
    shown = run("score", submission, "--truth", truth, "--work", tmp_path / "nowhere", "--json").stdout
    assert "generated" not in json.loads(shown)


def test_a_ladder_without_an_expected_interval_is_shown(blended, run):
    made, submission, truth = blended
    path = made.root / "ladder.json"
    unknown = {"expected_test_low": None, "expected_test_high": None}
    rows = [{**row, **unknown} for row in json.loads(path.read_text(encoding="utf-8"))]
    path.write_text(json.dumps(rows), encoding="utf-8")
    shown = run("score", submission, "--truth", truth, "--work", made.root, "--ladder").stdout
    assert "The blend's test loss is 0." in shown
    assert "SIDE" not in shown


def test_the_next_command_ends_the_notes_unless_they_are_unwanted(blended, run):
    made, submission, truth = blended
    call = ("score", submission, "--truth", truth, "--work", made.root)
    assert run(*call).stderr == f"next: ichtune report --work {made.root}\n"
    assert run(*call, "--quiet").stderr == run(*call, "--json").stderr == ""


def test_quiet_leaves_the_number(blended, run):
    _, submission, truth = blended
    shown = run("score", submission, "--truth", truth, "--quiet").stdout
    assert 0 < float(shown) < 1


def test_a_missing_file_is_named(tmp_path, run):
    with pytest.raises(DataError, match=r"nowhere.csv does not exist"):
        run("score", tmp_path / "nowhere.csv", "--truth", tmp_path / "truth.csv")


def test_help_ends_with_an_example(run):
    assert "Example: ichtune score" in run("score", "--help").stdout
