"""Where folds lie, and what a run is made from."""

from ichtune.training.run_folder import fold_folder, inputs_of
from ichtune.workspace import Workspace


def test_a_fold_lies_below_its_run(session_workspace: Workspace) -> None:
    assert fold_folder(session_workspace, "abc", 2) == session_workspace.layout.runs / "abc" / "fold_2"


def test_a_run_is_made_from_a_plan_a_cache_and_labels(session_workspace: Workspace) -> None:
    assert inputs_of(session_workspace) == {
        "fold_plan_hash": session_workspace.fold_plan.plan_hash,
        "cache_id": session_workspace.about["cache_id"],
        "labels_sha256": "0" * 64,
    }


def test_without_a_label_file_there_is_no_hash_of_one(fake_workspace) -> None:
    workspace = fake_workspace()
    workspace.about.pop("labels_csv")
    assert inputs_of(workspace)["labels_sha256"] is None
