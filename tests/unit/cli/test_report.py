import json

import pytest

from ichtune.cli.report import report
from ichtune.errors import DataError

pytestmark = pytest.mark.slow  # whole workspaces are searched, trained, blended or drawn


@pytest.fixture
def run(run_alone):
    return run_alone(report)


def test_the_page_lies_in_the_workspace_unless_said_otherwise(make_blend_workspace, run, tmp_path):
    made = make_blend_workspace()
    outcome = run("--work", made.root)
    assert outcome.exit_code == 0
    assert (made.root / "report.html").read_text(encoding="utf-8").startswith("<!DOCTYPE html>")
    assert f"Wrote {made.root / 'report.html'}" in outcome.stdout
    assert "no blend yet: run `ichtune blend`" in outcome.stderr
    run("--work", made.root, "--out", tmp_path / "new" / "page.html")
    assert (tmp_path / "new" / "page.html").is_file()


def test_json_is_all_there_is_on_stdout(make_blend_workspace, run):
    made = make_blend_workspace()
    shown = json.loads(run("--work", made.root, "--json").stdout)
    assert shown["report"] == str(made.root / "report.html")
    assert shown["bytes"] == (made.root / "report.html").stat().st_size
    assert shown["missing"]["search"] == "no search yet: run `ichtune search --space windows.yaml`"


def test_quiet_says_nothing(make_blend_workspace, run):
    outcome = run("--work", make_blend_workspace().root, "--quiet")
    assert outcome.stdout == ""
    assert outcome.stderr == ""


def test_an_unprepared_workspace_names_the_command(run, tmp_path):
    with pytest.raises(DataError, match="ichtune prepare"):
        run("--work", tmp_path / "nowhere")
