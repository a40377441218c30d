from pathlib import Path

import pytest

from ichtune.errors import DataError
from ichtune.search.cluster_state import (
    FOLDER_VARIABLE,
    STATE_FILE,
    ClusterState,
    Node,
    cluster_folder,
    read_state,
    write_state,
)

STATE = ClusterState(
    cluster_id="c" * 32,
    address="127.0.0.1:6379",
    dashboard_url="http://127.0.0.1:8265",
    token_path="token",
    temp_dir="somewhere",
    nodes=(Node("head", 10, 1.5, 0, 0, "head.log"), Node("worker-1", 11, 2.5, 4, 1, "worker-1.log")),
)


def test_what_is_written_is_read_again(tmp_path):
    write_state(STATE, tmp_path)

    assert read_state(tmp_path) == STATE
    assert [node.is_head for node in STATE.nodes] == [True, False]
    assert STATE.process(STATE.nodes[1]).mark == STATE.cluster_id


def test_no_file_is_no_cluster(tmp_path):
    assert read_state(tmp_path / "nowhere") is None


@pytest.mark.parametrize("text", ["", "{}", "[]", '{"nodes": [{"name": 3}]}', '{"nodes": 5}'])
def test_a_file_that_is_none_of_ours_is_named(text, tmp_path):
    (tmp_path / STATE_FILE).write_text(text)

    with pytest.raises(DataError, match=r"cluster\.json cannot be read .*ichtune cluster up"):
        read_state(tmp_path)


def test_the_folder_is_the_users_own(monkeypatch):
    monkeypatch.setenv("HOME", "home-of-somebody")

    assert cluster_folder({FOLDER_VARIABLE: "here", "XDG_STATE_HOME": "/state"}) == Path("here")
    assert cluster_folder({"XDG_STATE_HOME": "/state"}) == Path("/state/ichtune/cluster")
    assert cluster_folder({"XDG_STATE_HOME": "relative"}) == Path("home-of-somebody/.local/state/ichtune/cluster")
    assert cluster_folder({}) == Path("home-of-somebody/.local/state/ichtune/cluster")
