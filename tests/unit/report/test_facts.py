import pytest

from ichtune.errors import DataError
from ichtune.report.facts import collect_facts
from ichtune.workspace import Workspace


def test_a_full_workspace_misses_nothing(full_workspace):
    facts = collect_facts(full_workspace.open())
    assert facts.missing == {}
    assert facts.work == "work"
    assert facts.blend_row.name == "blend"
    assert facts.blend.blend_id
    assert facts.data_name == "generated data (phantom)"


def test_what_is_absent_names_the_command_that_makes_it(make_blend_workspace):
    facts = collect_facts(make_blend_workspace(noises=()).open())
    assert facts.missing == {
        "ladder": "no score ladder yet: run `ichtune blend`",
        "blend": "no blend yet: run `ichtune blend`",
        "search": "no search yet: run `ichtune search --space windows.yaml`",
        "runs": "no cross-validated run yet: run `ichtune train`",
    }
    assert facts.blend_row is None
    assert facts.blend is facts.search is facts.runs is None


def test_runs_without_a_blend_are_shown(make_blend_workspace):
    facts = collect_facts(make_blend_workspace().open())
    assert set(facts.missing) == {"ladder", "blend", "search"}
    assert len(facts.runs.rows) == 3


def test_an_unprepared_folder_is_refused(tmp_path):
    with pytest.raises(DataError, match="ichtune prepare"):
        collect_facts(Workspace(tmp_path / "nowhere"))
