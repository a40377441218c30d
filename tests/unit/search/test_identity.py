"""What a search is: of other labels it is another one, whatever its space."""

import json

import pytest

from ichtune.errors import ConfigError
from ichtune.search.identity import check_noted, identity_of, not_comparable
from ichtune.search.ledger import Ledger
from ichtune.training.run_folder import inputs_of
from ichtune.workspace import Workspace


def relabelled(workspace):
    """Note another file of labels, as another `ichtune prepare` does."""
    about = json.loads(workspace.layout.workspace_json.read_text())
    about["labels_csv"]["sha256"] = "1" * 64
    workspace.layout.workspace_json.write_text(json.dumps(about))
    return Workspace(workspace.layout.root)


def test_it_is_the_space_its_folds_and_all_that_runs_are_made_from(fake_workspace, space):
    workspace = fake_workspace()
    identity = identity_of(workspace, space)

    assert identity == {"space_id": space.space_id, **inputs_of(workspace), "folds": [0]}
    assert "labels_sha256" in identity


def test_other_labels_make_another_search(fake_workspace, space):
    workspace = fake_workspace()
    before = identity_of(workspace, space)
    after = identity_of(relabelled(workspace), space)

    assert {key for key in before if before[key] != after[key]} == {"labels_sha256"}
    assert not_comparable(before, after) == ["labels_sha256"]


def test_losses_are_comparable_where_only_the_space_differs(fake_workspace, space):
    identity = identity_of(fake_workspace(), space)

    assert not_comparable(identity | {"space_id": "another"}, identity) == []
    for key in identity.keys() - {"space_id"}:
        assert not_comparable({k: v for k, v in identity.items() if k != key}, identity | {key: None}) == [key]


def test_a_search_of_which_something_was_not_noted_is_not_continued(tmp_path, record):
    identity = {"space_id": "s", "labels_sha256": "l", "folds": [0]}
    ledger = Ledger(tmp_path / "old" / "ledger.jsonl")
    check_noted(ledger, identity)
    ledger.open({"space_id": "s", "folds": [0]})
    check_noted(ledger, identity)  # of which there are no losses
    ledger.start(record(0, []))

    with pytest.raises(ConfigError, match=r"'old' was started by an earlier ichtune, .* its labels_sha256: .* --name"):
        check_noted(ledger, identity)
    check_noted(ledger, {"space_id": "another", "folds": [0]})
