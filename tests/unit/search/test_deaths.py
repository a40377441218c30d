"""Trials whose worker died: what is said of them and what is kept."""

from pathlib import Path
from types import SimpleNamespace

import pytest

from ichtune.search.deaths import DEATHS_FILE, MAX_CAUSE, MAX_FAILURES, cause_of, gains_tries, keeper_of, reason_of
from ichtune.store.store import Store
from ichtune.workspace import Workspace

DIED = """Failure # 1 (occurred at 2026-01-01_00-00-00)
Something else.
Failure # 2 (occurred at 2026-01-01_00-00-01)
The actor died unexpectedly before finishing this task.
\tclass_name: FoldTrial
\tpid: 12
The actor is dead because its worker process has died. Worker exit type: SYSTEM_ERROR
"""
RAISED = """Failure # 1 (occurred at 2026-01-01_00-00-00)
ray::FoldTrial.train() (pid=12)
  File "objective.py", line 1, in step
KeyError: 'lr'
"""


def test_the_cause_is_the_line_that_says_most_of_the_last_error():
    assert cause_of(DIED) == (
        "The actor is dead because its worker process has died. Worker exit type: SYSTEM_ERROR",
        True,
    )
    assert cause_of(RAISED) == ("KeyError: 'lr'", False)
    assert cause_of("Failure # 1 (now)\nOut of memory.\n") == ("Out of memory.", True)
    assert cause_of("") == ("nothing is known of it", True)
    assert len(cause_of("Failure # 1\n" + "x" * 1000)[0]) == MAX_CAUSE


@pytest.mark.parametrize(
    ("text", "begins"),
    [
        (DIED, f"its worker died {MAX_FAILURES + 1} times with no epoch in between, the last time: The actor is dead"),
        (RAISED, "KeyError: 'lr' (traceback in"),
    ],
)
def test_the_reason_names_the_cause_and_the_copy_in_the_workspace(tmp_path, text, begins):
    (tmp_path / "error.txt").write_text(text)
    trial = SimpleNamespace(error_file=str(tmp_path / "error.txt"), config={"folder": "searches/s/trials/0003"})
    workspace = Workspace(tmp_path / "work")

    reason = reason_of(trial, keeper_of(workspace))

    kept = workspace.layout.root / "searches" / "s" / "trials" / "0003" / DEATHS_FILE
    assert reason.startswith(begins)
    assert reason.endswith(f"(traceback in {kept})")
    assert kept.read_text() == text


def test_an_absolute_folder_is_where_the_trial_keeps_its_checkpoints(tmp_path):
    place = keeper_of(Workspace(tmp_path / "work"))({"folder": str(tmp_path / "trial")}, "why")

    assert Path(place) == tmp_path / "trial" / DEATHS_FILE


def test_at_a_url_the_copy_is_put_there(tmp_path):
    url = f"file://{tmp_path / 'there'}"
    place = keeper_of(Workspace(tmp_path / "mirror", url))({"folder": "searches/s/trials/0003"}, "why")

    assert place == f"{url}/searches/s/trials/0003/{DEATHS_FILE}"
    assert list(Store(url).files("searches")) == [f"s/trials/0003/{DEATHS_FILE}"]


def test_where_ray_wrote_nothing_down_the_path_is_named(tmp_path):
    gone = str(tmp_path / "gone.txt")

    assert reason_of(SimpleNamespace(error_file=gone, config={})) == f"its worker died (traceback in {gone})"


def test_a_new_epoch_gives_a_trial_its_tries_anew():
    trial = SimpleNamespace(num_failures=7, max_failures=MAX_FAILURES)

    gains_tries(trial)

    assert trial.max_failures == 7 + MAX_FAILURES
    for n_deaths, left in ((1, MAX_FAILURES - 1), (MAX_FAILURES, 0), (MAX_FAILURES + 1, 0)):
        gains_tries(trial, n_deaths)
        assert trial.max_failures == 7 + left
